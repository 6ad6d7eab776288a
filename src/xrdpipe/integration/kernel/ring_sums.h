/* What the variance of rings of unsplit pixels is made of. */

/* Add a tile's pixels to Σ s, Σ v, Σ v² and Σ max(x, 0) / norm² of their bins, with the signal
   s = x − dark and v = s / norm.

   Where x and s are counts, the few pixels of a bin in one tile are summed in float32; where their
   mean may be next to nothing, in float64. */
TARGET static inline __attribute__((always_inline)) void FN(counted_moments)(
    const plan *p, int64_t number, const tile_values *tile, int width, double *moments) {
    for (int64_t run = p->tile_ring_runs[number]; run < p->tile_ring_runs[number + 1]; run++) {
        F16 sum = FN(zero)(), value = FN(zero)(), square = FN(zero)(), counts = FN(zero)();
        for (int64_t e = p->ring_run_entries[run]; e < p->ring_run_entries[run + 1]; e++) {
            const F16 x = FN(values)(tile, p->ring_entry_pixel[e], width);
            const F16 inverse = FN(same)(p->ring_entry_inverse[e]), v = FN(mul)(x, inverse);
            sum = FN(add)(sum, x);
            value = FN(add)(value, v);
            square = FN(fma)(v, v, square);
            counts = FN(fma)(v, inverse, counts);
        }
        double *const to = moments + p->ring_run_bin[run] * SUMMED_MOMENTS * LANES;
        FN(accumulate)(to + MOMENT_SUM * LANES, sum);
        FN(accumulate)(to + MOMENT_VALUE * LANES, value);
        FN(accumulate)(to + MOMENT_SQUARE * LANES, square);
        FN(accumulate)(to + MOMENT_COUNTS * LANES, counts);
    }
}

TARGET static void FN(real_moments)(const plan *p, int64_t number, const tile_values *tile,
                                    int width, double *moments) {
    for (int64_t run = p->tile_ring_runs[number]; run < p->tile_ring_runs[number + 1]; run++) {
        D16 sum = FN(dzero)(), value = FN(dzero)(), square = FN(dzero)(), counts = FN(dzero)();
        for (int64_t e = p->ring_run_entries[run]; e < p->ring_run_entries[run + 1]; e++) {
            const int64_t pixel = p->ring_entry_pixel[e];
            const F16 x = FN(values)(tile, (size_t)pixel, width);
            const float dark = p->dark ? p->dark[number * p->tile + pixel] : 0;
            const F16 s = FN(sub)(x, FN(same)(dark));
            const double inverse = p->ring_entry_inverse[e];
            sum = FN(dfma)(1, FN(wide)(s), sum);
            value = FN(dfma)(inverse, FN(wide)(s), value);
            square = FN(dfma)(inverse * inverse, FN(wide)(FN(mul)(s, s)), square);
            counts = FN(dfma)(inverse * inverse, FN(dmax)(FN(wide)(x), 0), counts);
        }
        double *const to = moments + p->ring_run_bin[run] * SUMMED_MOMENTS * LANES;
        FN(daccumulate)(to + MOMENT_SUM * LANES, sum);
        FN(daccumulate)(to + MOMENT_VALUE * LANES, value);
        FN(daccumulate)(to + MOMENT_SQUARE * LANES, square);
        FN(daccumulate)(to + MOMENT_COUNTS * LANES, counts);
    }
}

TARGET static void FN(tile_moments)(const plan *p, int64_t number, const tile_values *tile,
                                    int width, double *moments) {
    if (p->dark || width == FLOATS)
        FN(real_moments)(p, number, tile, width, moments);
    else if (width == TWO_BYTES)
        FN(counted_moments)(p, number, tile, TWO_BYTES, moments);
    else
        FN(counted_moments)(p, number, tile, ONE_BYTE, moments);
}
