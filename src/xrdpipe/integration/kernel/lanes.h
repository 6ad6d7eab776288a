/* Sixteen frames side by side: the operations of one instruction set.

   Included once per instruction set with LANES_ISA (512, 256, 128 or 0 = plain C), TARGET
   (function attribute) and FN(name) (name with a suffix) defined. Sums of float32 lanes may use
   fused multiply-add (fma); what decides on a pixel must not, to round as numpy does. max and min
   give the second operand where one is not a number. */

#if LANES_ISA == 512
typedef __m512 FN(f16);
typedef struct { __m512d half[2]; } FN(d16);
#define F16 FN(f16)
#define D16 FN(d16)

TARGET static inline F16 FN(zero)(void) { return _mm512_setzero_ps(); }
TARGET static inline F16 FN(same)(float x) { return _mm512_set1_ps(x); }
TARGET static inline F16 FN(bytes)(const uint8_t *from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)from)));
}
TARGET static inline F16 FN(floats)(const float *from) { return _mm512_loadu_ps(from); }
TARGET static inline F16 FN(fma)(F16 a, F16 b, F16 c) { return _mm512_fmadd_ps(a, b, c); }
TARGET static inline F16 FN(mul)(F16 a, F16 b) { return _mm512_mul_ps(a, b); }
TARGET static inline F16 FN(add)(F16 a, F16 b) { return _mm512_add_ps(a, b); }
TARGET static inline F16 FN(max)(F16 a, F16 b) { return _mm512_max_ps(a, b); }
TARGET static inline F16 FN(min)(F16 a, F16 b) { return _mm512_min_ps(a, b); }
TARGET static inline F16 FN(sub)(F16 a, F16 b) { return _mm512_sub_ps(a, b); }
TARGET static inline F16 FN(div)(F16 a, F16 b) { return _mm512_div_ps(a, b); }
TARGET static inline F16 FN(root)(F16 a) { return _mm512_sqrt_ps(a); }
TARGET static inline uint32_t FN(above)(F16 a, F16 b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}
TARGET static inline void FN(put)(float *to, F16 x) { _mm512_storeu_ps(to, x); }
TARGET static inline D16 FN(dzero)(void) {
    return (D16){{_mm512_setzero_pd(), _mm512_setzero_pd()}};
}
TARGET static inline __m512d FN(part)(F16 x, int k) {
    return _mm512_cvtps_pd(k ? _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1))
                             : _mm512_castps512_ps256(x));
}
TARGET static inline D16 FN(wide)(F16 x) { return (D16){{FN(part)(x, 0), FN(part)(x, 1)}}; }
TARGET static inline D16 FN(dmax)(D16 x, double y) {
    const __m512d least = _mm512_set1_pd(y);
    return (D16){{_mm512_max_pd(x.half[0], least), _mm512_max_pd(x.half[1], least)}};
}
TARGET static inline D16 FN(dfma)(double c, D16 x, D16 sum) {
    const __m512d factor = _mm512_set1_pd(c);
    sum.half[0] = _mm512_fmadd_pd(factor, x.half[0], sum.half[0]);
    sum.half[1] = _mm512_fmadd_pd(factor, x.half[1], sum.half[1]);
    return sum;
}
TARGET static inline void FN(accumulate)(double *to, F16 x) {
    _mm512_storeu_pd(to, _mm512_add_pd(_mm512_loadu_pd(to), FN(part)(x, 0)));
    _mm512_storeu_pd(to + 8, _mm512_add_pd(_mm512_loadu_pd(to + 8), FN(part)(x, 1)));
}
TARGET static inline void FN(daccumulate)(double *to, D16 x) {
    _mm512_storeu_pd(to, _mm512_add_pd(_mm512_loadu_pd(to), x.half[0]));
    _mm512_storeu_pd(to + 8, _mm512_add_pd(_mm512_loadu_pd(to + 8), x.half[1]));
}

