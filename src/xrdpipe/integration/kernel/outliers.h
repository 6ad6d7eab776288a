/* Outliers along the azimuth in all frames at once, decided exactly as numpy does in float32. */

#ifndef XRDPIPE_OUTLIERS_H
#define XRDPIPE_OUTLIERS_H

static const float HOT_FACTOR = 3.0f;

/* How rejection works; see rejection.py. */
typedef struct {
    double threshold, growth, gain, read_noise_squared, skew, most;
    int64_t halo;
} rejection;

/* What decides on the frames of a batch. */
typedef struct {
    const plan *p;
    workspace *w;
    const rejection *how;
    const float *scales;          /* (LANES) */
    const float *centre, *width;  /* (bins, LANES) */
    const float *limit;           /* (bins + 2, LANES) by bin + 1: no outlier has a lower raw value */
    const int32_t *pixels;        /* (bins, LANES) */
} judging;

/* The pixels around one, itself included; returns how many. */
static int around(const plan *p, int64_t pixel, int64_t found[9]) {
    const int64_t x = (uint32_t)pixel % (uint32_t)p->columns;
    const int64_t left = x > 0 ? -1 : 0, right = x < p->columns - 1 ? 1 : 0;
    int count = 0;
    for (int64_t dy = -1; dy <= 1; dy++) {
        const int64_t middle = pixel + dy * p->columns;
        if (middle < 0 || middle >= p->pixels) continue;
        for (int64_t dx = left; dx <= right; dx++) found[count++] = middle + dx;
    }
    return count;
}

/* Leave rings alone that have too many outliers: the edge of a shadow. */
static void spare_shadows(const judging *j) {
    const plan *const p = j->p;
    workspace *const w = j->w;
    int spared = 0;
    for (int64_t at = 0; at < LANES * p->bins; at++)
        if ((double)w->outlying[at] > j->how->most * (double)j->pixels[at]) {
            w->clipped[at / LANES] &= (uint16_t)~(1u << at % LANES);
            spared = 1;
        }
    for (int64_t pixel = 0; spared && pixel < p->pixels; pixel++)
        if (w->marks[pixel]) w->marks[pixel] &= w->clipped[p->bin[pixel]];
}

/* Ask for what is needed of the pixels of a list behind number ``i``: they are far apart. */
static inline void fetch_ahead(const plan *p, const workspace *w, int64_t i, int entries) {
    enum { FAR = 24, NEAR = 12 };
    if (i + FAR >= w->near.count) return;
    const int64_t far = w->near.items[i + FAR].pixel;
    __builtin_prefetch(p->norm + far);
    fetch_kept(w, far);
    if (!entries) return;
    __builtin_prefetch(p->solid_angle + far);
    __builtin_prefetch(p->pixel_entries + far);
    const int64_t e = p->pixel_entries[w->near.items[i + NEAR].pixel];
    __builtin_prefetch(p->pixel_row + e);
    __builtin_prefetch(p->pixel_coefficient + e);
}
#endif

/* Signal of a pixel; −infinity where it is not valid. */
TARGET static inline F16 FN(signal)(const judging *j, int64_t pixel) {
    if (j->p->bin[pixel] < 0) return FN(same)(-INFINITY);
    F16 x = FN(resolved)(j->p, j->w, pixel, INVALID);
    if (j->p->dark) x = FN(sub)(x, FN(same)(j->p->dark[pixel]));
    return FN(max)(x, FN(same)(-INFINITY));
}

/* Variance of raw values whose expectation is given. */
TARGET static inline F16 FN(noise)(const rejection *how, F16 expected) {
    const F16 gain = FN(same)((float)how->gain);
    return FN(add)(FN(mul)(gain, FN(max)(expected, gain)),
                   FN(same)((float)how->read_noise_squared));
}

