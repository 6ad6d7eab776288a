/* The least that decoding and integrating a bitshuffle-LZ4 frame costs.

   Stock LZ4, the bit planes that hold counts turned into bytes, and c x and c^2 max(x, 1) of every
   valid pixel, sixteen frames side by side. Nothing else: damage, sentinels, saturation and rare
   large values are not looked at, sums are float32, and which planes matter is known beforehand.
   A program with right answers can come close to this and not below it. */

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { FRAMES = 16 };
enum { LZ4 = 1, UNSHUFFLE = 2, INTERLEAVE = 4, SUMS = 8 }; /* parts, to be timed alone or together */

typedef int (*lz4_function)(const char *from, char *to, int compressed, int size);

typedef struct {
    int64_t pixels, item, block, tile, tiles; /* bytes per pixel; pixels per block and per tile */
    const uint8_t *width;                     /* (tiles) bytes per pixel that hold counts, 1 or 2 */
    const int64_t *tile_runs;                 /* (tiles + 1) */
    const int64_t *run_entries;               /* (runs + 1) */
    const int32_t *run_bin;                   /* (runs) */
    const uint16_t *pixel;                    /* (entries) within the tile */
    const float *coefficient;                 /* (entries) */
    lz4_function lz4;
    char *planes;                             /* (block * item) */
    uint8_t *rows;                            /* (2, FRAMES, tile) */
    uint8_t *lanes;                           /* (2, tile, FRAMES) */
    float *signal, *variance;                 /* (bins, FRAMES) */
} floor_plan;

typedef uint8_t u8x16 __attribute__((vector_size(16)));

/* Bytes of two vectors by turns, from the lower or upper half of each 16 of them. */
#define LOW16(a, b) \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH16(a, b) \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)

#if defined(__AVX512BW__)
enum { WIDE = 64 };
#define LOW(a, b) (wide)_mm512_unpacklo_epi8((__m512i)(a), (__m512i)(b))
#define HIGH(a, b) (wide)_mm512_unpackhi_epi8((__m512i)(a), (__m512i)(b))
#elif defined(__AVX2__)
enum { WIDE = 32 };
#define LOW(a, b) (wide)_mm256_unpacklo_epi8((__m256i)(a), (__m256i)(b))
#define HIGH(a, b) (wide)_mm256_unpackhi_epi8((__m256i)(a), (__m256i)(b))
#else
enum { WIDE = 16 };
#define LOW LOW16
#define HIGH HIGH16
#endif
typedef uint8_t wide __attribute__((vector_size(WIDE)));
typedef uint64_t words __attribute__((vector_size(WIDE)));

/* One round of a transposition: rows k and k + count / 2 are zipped. */
#define ZIP(from, to, count, low, high)                              \
    for (int k = 0; k < (count) / 2; k++) {                          \
        (to)[2 * k] = low((from)[k], (from)[k + (count) / 2]);       \
        (to)[2 * k + 1] = high((from)[k], (from)[k + (count) / 2]);  \
    }

/* Swap the bits under ``mask`` with those ``shift`` above. */
#define SWAP(x, shift, mask)                                  \
    do {                                                      \
        const words t = ((x) ^ ((x) >> (shift))) & (mask);    \
        (x) ^= t ^ (t << (shift));                            \
    } while (0)

/* Eight planes of ``bytes`` >= WIDE bytes each to 8 * bytes numbers. */
static void unshuffle(const char *planes, int64_t bytes, uint8_t *to) {
    for (int64_t at = 0; at < bytes; at += WIDE) {
        if (at + WIDE > bytes) at = bytes - WIDE;
        wide a[8], b[8];
        for (int k = 0; k < 8; k++) memcpy(&a[k], planes + k * bytes + at, WIDE);
        ZIP(a, b, 8, LOW, HIGH)
        ZIP(b, a, 8, LOW, HIGH)
        ZIP(a, b, 8, LOW, HIGH)
        for (int k = 0; k < 8; k++) {
            words x = (words)b[k];
            SWAP(x, 7, 0x00AA00AA00AA00AAull);
            SWAP(x, 14, 0x0000CCCC0000CCCCull);
            SWAP(x, 28, 0x00000000F0F0F0F0ull);
            for (int lane = 0; lane < WIDE / 16; lane++)
                memcpy(to + 8 * at + 128 * lane + 16 * k, (const char *)&x + 16 * lane, 16);
        }
    }
}

/* FRAMES rows, ``tile`` bytes apart, to FRAMES bytes per pixel. */
static void interleave(const uint8_t *rows, int64_t tile, uint8_t *to) {
    for (int64_t at = 0; at < tile; at += 16) {
        u8x16 a[16], b[16];
        for (int k = 0; k < 16; k++) memcpy(&a[k], rows + k * tile + at, 16);
        ZIP(a, b, 16, LOW16, HIGH16)
        ZIP(b, a, 16, LOW16, HIGH16)
        ZIP(a, b, 16, LOW16, HIGH16)
        ZIP(b, a, 16, LOW16, HIGH16)
        memcpy(to + FRAMES * at, a, 256);
    }
}