#elif LANES_ISA == 256
typedef struct { __m256 half[2]; } FN(f16);
typedef struct { __m256d part[4]; } FN(d16);
#define F16 FN(f16)
#define D16 FN(d16)

TARGET static inline F16 FN(zero)(void) {
    return (F16){{_mm256_setzero_ps(), _mm256_setzero_ps()}};
}
TARGET static inline F16 FN(same)(float x) { return (F16){{_mm256_set1_ps(x), _mm256_set1_ps(x)}}; }
TARGET static inline F16 FN(bytes)(const uint8_t *from) {
    const __m128i all = _mm_loadu_si128((const __m128i *)from);
    return (F16){{_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(all)),
                  _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(all, 8)))}};
}
TARGET static inline F16 FN(floats)(const float *from) {
    return (F16){{_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}};
}
TARGET static inline F16 FN(fma)(F16 a, F16 b, F16 c) {
    return (F16){{_mm256_fmadd_ps(a.half[0], b.half[0], c.half[0]),
                  _mm256_fmadd_ps(a.half[1], b.half[1], c.half[1])}};
}
#define BOTH(op) ((F16){{op(a.half[0], b.half[0]), op(a.half[1], b.half[1])}})
TARGET static inline F16 FN(mul)(F16 a, F16 b) { return BOTH(_mm256_mul_ps); }
TARGET static inline F16 FN(add)(F16 a, F16 b) { return BOTH(_mm256_add_ps); }
TARGET static inline F16 FN(max)(F16 a, F16 b) { return BOTH(_mm256_max_ps); }
TARGET static inline F16 FN(min)(F16 a, F16 b) { return BOTH(_mm256_min_ps); }
TARGET static inline F16 FN(sub)(F16 a, F16 b) { return BOTH(_mm256_sub_ps); }
TARGET static inline F16 FN(div)(F16 a, F16 b) { return BOTH(_mm256_div_ps); }
#undef BOTH
TARGET static inline F16 FN(root)(F16 a) {
    return (F16){{_mm256_sqrt_ps(a.half[0]), _mm256_sqrt_ps(a.half[1])}};
}
TARGET static inline uint32_t FN(above)(F16 a, F16 b) {
    const int low = _mm256_movemask_ps(_mm256_cmp_ps(a.half[0], b.half[0], _CMP_GT_OQ));
    const int high = _mm256_movemask_ps(_mm256_cmp_ps(a.half[1], b.half[1], _CMP_GT_OQ));
    return (uint32_t)(low | high << 8);
}
TARGET static inline void FN(put)(float *to, F16 x) {
    _mm256_storeu_ps(to, x.half[0]);
    _mm256_storeu_ps(to + 8, x.half[1]);
}
TARGET static inline D16 FN(dzero)(void) {
    const __m256d zero = _mm256_setzero_pd();
    return (D16){{zero, zero, zero, zero}};
}
TARGET static inline __m256d FN(part)(F16 x, int k) {
    const __m256 half = x.half[k >> 1];
    return _mm256_cvtps_pd(k & 1 ? _mm256_extractf128_ps(half, 1) : _mm256_castps256_ps128(half));
}
TARGET static inline D16 FN(wide)(F16 x) {
    return (D16){{FN(part)(x, 0), FN(part)(x, 1), FN(part)(x, 2), FN(part)(x, 3)}};
}
TARGET static inline D16 FN(dmax)(D16 x, double y) {
    for (int k = 0; k < 4; k++) x.part[k] = _mm256_max_pd(x.part[k], _mm256_set1_pd(y));
    return x;
}
TARGET static inline D16 FN(dfma)(double c, D16 x, D16 sum) {
    const __m256d factor = _mm256_set1_pd(c);
    for (int k = 0; k < 4; k++)
        sum.part[k] = _mm256_fmadd_pd(factor, x.part[k], sum.part[k]);
    return sum;
}
TARGET static inline void FN(accumulate)(double *to, F16 x) {
    for (int k = 0; k < 4; k++)
        _mm256_storeu_pd(to + 4 * k, _mm256_add_pd(_mm256_loadu_pd(to + 4 * k), FN(part)(x, k)));
}
TARGET static inline void FN(daccumulate)(double *to, D16 x) {
    for (int k = 0; k < 4; k++)
        _mm256_storeu_pd(to + 4 * k, _mm256_add_pd(_mm256_loadu_pd(to + 4 * k), x.part[k]));
}

