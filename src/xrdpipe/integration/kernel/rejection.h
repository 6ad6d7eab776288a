/* What follows the sums of a batch: statistics, variances and rejection, in all its frames.

   Part of kernel.c. */

/* Robust statistics of the rings: arrays of shape (bins, LANES). ``pixels``: of the samples. */
EXPORT void xk_statistics(const plan *p, const workspace *w, const float *scales, float *centre,
                          float *lower, float *upper, int32_t *pixels) {
    w->op->statistics(p, w, scales, centre, lower, upper, pixels);
}

/* Valid pixels of each ring that are not saturated, (bins, LANES). */
EXPORT void xk_ring_pixels(const plan *p, const workspace *w, int32_t *pixels) {
    for (int64_t bin = 0; bin < p->bins; bin++)
        for (int f = 0; f < LANES; f++)
            pixels[LANES * bin + f] = (int32_t)p->ring_totals[RING_TOTALS * bin + RING_PIXELS];
    for (int f = 0; f < w->frames; f++)
        for (int64_t i = 0; i < w->exceptional[f].count; i++) {
            const exception *const item = &w->exceptional[f].items[i];
            const int32_t bin = p->bin[item->pixel];
            if (item->flags && bin >= 0 && bin < p->bins) pixels[LANES * bin + f]--;
        }
}

/* Σ signal, Σ v, Σ v², Σ max(raw, 0) / norm² with v = signal / norm, then Σ norm, Σ 1 / norm² and
   the number of valid pixels, each (bins, LANES): what excess variance is made of. */
EXPORT void xk_moments(const plan *p, const workspace *w, double *moments) {
    enum { ALL_MOMENTS = SUMMED_MOMENTS + RING_TOTALS };
    const int64_t plane = p->bins * LANES;
    for (int64_t bin = 0; bin < p->bins; bin++)
        for (int k = 0; k < ALL_MOMENTS; k++)
            for (int f = 0; f < LANES; f++)
                moments[k * plane + LANES * bin + f] =
                    k < SUMMED_MOMENTS
                        ? w->moments[(SUMMED_MOMENTS * bin + k) * LANES + f]
                        : p->ring_totals[RING_TOTALS * bin + k - SUMMED_MOMENTS];
    for (int f = 0; f < w->frames; f++)
        for (int64_t i = 0; i < w->exceptional[f].count; i++) {
            const exception *const item = &w->exceptional[f].items[i];
            const int32_t bin = p->bin[item->pixel];
            if (bin < 0 || bin >= p->bins) continue;
            /* Its lane held 0. */
            const double norm = p->norm[item->pixel], dark = p->dark ? p->dark[item->pixel] : 0;
            const int invalid = item->flags & INVALID;
            const double raw = invalid ? 0 : item->value, signal = raw - dark;
            const double was = -dark, is = invalid ? 0 : signal;
            const double change[ALL_MOMENTS] = {
                is - was,
                (is - was) / norm,
                (is * is - was * was) / (norm * norm),
                (raw > 0 ? raw : 0) / (norm * norm),
                invalid ? -norm : 0,
                invalid ? -1 / (norm * norm) : 0,
                invalid ? -1 : 0,
            };
            for (int k = 0; k < ALL_MOMENTS; k++)
                moments[k * plane + LANES * bin + f] += change[k];
        }
}

/* --- robust ---------------------------------------------------------------------------------- */

/* Reject outliers as robust_outliers does; what is to be taken off the sums goes to ``taken``,
   (LANES, bins, TAKEN).

   ``limit``: infinity where a ring is not judged; ``mask``: NULL, or (frames, pixels), rejected
   ones are set to 1; ``alone``: how many are rejected besides the saturated. 0 without memory. */
EXPORT int64_t xk_robust(const plan *p, workspace *w, const rejection *how, const float *scales,
                         const float *centre, const float *width, const float *limit,
                         const int32_t *pixels, double *taken, int64_t *alone, uint8_t *mask) {
    const judging j = {p, w, how, scales, centre, width, limit, pixels};
    for (int64_t bin = -1; bin <= p->bins; bin++) {
        uint32_t lanes = 0;
        for (int f = 0; f < LANES; f++) {
            const float most = limit[LANES * (bin + 1) + f];
            lanes |= (uint32_t)(isfinite(most) != 0) << f;
            w->least[LANES * (bin + 1) + f] = most < 0     ? 0
                                              : most < 254 ? (uint8_t)((int)most + 1)
                                                           : 255;
        }
        if (bin >= 0) w->clipped[bin] = (uint16_t)(lanes & w->usable);
    }
    memset(w->outlying, 0, (size_t)p->bins * LANES * sizeof *w->outlying);
    memset(w->marks, 0, (size_t)p->pixels * sizeof *w->marks);
    memset(w->seen, 0, (size_t)p->pixels * sizeof *w->seen);
    w->hot.count = w->near.count = 0;
    w->taken = taken;
    return w->op->reject(&j) && w->op->finish(p, w, alone, mask);
}