/* In which of some frames a pixel is far above all its neighbours; as isolated_hot_pixels. */
TARGET static uint32_t FN(hot)(const judging *j, int64_t pixel, uint32_t lanes) {
    if (j->p->bin[pixel] < 0) return 0;
    const rejection *const how = j->how;
    const F16 value = FN(signal)(j, pixel), factor = FN(same)(HOT_FACTOR);
    F16 highest = FN(same)(-INFINITY);
    int64_t near[9];
    const int count = around(j->p, pixel, near);
    for (int k = 0; k < count; k++) {
        if (near[k] == pixel) continue;
        highest = FN(max)(FN(signal)(j, near[k]), highest);
        lanes &= FN(above)(value, FN(mul)(factor, FN(max)(highest, FN(zero)())));
        if (!lanes) return 0;
    }
    const F16 floor = FN(max)(highest, FN(zero)()), sigma = FN(root)(FN(noise)(how, floor));
    const F16 limit = FN(add)(FN(add)(floor, FN(mul)(FN(same)((float)how->threshold), sigma)),
                              FN(same)((float)(how->skew * how->gain)));
    return lanes & FN(above)(highest, FN(same)(-INFINITY)) & FN(above)(value, limit);
}

/* Excess over the ring's centre, and the width that counting alone gives the ring. */
TARGET static inline F16 FN(excess)(const judging *j, int64_t pixel, F16 *norm, F16 *counting) {
    const F16 centre = FN(floats)(j->centre + LANES * j->p->bin[pixel]);
    *norm = FN(mul)(FN(same)(j->p->norm[pixel]), FN(floats)(j->scales));
    const F16 expected = FN(mul)(FN(max)(centre, FN(zero)()), *norm);
    *counting = FN(div)(FN(root)(FN(noise)(j->how, expected)), *norm);
    return FN(sub)(FN(div)(FN(signal)(j, pixel), *norm), centre);
}

/* In which of some frames a pixel is beyond the threshold of its ring. */
TARGET static uint32_t FN(beyond)(const judging *j, int64_t pixel, uint32_t lanes) {
    const int32_t bin = j->p->bin[pixel];
    if (bin < 0 || !(lanes &= j->w->clipped[bin])) return 0;
    const rejection *const how = j->how;
    const F16 threshold = FN(same)((float)how->threshold);
    F16 norm, counting;
    const F16 excess = FN(excess)(j, pixel, &norm, &counting);
    const F16 skew = FN(div)(FN(same)((float)(how->skew * how->gain)), norm);
    const F16 wide = FN(mul)(threshold, FN(floats)(j->width + LANES * bin));
    return lanes &
           FN(above)(excess, FN(max)(wide, FN(add)(FN(mul)(threshold, counting), skew)));
}

/* In which of some frames a pixel is above its ring by ``growth`` standard deviations. */
TARGET static uint32_t FN(weak)(const judging *j, int64_t pixel, uint32_t lanes) {
    const int32_t bin = j->p->bin[pixel];
    if (bin < 0 || !(lanes &= j->w->clipped[bin])) return 0;
    /* Most are below the part of the limit that is quick to find; 0.999: whatever the rounding. */
    const F16 growth = FN(same)((float)j->how->growth), width = FN(floats)(j->width + LANES * bin);
    const F16 least = FN(fma)(FN(mul)(FN(same)(0.999f), growth), width,
                              FN(floats)(j->centre + LANES * bin));
    F16 norm = FN(mul)(FN(same)(j->p->norm[pixel]), FN(floats)(j->scales)), counting;
    if (!(lanes &= FN(above)(FN(signal)(j, pixel), FN(mul)(least, norm)))) return 0;
    const F16 excess = FN(excess)(j, pixel, &norm, &counting);
    return lanes & FN(above)(excess, FN(mul)(growth, FN(max)(width, counting)));
}