#elif LANES_ISA == 128
typedef struct { __m128 part[4]; } FN(f16);
typedef struct { __m128d part[8]; } FN(d16);
#define F16 FN(f16)
#define D16 FN(d16)
#define EACH for (int k = 0; k < 4; k++)

TARGET static inline F16 FN(same)(float x) {
    const __m128 one = _mm_set1_ps(x);
    return (F16){{one, one, one, one}};
}
TARGET static inline F16 FN(zero)(void) { return FN(same)(0); }
TARGET static inline F16 FN(bytes)(const uint8_t *from) {
    const __m128i none = _mm_setzero_si128(), all = _mm_loadu_si128((const __m128i *)from);
    const __m128i low = _mm_unpacklo_epi8(all, none), high = _mm_unpackhi_epi8(all, none);
    return (F16){{_mm_cvtepi32_ps(_mm_unpacklo_epi16(low, none)),
                  _mm_cvtepi32_ps(_mm_unpackhi_epi16(low, none)),
                  _mm_cvtepi32_ps(_mm_unpacklo_epi16(high, none)),
                  _mm_cvtepi32_ps(_mm_unpackhi_epi16(high, none))}};
}
TARGET static inline F16 FN(floats)(const float *from) {
    F16 x;
    EACH x.part[k] = _mm_loadu_ps(from + 4 * k);
    return x;
}
TARGET static inline F16 FN(mul)(F16 a, F16 b) {
    EACH a.part[k] = _mm_mul_ps(a.part[k], b.part[k]);
    return a;
}
TARGET static inline F16 FN(add)(F16 a, F16 b) {
    EACH a.part[k] = _mm_add_ps(a.part[k], b.part[k]);
    return a;
}
TARGET static inline F16 FN(max)(F16 a, F16 b) {
    EACH a.part[k] = _mm_max_ps(a.part[k], b.part[k]);
    return a;
}
TARGET static inline F16 FN(min)(F16 a, F16 b) {
    EACH a.part[k] = _mm_min_ps(a.part[k], b.part[k]);
    return a;
}
TARGET static inline F16 FN(sub)(F16 a, F16 b) {
    EACH a.part[k] = _mm_sub_ps(a.part[k], b.part[k]);
    return a;
}
TARGET static inline F16 FN(div)(F16 a, F16 b) {
    EACH a.part[k] = _mm_div_ps(a.part[k], b.part[k]);
    return a;
}
TARGET static inline F16 FN(root)(F16 a) {
    EACH a.part[k] = _mm_sqrt_ps(a.part[k]);
    return a;
}
TARGET static inline uint32_t FN(above)(F16 a, F16 b) {
    uint32_t lanes = 0;
    EACH lanes |= (uint32_t)_mm_movemask_ps(_mm_cmpgt_ps(a.part[k], b.part[k])) << 4 * k;
    return lanes;
}
TARGET static inline void FN(put)(float *to, F16 x) { EACH _mm_storeu_ps(to + 4 * k, x.part[k]); }
TARGET static inline F16 FN(fma)(F16 a, F16 b, F16 c) { return FN(add)(FN(mul)(a, b), c); }
TARGET static inline D16 FN(dzero)(void) {
    D16 x;
    for (int k = 0; k < 8; k++) x.part[k] = _mm_setzero_pd();
    return x;
}
TARGET static inline __m128d FN(part)(F16 x, int k) {
    const __m128 four = x.part[k >> 1];
    return _mm_cvtps_pd(k & 1 ? _mm_movehl_ps(four, four) : four);
}
TARGET static inline D16 FN(wide)(F16 x) {
    D16 all;
    for (int k = 0; k < 8; k++) all.part[k] = FN(part)(x, k);
    return all;
}
TARGET static inline D16 FN(dmax)(D16 x, double y) {
    for (int k = 0; k < 8; k++) x.part[k] = _mm_max_pd(x.part[k], _mm_set1_pd(y));
    return x;
}
TARGET static inline D16 FN(dfma)(double c, D16 x, D16 sum) {
    const __m128d factor = _mm_set1_pd(c);
    for (int k = 0; k < 8; k++)
        sum.part[k] = _mm_add_pd(_mm_mul_pd(factor, x.part[k]), sum.part[k]);
    return sum;
}
TARGET static inline void FN(accumulate)(double *to, F16 x) {
    for (int k = 0; k < 8; k++)
        _mm_storeu_pd(to + 2 * k, _mm_add_pd(_mm_loadu_pd(to + 2 * k), FN(part)(x, k)));
}
TARGET static inline void FN(daccumulate)(double *to, D16 x) {
    for (int k = 0; k < 8; k++)
        _mm_storeu_pd(to + 2 * k, _mm_add_pd(_mm_loadu_pd(to + 2 * k), x.part[k]));
}
#undef EACH

