/* Median and quantiles of the samples of each bin, in all frames at once. */

#ifndef XRDPIPE_RING_STATISTICS_H
#define XRDPIPE_RING_STATISTICS_H

static const double TAIL = 0.1587; /* of a normal distribution beyond one sigma */

/* The width of the tile that a pixel lies in. */
static inline int width_of(const workspace *w, int64_t pixel) { return w->held[pixel >> w->shift]; }

/* Ask for the values of a pixel ahead of time. */
static inline void fetch_kept(const workspace *w, int64_t pixel) {
    if (width_of(w, pixel) == FLOATS)
        __builtin_prefetch(w->kept.floats + LANES * pixel);
    else
        __builtin_prefetch(w->kept.low + LANES * pixel);
}

/* Values of this width above it may stand for exceptions. */
static inline float held_below(const plan *p, int width, int flags) {
    if (width == FLOATS) return flags & SATURATED ? (float)(0.999999 * p->saturation) : INFINITY;
    return width == ONE_BYTE ? 254.5f : 65534.5f;
}

/* Give exceptions their value, or NaN where they have any of ``flags``. */
static void resolve(const workspace *w, int64_t pixel, int flags, float least, float *x) {
    for (int f = 0; f < w->frames; f++) {
        if (!(x[f] > least)) continue;
        const exception *const item = exception_of(w, f, pixel);
        if (item) x[f] = item->flags & flags ? NAN : item->value;
    }
}
#endif

/* Raw values of a pixel; NaN where it is not valid or has any of ``flags``. */
TARGET static inline F16 FN(resolved)(const plan *p, const workspace *w, int64_t pixel, int flags) {
    const int width = width_of(w, pixel);
    const F16 x = FN(values)(&w->kept, (size_t)pixel, width);
    const float least = held_below(p, width, flags);
    if (!FN(above)(x, FN(same)(least))) return x;
    float lanes[LANES];
    FN(put)(lanes, x);
    resolve(w, pixel, flags, least, lanes);
    return FN(floats)(lanes);
}

/* Sort every lane: Batcher's merge exchange (Knuth, The Art of Computer Programming 3, 5.2.2). */
TARGET static void FN(sort_lanes)(float *x, int64_t n) {
    int64_t top = 1;
    while (2 * top < n) top *= 2;
    for (int64_t p = top; p > 0; p /= 2) {
        int64_t first = 0, apart = p;
        for (int64_t q = top;; q /= 2) {
            for (int64_t start = first; start < n - apart; start += 2 * p) {
                const int64_t end = start + p < n - apart ? start + p : n - apart;
                for (int64_t i = start; i < end; i++) {
                    float *const one = x + LANES * i, *const other = one + LANES * apart;
                    const F16 a = FN(floats)(one), b = FN(floats)(other);
                    FN(put)(one, FN(min)(a, b));
                    FN(put)(other, FN(max)(a, b));
                }
            }
            if (q == p) break;
            apart = q - p, first = p;
        }
    }
}

/* As Rings.statistics for the frames of the batch; every array (bins, LANES). */
TARGET static void FN(statistics)(const plan *p, const workspace *w, const float *scales,
                                  float *centre, float *lower, float *upper, int32_t *pixels) {
    const F16 scale = FN(floats)(scales), none = FN(same)(INFINITY);
    float *const column = w->column;
    enum { AHEAD = 48 };
    for (int64_t bin = 0; bin < p->bins; bin++) {
        const int64_t first = p->sample_start[bin], count = p->sample_start[bin + 1] - first;
        int32_t *const n = pixels + LANES * bin;
        for (int f = 0; f < LANES; f++) n[f] = (int32_t)count;
        for (int64_t k = 0; k < count; k++) {
            const int64_t place = first + k, pixel = p->sample_pixel[place];
            if (place + AHEAD < p->sample_start[p->bins]) fetch_kept(w, p->sample_pixel[place + AHEAD]);
            F16 x = FN(resolved)(p, w, pixel, INVALID | SATURATED);
            if (p->dark) x = FN(sub)(x, FN(same)(p->dark[pixel]));
            x = FN(div)(x, FN(mul)(FN(same)(p->sample_norm[place]), scale));
            const uint32_t left = FN(above)(none, x);
            if (left != 0xffff)
                for (int f = 0; f < LANES; f++) n[f] -= !(left >> f & 1);
            FN(put)(column + LANES * k, FN(min)(x, none)); /* what is not a number goes to the end */
        }
        FN(sort_lanes)(column, count);
        for (int f = 0; f < LANES; f++) {
            float *const to[] = {centre + LANES * bin, lower + LANES * bin, upper + LANES * bin};
            if (!n[f]) {
                to[0][f] = to[1][f] = to[2][f] = NAN;
                continue;
            }
            const int64_t tail = (int64_t)floor(TAIL * (n[f] - 1));
            const float *const lane = column + f;
            const float middle = (lane[LANES * ((n[f] - 1) / 2)] + lane[LANES * (n[f] / 2)]) / 2;
            const float down = middle - lane[LANES * tail];
            const float up = lane[LANES * (n[f] - 1 - tail)] - middle;
            to[0][f] = middle, to[1][f] = down > 0 ? down : 0, to[2][f] = up > 0 ? up : 0;
        }
    }
}