/* Note where a pixel is beyond its ring's threshold (``high``: the frames where it may be) or hot. */
TARGET static int FN(consider)(const judging *j, int64_t pixel, uint32_t high, uint32_t lonely) {
    workspace *const w = j->w;
    if ((high &= w->usable) && (high = FN(beyond)(j, pixel, high))) {
        int32_t *const outlying = w->outlying + LANES * j->p->bin[pixel];
        for (uint32_t left = high; left; left &= left - 1) outlying[__builtin_ctz(left)]++;
        w->marks[pixel] |= (uint16_t)high;
    }
    if ((lonely &= w->usable) && (lonely = FN(hot)(j, pixel, lonely)))
        return push(&w->hot, pixel, lonely);
    return 1;
}

/* One-byte values that reach their limit, and those above ``hot`` and thrice their neighbours on
   the left and right. */
TARGET static inline void FN(notable_bytes)(const uint8_t *x, const uint8_t *least, uint8_t hot,
                                            uint32_t *high, uint32_t *lonely) {
#if LANES_ISA
    const __m128i v = _mm_loadu_si128((const __m128i *)x);
    const __m128i left = _mm_loadu_si128((const __m128i *)(x - LANES));
    const __m128i right = _mm_loadu_si128((const __m128i *)(x + LANES));
    const __m128i limit = _mm_loadu_si128((const __m128i *)least);
    const __m128i beside = _mm_max_epu8(left, right);
    const __m128i thrice = _mm_adds_epu8(beside, _mm_adds_epu8(beside, beside));
    const __m128i bar = _mm_max_epu8(thrice, _mm_set1_epi8((char)hot));
    *high = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_max_epu8(v, limit), v));
    *lonely = 0xffff ^ (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_max_epu8(v, bar), bar));
#else
    *high = *lonely = 0;
    for (int f = 0; f < LANES; f++) {
        const int left = x[f - LANES], right = x[f + LANES];
        *high |= (uint32_t)(x[f] >= least[f]) << f;
        *lonely |= (uint32_t)(x[f] > hot && x[f] > 3 * (left > right ? left : right)) << f;
    }
#endif
}

/* Look at every pixel of a tile. The test for hot ones may miss some beside what is no neighbour. */
TARGET static __attribute__((noinline)) int FN(search_tile)(const judging *j, int64_t first, int64_t end, int width) {
    const plan *const p = j->p;
    const tile_values *const kept = &j->w->kept;
    uint32_t high, lonely;
    if (width == ONE_BYTE && !p->dark) {
        const uint8_t hot = p->hot_limit < 254 ? (uint8_t)p->hot_limit : 254;
        for (int64_t pixel = first; pixel < end; pixel++) {
            FN(notable_bytes)(kept->low + LANES * pixel, j->w->least + LANES * (p->bin[pixel] + 1),
                              hot, &high, &lonely);
            if (high | lonely && !FN(consider)(j, pixel, high, lonely)) return 0;
        }
        return 1;
    }
    const F16 hot = FN(same)((float)p->hot_limit), factor = FN(same)(HOT_FACTOR);
    const F16 most = FN(same)(held_below(p, width, INVALID));
    for (int64_t pixel = first; pixel < end; pixel++) {
        const F16 x = FN(values)(kept, (size_t)pixel, width);
        const F16 limit = FN(floats)(j->limit + LANES * (p->bin[pixel] + 1));
        high = FN(above)(x, FN(min)(limit, most));
        const F16 s = p->dark ? FN(sub)(x, FN(same)(p->dark[pixel])) : x;
        lonely = FN(above)(s, hot);
        for (int64_t beside = pixel - 1; lonely && beside <= pixel + 1; beside += 2) {
            if (beside < first || beside >= end) continue;
            F16 y = FN(values)(kept, (size_t)beside, width);
            if (p->dark) y = FN(sub)(y, FN(same)(p->dark[beside]));
            lonely &= FN(above)(s, FN(mul)(factor, y));
        }
        if (high | lonely && !FN(consider)(j, pixel, high, lonely)) return 0;
    }
    return 1;
}