#else
typedef struct { float lane[LANES]; } FN(f16);
typedef struct { double lane[LANES]; } FN(d16);
#define F16 FN(f16)
#define D16 FN(d16)
#define EACH for (int k = 0; k < LANES; k++)

static inline F16 FN(same)(float x) {
    F16 all;
    EACH all.lane[k] = x;
    return all;
}
static inline F16 FN(zero)(void) { return FN(same)(0); }
static inline F16 FN(bytes)(const uint8_t *from) {
    F16 x;
    EACH x.lane[k] = from[k];
    return x;
}
static inline F16 FN(floats)(const float *from) {
    F16 x;
    EACH x.lane[k] = from[k];
    return x;
}
static inline F16 FN(mul)(F16 a, F16 b) {
    EACH a.lane[k] *= b.lane[k];
    return a;
}
static inline F16 FN(add)(F16 a, F16 b) {
    EACH a.lane[k] += b.lane[k];
    return a;
}
static inline F16 FN(max)(F16 a, F16 b) {
    EACH a.lane[k] = a.lane[k] > b.lane[k] ? a.lane[k] : b.lane[k];
    return a;
}
static inline F16 FN(min)(F16 a, F16 b) {
    EACH a.lane[k] = a.lane[k] < b.lane[k] ? a.lane[k] : b.lane[k];
    return a;
}
static inline F16 FN(sub)(F16 a, F16 b) {
    EACH a.lane[k] -= b.lane[k];
    return a;
}
static inline F16 FN(div)(F16 a, F16 b) {
    EACH a.lane[k] /= b.lane[k];
    return a;
}
static inline F16 FN(root)(F16 a) {
    EACH a.lane[k] = sqrtf(a.lane[k]);
    return a;
}
static inline uint32_t FN(above)(F16 a, F16 b) {
    uint32_t lanes = 0;
    EACH lanes |= (uint32_t)(a.lane[k] > b.lane[k]) << k;
    return lanes;
}
static inline void FN(put)(float *to, F16 x) { EACH to[k] = x.lane[k]; }
static inline F16 FN(fma)(F16 a, F16 b, F16 c) { return FN(add)(FN(mul)(a, b), c); }
static inline D16 FN(dzero)(void) {
    D16 x;
    EACH x.lane[k] = 0;
    return x;
}
static inline D16 FN(wide)(F16 x) {
    D16 all;
    EACH all.lane[k] = x.lane[k];
    return all;
}
static inline D16 FN(dmax)(D16 x, double y) {
    EACH x.lane[k] = x.lane[k] > y ? x.lane[k] : y;
    return x;
}
static inline D16 FN(dfma)(double c, D16 x, D16 sum) {
    EACH sum.lane[k] += c * x.lane[k];
    return sum;
}
static inline void FN(accumulate)(double *to, F16 x) { EACH to[k] += x.lane[k]; }
static inline void FN(daccumulate)(double *to, D16 x) { EACH to[k] += x.lane[k]; }
#undef EACH
#endif