/* --- none, and sigma clipping ---------------------------------------------------------------- */

/* One ring of one frame as sigma_clip_outliers. */
static void clip_ring(const plan *p, workspace *w, int f, int64_t bin, const rejection *how,
                     float scale, int poisson, int cycles) {
    const int64_t from = p->ring_start[bin], places = p->ring_start[bin + 1] - from;
    const float *const raw = w->ring + f * places;
    double *const signal = w->clip, *const weight = signal + places, *const spread = weight + places;
    const float gain = (float)how->gain, read_noise = (float)how->read_noise_squared;
    int32_t *const at = w->place;
    int64_t n = 0;
    for (int64_t i = 0; i < places; i++) {
        if (isnan(raw[i])) continue;
        const int32_t pixel = p->ring_pixel[from + i];
        signal[n] = p->dark ? raw[i] - p->dark[pixel] : raw[i];
        weight[n] = p->norm[pixel] * scale;
        spread[n] = gain * (raw[i] > gain ? raw[i] : gain) + read_noise;
        at[n++] = (int32_t)i;
    }
    for (int cycle = 0; cycle < cycles && n; cycle++) {
        double total = 0, norm = 0, squared_norm = 0, square = 0;
        for (int64_t i = 0; i < n; i++) {
            if (!poisson && i) {
                /* The running variance of pyFAI depends on the order of the pixels. */
                const double value = signal[i] / weight[i];
                square += weight[i] * weight[i] * (value - total / norm) *
                          (value - (total + signal[i]) / (norm + weight[i]));
            }
            total += signal[i];
            norm += weight[i];
            squared_norm += weight[i] * weight[i];
            if (poisson) square += spread[i];
        }
        const double mean = total / norm, std = sqrt(square / squared_norm);
        const double chauvenet =
            sqrt(2 * log((n > 3 ? (double)n : 3.0) / sqrt(2 * 3.14159265358979323846)));
        const double limit = (how->threshold > chauvenet ? how->threshold : chauvenet) * std;
        int64_t kept = 0;
        for (int64_t i = 0; i < n; i++) {
            if (fabs(signal[i] / weight[i] - mean) <= limit) {
                signal[kept] = signal[i], weight[kept] = weight[i];
                spread[kept] = spread[i], at[kept++] = at[i];
            } else {
                w->marks[p->ring_pixel[from + at[i]]] |= (uint16_t)(1u << f);
            }
        }
        if (kept == n) break;
        n = kept;
    }
}

/* Raw value in one lane of what is kept; NaN where it is not valid or saturated. */
static float kept_value(const plan *p, const workspace *w, int64_t pixel, int f) {
    const int64_t at = LANES * pixel + f;
    const int width = width_of(w, pixel), flags = INVALID | SATURATED;
    const float value = width == FLOATS     ? w->kept.floats[at]
                        : width == ONE_BYTE ? w->kept.low[at]
                                            : (float)(w->kept.low[at] | w->kept.high[at] << 8);
    const exception *const item =
        value > held_below(p, width, flags) ? exception_of(w, f, pixel) : NULL;
    return !item ? value : item->flags & flags ? NAN : item->value;
}

static int clip_rings(const plan *p, workspace *w, const rejection *how, const float *scales,
                      int poisson, int cycles) {
    int64_t longest = 1;
    for (int64_t bin = 0; bin < p->bins; bin++) {
        const int64_t places = p->ring_start[bin + 1] - p->ring_start[bin];
        longest = places > longest ? places : longest;
    }
    if (!ROOM(w->ring, (size_t)longest * LANES * sizeof(float)) ||
        !ROOM(w->clip, (size_t)longest * 3 * sizeof(double)) ||
        !ROOM(w->place, (size_t)longest * sizeof *w->place))
        return 0;
    for (int64_t bin = 0; bin < p->bins; bin++) {
        const int64_t from = p->ring_start[bin], places = p->ring_start[bin + 1] - from;
        for (int64_t i = 0; i < places; i++)
            for (int f = 0; f < w->frames; f++)
                w->ring[f * places + i] = kept_value(p, w, p->ring_pixel[from + i], f);
        for (int f = 0; f < w->frames; f++)
            if (w->usable >> f & 1) clip_ring(p, w, f, bin, how, scales[f], poisson, cycles);
    }
    return 1;
}

/* As xk_robust for sigma clipping (``cycles`` > 0) or for nothing but saturation (0). */
EXPORT int64_t xk_clip(const plan *p, workspace *w, const rejection *how, const float *scales,
                       int64_t poisson, int64_t cycles, double *taken, int64_t *alone,
                       uint8_t *mask) {
    w->taken = taken;
    if (w->marks) memset(w->marks, 0, (size_t)p->pixels * sizeof *w->marks);
    if (cycles && !clip_rings(p, w, how, scales, (int)poisson, (int)cycles)) return 0;
    return w->op->finish(p, w, alone, mask);
}