TARGET static int FN(search)(const judging *j) {
    const plan *const p = j->p;
    workspace *const w = j->w;
    for (int64_t tile = 0; tile < p->tiles; tile++) {
        const int64_t first = tile * p->tile;
        const int64_t end = first + p->tile < p->pixels ? first + p->tile : p->pixels;
        if (!FN(search_tile)(j, first, end, w->held[tile])) return 0;
    }
    /* Where the comparison with the neighbours on the left and right says nothing. */
    for (int64_t i = 0; i < p->edge_count; i++)
        if (!FN(consider)(j, p->edges[i], 0, 0xffff)) return 0;
    for (int f = 0; f < w->frames; f++)
        for (int64_t i = 0; i < w->exceptional[f].count; i++)
            for (int64_t pixel = w->exceptional[f].items[i].pixel - 1, k = 0; k < 3; k++, pixel++)
                if (pixel >= 0 && pixel < p->pixels && !FN(consider)(j, pixel, 0, 1u << f))
                    return 0;
    return 1;
}

/* Add the pixels of a row that have any lane to the list; 0 without memory. */
TARGET static int FN(list_row)(workspace *w, int64_t first, const uint16_t *lanes, int64_t count) {
    for (int64_t x = 0; x < count; x += 64) {
        const int64_t end = count - x < 64 ? count : x + 64;
        uint16_t any = 0;
        for (int64_t i = x; i < end; i++) any |= lanes[i];
        for (int64_t i = x; any && i < end; i++)
            if (lanes[i] && !push(&w->near, first + i, lanes[i])) return 0;
    }
    return 1;
}

/* List the pixels beside rejected ones that were not looked at yet; 0 without memory. */
TARGET static int FN(list_neighbours)(const plan *p, workspace *w) {
    const int64_t columns = p->columns;
    uint16_t *const above = w->row, *const beside = above + columns + 2;
    above[0] = above[columns + 1] = 0;
    for (int64_t first = 0; first < p->pixels; first += columns) {
        const uint16_t *const here = w->marks + first;
        const uint16_t *const up = first ? here - columns : here;
        const uint16_t *const down = first + columns < p->pixels ? here + columns : here;
        uint16_t *const seen = w->seen + first;
        for (int64_t x = 0; x < columns; x++) above[x + 1] = up[x] | here[x] | down[x];
        for (int64_t x = 0; x < columns; x++)
            beside[x] = (uint16_t)((above[x] | above[x + 1] | above[x + 2]) & ~(here[x] | seen[x]));
        for (int64_t x = 0; x < columns; x++) seen[x] |= beside[x];
        if (!FN(list_row)(w, first, beside, columns)) return 0;
    }
    return 1;
}

/* Grow what is rejected into weak neighbours. */
TARGET static int FN(grow)(const judging *j) {
    workspace *const w = j->w;
    int64_t done = 0;
    for (int64_t step = 0; step < j->how->halo; step++) {
        if (!FN(list_neighbours)(j->p, w)) return 0;
        if (done == w->near.count) break;
        for (; done < w->near.count; done++) {
            fetch_ahead(j->p, w, done, 0);
            const marked *const one = &w->near.items[done];
            w->marks[one->pixel] |= (uint16_t)FN(weak)(j, one->pixel, one->lanes);
        }
    }
    return 1;
}