/* The values of pixel ``at`` in all frames. */
TARGET static inline F16 FN(values)(const tile_values *tile, size_t at, int width) {
    if (width == FLOATS) return FN(floats)(tile->floats + LANES * at);
    const F16 low = FN(bytes)(tile->low + LANES * at);
    if (width == ONE_BYTE) return low;
    return FN(fma)(FN(bytes)(tile->high + LANES * at), FN(same)(256.0f), low);
}

/* Add the pixels of one tile to the sums c·x and c²·max(x, floor) of every row.

   ``exact`` sums in float64 also inside the tile; with one byte per value float32 is enough
   unless large parts of a sum are taken off again later. */
TARGET static inline __attribute__((always_inline)) void FN(sum_tile_as)(
    const plan *p, int64_t number, const tile_values *tile, int width, int exact, double *signal,
    double *variance) {
    const F16 floor = FN(same)((float)p->floor);
    for (int64_t run = p->tile_runs[number]; run < p->tile_runs[number + 1]; run++) {
        int64_t e = p->run_entries[run];
        const int64_t end = p->run_entries[run + 1];
        double *const to_signal = signal + LANES * (size_t)p->run_row[run];
        double *const to_variance = variance + LANES * (size_t)p->run_row[run];
        if (exact) {
            D16 sum = FN(dzero)(), square = FN(dzero)();
            for (; e < end; e++) {
                const D16 x = FN(wide)(FN(values)(tile, p->entry_pixel[e], width));
                const double c = p->entry_coefficient[e];
                sum = FN(dfma)(c, x, sum);
                square = FN(dfma)(c * c, FN(dmax)(x, p->floor), square);
            }
            FN(daccumulate)(to_signal, sum);
            FN(daccumulate)(to_variance, square);
        } else {
            F16 sum = FN(zero)(), square = FN(zero)(), sum2 = FN(zero)(), square2 = FN(zero)();
            for (; e + 1 < end; e += 2) {
                const F16 x = FN(values)(tile, p->entry_pixel[e], width);
                const F16 y = FN(values)(tile, p->entry_pixel[e + 1], width);
                const F16 c = FN(same)(p->entry_coefficient[e]);
                const F16 d = FN(same)(p->entry_coefficient[e + 1]);
                sum = FN(fma)(c, x, sum);
                sum2 = FN(fma)(d, y, sum2);
                square = FN(fma)(FN(mul)(c, c), FN(max)(x, floor), square);
                square2 = FN(fma)(FN(mul)(d, d), FN(max)(y, floor), square2);
            }
            if (e < end) {
                const F16 x = FN(values)(tile, p->entry_pixel[e], width);
                const F16 c = FN(same)(p->entry_coefficient[e]);
                sum = FN(fma)(c, x, sum);
                square = FN(fma)(FN(mul)(c, c), FN(max)(x, floor), square);
            }
            FN(accumulate)(to_signal, FN(add)(sum, sum2));
            FN(accumulate)(to_variance, FN(add)(square, square2));
        }
    }
}

TARGET static void FN(sum_tile)(const plan *p, int64_t number, const tile_values *tile, int width,
                                int exact, double *signal, double *variance) {
    if (width == FLOATS)
        FN(sum_tile_as)(p, number, tile, FLOATS, 1, signal, variance);
    else if (width == TWO_BYTES)
        FN(sum_tile_as)(p, number, tile, TWO_BYTES, 1, signal, variance);
    else if (exact)
        FN(sum_tile_as)(p, number, tile, ONE_BYTE, 1, signal, variance);
    else
        FN(sum_tile_as)(p, number, tile, ONE_BYTE, 0, signal, variance);
}