/* The lanes of one pixel as ``PIECES`` vectors of floats. */
#if defined(__AVX512F__)
enum { PIECES = 1 };
typedef __m512 floats;
static inline floats value(const uint8_t *low, const uint8_t *high, int width) {
    __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)low));
    if (width == 2) {
        const __m512i upper = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)high));
        x = _mm512_or_si512(x, _mm512_slli_epi32(upper, 8));
    }
    return _mm512_cvtepi32_ps(x);
}
static inline floats at_least_one(floats x) { return _mm512_max_ps(x, _mm512_set1_ps(1)); }
#elif defined(__AVX2__)
enum { PIECES = 2 };
typedef __m256 floats;
static inline floats value(const uint8_t *low, const uint8_t *high, int width) {
    __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)low));
    if (width == 2) {
        const __m256i upper = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)high));
        x = _mm256_or_si256(x, _mm256_slli_epi32(upper, 8));
    }
    return _mm256_cvtepi32_ps(x);
}
static inline floats at_least_one(floats x) { return _mm256_max_ps(x, _mm256_set1_ps(1)); }
#else /* not tuned */
enum { PIECES = 4 };
typedef float floats __attribute__((vector_size(16)));
static inline floats value(const uint8_t *low, const uint8_t *high, int width) {
    floats x;
    for (int k = 0; k < 4; k++) x[k] = (float)(width == 2 ? low[k] | high[k] << 8 : low[k]);
    return x;
}
static inline floats at_least_one(floats x) {
    for (int k = 0; k < 4; k++) x[k] = x[k] > 1 ? x[k] : 1;
    return x;
}
#endif

static inline __attribute__((always_inline)) void sums(const floor_plan *p, int64_t tile,
                                                       int width) {
    enum { STEP = FRAMES / PIECES };
    const uint8_t *const low = p->lanes, *const high = p->lanes + p->tile * FRAMES;
    for (int64_t run = p->tile_runs[tile]; run < p->tile_runs[tile + 1]; run++) {
        /* Two of each: an addition need not wait for the one before. */
        floats signal[2][PIECES] = {{{0}}}, variance[2][PIECES] = {{{0}}};
        int64_t e = p->run_entries[run];
        const int64_t end = p->run_entries[run + 1];
#define ADD(k, entry)                                                               \
    do {                                                                            \
        const int64_t place = FRAMES * (int64_t)p->pixel[entry];                    \
        const float c = p->coefficient[entry];                                      \
        for (int piece = 0; piece < PIECES; piece++) {                              \
            const int64_t at = place + STEP * piece;                                \
            const floats x = value(low + at, high + at, width);                     \
            signal[k][piece] += c * x;                                              \
            variance[k][piece] += c * c * at_least_one(x);                          \
        }                                                                           \
    } while (0)
        for (; e + 2 <= end; e += 2) {
            ADD(0, e);
            ADD(1, e + 1);
        }
        if (e < end) ADD(0, e);
#undef ADD
        floats *const to_signal = (floats *)(p->signal + FRAMES * (int64_t)p->run_bin[run]);
        floats *const to_variance = (floats *)(p->variance + FRAMES * (int64_t)p->run_bin[run]);
        for (int piece = 0; piece < PIECES; piece++) {
            to_signal[piece] += signal[0][piece] + signal[1][piece];
            to_variance[piece] += variance[0][piece] + variance[1][piece];
        }
    }
}

static uint32_t big32(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* FRAMES chunks through the chosen parts. Parts left out leave their buffers as they were. */
void floor_batch(const floor_plan *p, const uint8_t *const *chunks, int parts) {
    const uint8_t *next[FRAMES];
    for (int f = 0; f < FRAMES; f++) next[f] = chunks[f] + 12;
    for (int64_t tile = 0; tile < p->tiles; tile++) {
        const int64_t first = tile * p->tile;
        const int64_t count = p->pixels - first < p->tile ? p->pixels - first : p->tile;
        const int width = p->width[tile];
        for (int f = 0; f < FRAMES && parts & (LZ4 | UNSHUFFLE); f++)
            for (int64_t done = 0; done + 8 <= count; done += p->block) {
                const int64_t left = (count - done) / 8 * 8;
                const int64_t size = left < p->block ? left : p->block;
                if (parts & LZ4) {
                    const uint32_t compressed = big32(next[f]);
                    p->lz4((const char *)next[f] + 4, p->planes, (int)compressed,
                           (int)(size * p->item));
                    next[f] += 4 + compressed;
                }
                if (parts & UNSHUFFLE)
                    for (int k = 0; k < width && size >= 8 * WIDE; k++)
                        unshuffle(p->planes + k * size, size / 8,
                                  p->rows + (k * FRAMES + f) * p->tile + done);
            }
        if (parts & INTERLEAVE)
            for (int k = 0; k < width; k++)
                interleave(p->rows + k * FRAMES * p->tile, p->tile,
                           p->lanes + k * FRAMES * p->tile);
        if (parts & SUMS) {
            if (width == 1)
                sums(p, tile, 1);
            else
                sums(p, tile, 2);
        }
    }
}