/* Reject what lies within the halo of saturated pixels. */
TARGET static void FN(reject_halos)(const judging *j) {
    const plan *const p = j->p;
    workspace *const w = j->w;
    const int64_t halo = j->how->halo, columns = p->columns, rows = p->pixels / columns;
    for (int f = 0; f < w->frames; f++)
        for (int64_t k = 0; w->usable >> f & 1 && k < w->exceptional[f].count; k++) {
            const exception *const item = &w->exceptional[f].items[k];
            if (!(item->flags & SATURATED) || p->bin[item->pixel] < 0) continue;
            const int64_t y = item->pixel / columns, x = item->pixel % columns;
            for (int64_t dy = -halo; dy <= halo; dy++)
                for (int64_t dx = -halo; dx <= halo; dx++) {
                    if (dy * dy + dx * dx > halo * halo || y + dy < 0 || y + dy >= rows ||
                        x + dx < 0 || x + dx >= columns)
                        continue;
                    const int64_t pixel = (y + dy) * columns + x + dx;
                    const uint32_t lane = 1u << f & ~(uint32_t)w->marks[pixel];
                    if (lane && FN(above)(FN(signal)(j, pixel), FN(same)(-INFINITY)) & lane)
                        w->marks[pixel] |= (uint16_t)lane;
                }
        }
}

/* As robust_outliers; 0 without memory. */
TARGET static int FN(reject)(const judging *j) {
    workspace *const w = j->w;
    if (!FN(search)(j)) return 0;
    spare_shadows(j);
    for (int64_t i = 0; i < w->hot.count; i++)
        w->marks[w->hot.items[i].pixel] |= (uint16_t)w->hot.items[i].lanes;
    if (!FN(grow)(j)) return 0;
    FN(reject_halos)(j);
    return 1;
}

typedef double FN(eight) __attribute__((vector_size(64)));

/* Add all that belongs to a pixel of a frame, with its raw value, to what is taken off. */
TARGET static inline void FN(take_off)(const plan *p, const workspace *w, int64_t pixel, int f,
                                       double x) {
    const double above = x > p->floor ? x : p->floor, dark = p->dark ? p->dark[pixel] : 0;
    /* In the order of the sums: what is multiplied by c, by c² and by nothing. */
    const FN(eight) linear = {p->norm[pixel], p->solid_angle[pixel], 0, dark, 0, x, 0, 0};
    const FN(eight) square = {0, 0, 0, 0, 1, 0, above, 0}, one = {0, 0, 1, 0, 0, 0, 0, 0};
    double *const to = w->taken + TAKEN * f * p->bins;
    for (int64_t e = p->pixel_entries[pixel]; e < p->pixel_entries[pixel + 1]; e++) {
        const double c = p->pixel_coefficient[e];
        double *const row = to + TAKEN * p->pixel_row[e];
        FN(eight) sum;
        memcpy(&sum, row, sizeof sum);
        sum += c * linear + c * c * square + one;
        memcpy(row, &sum, sizeof sum);
    }
}

/* Take off rejected and saturated pixels; how many of each frame were rejected but not saturated.
   0 without memory. */
TARGET static int FN(finish)(const plan *p, workspace *w, int64_t *alone, uint8_t *mask) {
    memset(alone, 0, LANES * sizeof *alone);
    w->near.count = 0;
    if (w->marks && !FN(list_row)(w, 0, w->marks, p->pixels)) return 0;
    for (int64_t i = 0; i < w->near.count; i++) {
        fetch_ahead(p, w, i, 1);
        const int64_t pixel = w->near.items[i].pixel;
        float values[LANES];
        FN(put)(values, FN(resolved)(p, w, pixel, INVALID));
        for (uint32_t left = w->near.items[i].lanes; left; left &= left - 1) {
            const int f = __builtin_ctz(left);
            alone[f]++;
            if (mask) mask[f * p->pixels + pixel] = 1;
            FN(take_off)(p, w, pixel, f, values[f]);
        }
    }
    for (int f = 0; f < w->frames; f++)
        for (int64_t k = 0; w->usable >> f & 1 && k < w->exceptional[f].count; k++) {
            const exception *const item = &w->exceptional[f].items[k];
            if (!(item->flags & SATURATED) || p->bin[item->pixel] < 0) continue;
            if (w->marks && w->marks[item->pixel] >> f & 1)
                alone[f]--;
            else
                FN(take_off)(p, w, item->pixel, f, item->value);
        }
    return 1;
}