/* --- bit planes ------------------------------------------------------------------------------ */

/* Bits set in any of ``count`` planes, where ``valid`` has one; whether there is any. */
TARGET static int FN(any_bit)(const uint8_t *planes, size_t bytes, int count, const uint8_t *valid,
                              uint8_t *found) {
    memcpy(found, planes, bytes);
    for (int k = 1; k < count; k++) {
        const uint8_t *plane = planes + k * bytes;
        for (size_t i = 0; i < bytes; i++) found[i] |= plane[i];
    }
    uint8_t any = 0;
    for (size_t i = 0; i < bytes; i++) {
        found[i] &= valid[i];
        any |= found[i];
    }
    return any != 0;
}

typedef uint8_t FN(u8x16) __attribute__((vector_size(16)));
typedef uint64_t FN(u64x8) __attribute__((vector_size(64)));
#define U8X16 FN(u8x16)
#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define ZIP_HIGH(a, b) \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)

/* Eight planes of bits to bytes: byte i gets bit k from plane k; only where ``keep`` has a bit. */
TARGET static void FN(bytes_of_planes)(const uint8_t *planes, size_t bytes, const uint8_t *keep,
                                       uint8_t *out) {
    size_t at = 0;
    for (; at + 16 <= bytes; at += 16) {
        U8X16 mask, row[8], next[8];
        memcpy(&mask, keep + at, 16);
        for (int k = 0; k < 8; k++) {
            memcpy(&row[k], planes + k * bytes + at, 16);
            row[k] &= mask;
        }
        /* Zipping k with k + 4 three times brings the eight planes of a column together. */
        for (int k = 0; k < 4; k++) {
            next[2 * k] = ZIP_LOW(row[k], row[k + 4]);
            next[2 * k + 1] = ZIP_HIGH(row[k], row[k + 4]);
        }
        for (int k = 0; k < 4; k++) {
            row[2 * k] = ZIP_LOW(next[k], next[k + 4]);
            row[2 * k + 1] = ZIP_HIGH(next[k], next[k + 4]);
        }
        for (int k = 0; k < 4; k++) {
            next[2 * k] = ZIP_LOW(row[k], row[k + 4]);
            next[2 * k + 1] = ZIP_HIGH(row[k], row[k + 4]);
        }
        memcpy(out + 8 * at, next, 128);
    }
    for (; at < bytes; at++)
        for (int k = 0; k < 8; k++) out[8 * at + k] = planes[k * bytes + at] & keep[at];
    size_t i = 0;
    for (; i + 8 <= bytes; i += 8) {
        FN(u64x8) x, t;
        memcpy(&x, out + 8 * i, 64);
        t = (x ^ (x >> 7)) & 0x00AA00AA00AA00AAull;
        x = x ^ t ^ (t << 7);
        t = (x ^ (x >> 14)) & 0x0000CCCC0000CCCCull;
        x = x ^ t ^ (t << 14);
        t = (x ^ (x >> 28)) & 0x00000000F0F0F0F0ull;
        x = x ^ t ^ (t << 28);
        memcpy(out + 8 * i, &x, 64);
    }
    for (; i < bytes; i++) {
        uint64_t x, t;
        memcpy(&x, out + 8 * i, 8);
        t = (x ^ (x >> 7)) & 0x00AA00AA00AA00AAull;
        x = x ^ t ^ (t << 7);
        t = (x ^ (x >> 14)) & 0x0000CCCC0000CCCCull;
        x = x ^ t ^ (t << 14);
        t = (x ^ (x >> 28)) & 0x00000000F0F0F0F0ull;
        x = x ^ t ^ (t << 28);
        memcpy(out + 8 * i, &x, 8);
    }
}

/* LANES rows of bytes, ``stride`` apart, to one row of LANES bytes per column. */
TARGET static void FN(interleave)(const uint8_t *rows, size_t stride, size_t count, uint8_t *out) {
    size_t at = 0;
    for (; at + 16 <= count; at += 16) {
        U8X16 one[16], two[16];
        for (int k = 0; k < 16; k++) memcpy(&one[k], rows + k * stride + at, 16);
#define ZIP_ALL(from, to)                               \
    for (int k = 0; k < 8; k++) {                       \
        to[2 * k] = ZIP_LOW(from[k], from[k + 8]);      \
        to[2 * k + 1] = ZIP_HIGH(from[k], from[k + 8]); \
    }
        ZIP_ALL(one, two)
        ZIP_ALL(two, one)
        ZIP_ALL(one, two)
        ZIP_ALL(two, one)
        memcpy(out + LANES * at, one, 256);
#undef ZIP_ALL
    }
    for (; at < count; at++)
        for (int k = 0; k < LANES; k++) out[LANES * at + k] = rows[k * stride + at];
}

#undef ZIP_LOW
#undef ZIP_HIGH
#undef U8X16

/* Sum and maximum of bytes. */
TARGET static void FN(sum_and_max)(const uint8_t *x, size_t count, uint64_t *sum, unsigned *max) {
    uint64_t total = 0;
    uint8_t highest = 0;
    size_t i = 0;
    while (i < count) {
        const size_t end = count - i > 4096 ? i + 4096 : count;
        uint32_t part = 0;
        for (size_t j = i; j < end; j++) part += x[j];
        for (size_t j = i; j < end; j++) highest = x[j] > highest ? x[j] : highest;
        total += part;
        i = end;
    }
    *sum = total;
    *max = highest;
}


/* Values masked and split into bytes; returns all their bits. */
TARGET static uint32_t FN(mask_bytes)(const uint8_t *from, const uint8_t *valid, int64_t count,
                                      uint8_t *low) {
    for (int64_t i = 0; i < count; i++) low[i] = from[i] & valid[i];
    return 0;
}

TARGET static uint32_t FN(mask_pairs)(const uint8_t *from, const uint8_t *valid, int64_t count,
                                      uint8_t *low, uint8_t *high) {
    uint8_t all = 0;
    for (int64_t i = 0; i < count; i++) {
        uint16_t v;
        memcpy(&v, from + 2 * i, 2);
        low[i] = (uint8_t)v & valid[i];
        high[i] = (uint8_t)(v >> 8) & valid[i];
        all |= high[i];
    }
    return (uint32_t)all << 8;
}

TARGET static uint32_t FN(mask_words)(const uint8_t *from, const uint8_t *valid, int64_t count,
                                      uint8_t *low, uint8_t *high) {
    uint32_t all = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t v;
        memcpy(&v, from + 4 * i, 4);
        v &= (uint32_t)(int32_t)(int8_t)valid[i];
        low[i] = (uint8_t)v;
        high[i] = (uint8_t)(v >> 8);
        all |= v;
    }
    return all;
}

/* Bytes of items, which lie ``count`` apart, side by side. */
TARGET static void FN(join)(const uint8_t *bytes, size_t count, int item, uint8_t *to) {
    if (item == 2)
        for (size_t i = 0; i < count; i++) {
            const uint16_t v = (uint16_t)(bytes[i] | bytes[count + i] << 8);
            memcpy(to + 2 * i, &v, 2);
        }
    else if (item == 4)
        for (size_t i = 0; i < count; i++) {
            const uint32_t v = bytes[i] | (uint32_t)bytes[count + i] << 8 |
                               (uint32_t)bytes[2 * count + i] << 16 |
                               (uint32_t)bytes[3 * count + i] << 24;
            memcpy(to + 4 * i, &v, 4);
        }
    else
        for (int k = 0; k < item; k++)
            for (size_t i = 0; i < count; i++) to[i * (size_t)item + (size_t)k] = bytes[(size_t)k * count + i];
}
