/* Decode frames and sum their pixels into bins, LANES frames at a time.

   Loaded through ctypes, which lets go of Python's lock; the module itself is empty. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#define X86 1
#endif

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#include "byte_offset.h"
#include "plan.h"
#include "workspace.h"

/* --- instruction sets ------------------------------------------------------------------------ */

#ifdef X86
#define LANES_ISA 512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi,bmi2,popcnt")))
#define FN(name) name##_512
#include "one_isa.h"
#define LANES_ISA 256
#define TARGET __attribute__((target("avx2,fma,bmi,bmi2,popcnt")))
#define FN(name) name##_256
#include "one_isa.h"
#define LANES_ISA 128
#else
#define LANES_ISA 0
#endif
#define TARGET
#define FN(name) name##_base
#include "one_isa.h"

struct operations {
    void (*sum_tile)(const plan *, int64_t, const tile_values *, int, int, double *, double *);
    int (*any_bit)(const uint8_t *, size_t, int, const uint8_t *, uint8_t *);
    void (*bytes_of_planes)(const uint8_t *, size_t, const uint8_t *, uint8_t *);
    void (*interleave)(const uint8_t *, size_t, size_t, uint8_t *);
    void (*sum_and_max)(const uint8_t *, size_t, uint64_t *, unsigned *);
    uint32_t (*mask_bytes)(const uint8_t *, const uint8_t *, int64_t, uint8_t *);
    uint32_t (*mask_pairs)(const uint8_t *, const uint8_t *, int64_t, uint8_t *, uint8_t *);
    uint32_t (*mask_words)(const uint8_t *, const uint8_t *, int64_t, uint8_t *, uint8_t *);
    void (*join)(const uint8_t *, size_t, int, uint8_t *);
    void (*tile_moments)(const plan *, int64_t, const tile_values *, int, double *);
    void (*statistics)(const plan *, const workspace *, const float *, float *, float *, float *,
                       int32_t *);
    int (*reject)(const judging *);
    int (*finish)(const plan *, workspace *, int64_t *, uint8_t *);
};

#define OPERATIONS(isa)                                                                       \
    {sum_tile_##isa,    any_bit_##isa,    bytes_of_planes_##isa, interleave_##isa,             \
     sum_and_max_##isa, mask_bytes_##isa, mask_pairs_##isa,      mask_words_##isa,             \
     join_##isa,        tile_moments_##isa, statistics_##isa,      reject_##isa,     finish_##isa}

static const operations LEVELS[] = {
    OPERATIONS(base),
#ifdef X86
    OPERATIONS(256),
    OPERATIONS(512),
#endif
};

static int highest_level(void) {
#ifdef X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !__builtin_cpu_supports("bmi2"))
        return 0;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return 2;
    return 1;
#else
    return 0;
#endif
}

/* Memory of one thread; NULL if there is none. ``level`` < 0: the best instruction set. */
EXPORT workspace *xk_workspace(const plan *p, int64_t level) {
    const int64_t best = highest_level();
    return new_workspace(p, &LEVELS[level < 0 || level > best ? best : level]);
}

EXPORT int64_t xk_level(void) { return highest_level(); }

/* --- pixels that need care ------------------------------------------------------------------- */

static int item_size(int64_t dtype) { return dtype == U8 ? 1 : dtype == U16 ? 2 : 4; }

static int is_one_of(double value, const double *list, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (value == list[i]) return 1;
    return 0;
}

/* Note one statically valid pixel whose lane holds 0 instead of its value. */
static int note(const plan *p, workspace *w, frame_result *frame, int f, int64_t pixel,
                double value) {
    exception_list *list = &w->exceptional[f];
    if (list->count == list->room) {
        const int64_t room = list->room ? 2 * list->room : 1024;
        exception *items = realloc(list->items, (size_t)room * sizeof *items);
        if (!items) return 0;
        list->items = items, list->room = room;
    }
    exception *item = &list->items[list->count++];
    *item = (exception){(int32_t)pixel, 0, (float)value};
    frame->watched += is_one_of(value, p->watched, p->watched_count);
    if (!isfinite(value) || is_one_of(value, p->sentinels, p->sentinel_count)) {
        item->flags = INVALID;
        frame->invalid++;
        frame->invalid_extra += p->extra && p->extra[pixel];
        return 1;
    }
    if (value >= p->saturation) {
        item->flags = SATURATED;
        frame->saturated++;
    }
    frame->sum += item->value;
    if (value > frame->max) frame->max = item->value;
    if (value < frame->min) frame->min = item->value;
    return 1;
}

/* Is there anything to look for among values below ``limit``? */
static int looks_below(const plan *p, double limit) {
    int wanted = p->saturation < limit;
    for (int64_t i = 0; i < p->sentinel_count; i++)
        wanted |= p->sentinels[i] >= 0 && p->sentinels[i] < limit;
    for (int64_t i = 0; i < p->watched_count; i++)
        wanted |= p->watched[i] >= 0 && p->watched[i] < limit;
    return wanted;
}

static int needs_care(const plan *p, double value) {
    return value >= p->saturation || is_one_of(value, p->sentinels, p->sentinel_count) ||
           is_one_of(value, p->watched, p->watched_count);
}

/* Take saturated pixels and sentinels out of one-byte values. */
static int sift_bytes(const plan *p, workspace *w, frame_result *frame, int f, int64_t first,
                      size_t count, uint8_t *low) {
    uint8_t care[256];
    for (int v = 0; v < 256; v++) care[v] = (uint8_t)needs_care(p, v);
    for (size_t i = 0; i < count; i++)
        if (care[low[i]] && p->valid_bytes[first + (int64_t)i]) {
            if (!note(p, w, frame, f, first + (int64_t)i, low[i])) return 0;
            low[i] = 0;
        }
    return 1;
}

/* The same for two-byte values; 65535 stands for "more", so it is noted, too. */
static int sift_pairs(const plan *p, workspace *w, frame_result *frame, int f, int64_t first,
                      size_t count, uint8_t *low, uint8_t *high, int look) {
    for (size_t at = 0; at < count; at += 64) {
        const size_t end = count - at > 64 ? at + 64 : count;
        uint8_t top = 0;
        for (size_t i = at; i < end; i++) top |= (uint8_t)-(low[i] == 255 && high[i] == 255);
        if (!top && !look) continue;
        for (size_t i = at; i < end; i++) {
            const unsigned v = low[i] | (unsigned)high[i] << 8;
            if (!p->valid_bytes[first + (int64_t)i]) continue;
            if (v == 65535 || (look && needs_care(p, v))) {
                if (!note(p, w, frame, f, first + (int64_t)i, v)) return 0;
                low[i] = high[i] = 0;
            }
        }
    }
    return 1;
}

/* --- decoding -------------------------------------------------------------------------------- */

static uint32_t big32(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Read the 12 bytes before the blocks; pixels per block, 0 if they are wrong. */
static int64_t block_pixels(const uint8_t *data, int64_t size, int64_t pixels, int item) {
    if (size < 12) return 0;
    const uint64_t bytes = (uint64_t)big32(data) << 32 | big32(data + 4);
    if (bytes != (uint64_t)pixels * (uint64_t)item) return 0;
    const int64_t in_block = big32(data + 8) / item;
    if (in_block * item != big32(data + 8) || in_block % 8 || in_block > (1 << 24)) return 0;
    return in_block;
}

/* The next LZ4 block of a frame; 0 if it is damaged. */
static int next_block(cursor *at, uint8_t *out, size_t bytes) {
    if (at->end - at->next < 4) return 0;
    const uint32_t compressed = big32(at->next);
    at->next += 4;
    if (compressed > (uint64_t)(at->end - at->next)) return 0;
    const uint8_t *const from = at->next;
    at->next += compressed;
    return lz4_block(from, compressed, out, bytes);
}

/* Decode a whole bitshuffle-LZ4 chunk of ``pixels`` items to their values; 0 if it is damaged. */
static int decode_whole(const operations *op, const uint8_t *data, int64_t size, int item,
                        int64_t pixels, uint8_t *out) {
    int64_t block = block_pixels(data, size, pixels, item);
    if (!block) return 0;
    if (block > pixels) block = pixels / 8 * 8;
    if (block == 0) block = 8;
    cursor at = {data + 12, data + size, block, 0};
    uint8_t *const planes = room_for((size_t)block * item + LZ4_SLACK);
    uint8_t *const bytes = room_for((size_t)block * item + LZ4_SLACK);
    uint8_t *const keep = room_for((size_t)block / 8 + 64);
    int whole = planes && bytes && keep;
    if (whole) memset(keep, 255, (size_t)block / 8 + 64);
    int64_t done = 0;
    while (whole && pixels - done >= 8) {
        const int64_t count = pixels - done < block ? (pixels - done) / 8 * 8 : block;
        whole = next_block(&at, planes, (size_t)(count * item));
        for (int k = 0; whole && k < item; k++)
            op->bytes_of_planes(planes + k * count, (size_t)count / 8, keep, bytes + k * count);
        uint8_t *const to = out + done * item;
        if (whole) op->join(bytes, (size_t)count, item, to);
        done += count;
    }
    const int64_t left = (pixels - done) * item;
    if (whole && at.end - at.next == left)
        memcpy(out + done * item, at.next, (size_t)left);
    else
        whole = 0;
    free(planes), free(bytes), free(keep);
    return whole;
}

/* One decoded chunk of bitshuffle-LZ4 with items of 1, 2, 4 or 8 bytes; 0 if it is damaged. */
EXPORT int64_t xk_decode(const uint8_t *data, int64_t size, int64_t item, int64_t items,
                         uint8_t *out) {
    if (item != 1 && item != 2 && item != 4 && item != 8) return 0;
    return decode_whole(&LEVELS[highest_level()], data, size, (int)item, items, out);
}

/* Open a frame; frames whose blocks do not fit into tiles are decoded at once. */
static int open_frame(const plan *p, workspace *w, frame_result *frame, int f, int64_t dtype) {
    cursor *at = &w->at[f];
    const int item = item_size(dtype);
    at->loaded = 0, at->block = 0;
    at->next = frame->data, at->end = at->next + frame->size;
    if (frame->encoding == RAW) return frame->size == p->pixels * item;
    if (frame->encoding == BYTE_OFFSET) {
        if (item != 4) return 0;
        if (!w->whole[f]) w->whole[f] = room_for((size_t)p->pixels * 4);
        at->next = w->whole[f], at->end = at->next + p->pixels * item;
        return w->whole[f] &&
               byte_offset(frame->data, frame->size, (int32_t *)w->whole[f], p->pixels);
    }
    const int64_t block = block_pixels(frame->data, frame->size, p->pixels, item);
    if (!block) return 0;
    if (p->tile % block == 0) {
        at->block = block;
        at->next += 12;
        return 1;
    }
    if (!w->whole[f]) w->whole[f] = room_for((size_t)p->pixels * 4);
    if (!w->whole[f] ||
        !decode_whole(w->op, frame->data, frame->size, item, p->pixels, w->whole[f]))
        return 0;
    at->next = w->whole[f];
    at->end = at->next + p->pixels * item;
    return 1;
}

static double value_of(const void *from, int64_t index, int64_t dtype) {
    switch (dtype) {
    case U8: return ((const uint8_t *)from)[index];
    case U16: {
        uint16_t v;
        memcpy(&v, (const char *)from + 2 * index, 2);
        return v;
    }
    case U32: {
        uint32_t v;
        memcpy(&v, (const char *)from + 4 * index, 4);
        return v;
    }
    case I32: {
        int32_t v;
        memcpy(&v, (const char *)from + 4 * index, 4);
        return v;
    }
    default: {
        float v;
        memcpy(&v, (const char *)from + 4 * index, 4);
        return v;
    }
    }
}

/* Raw values to the rows of a tile. Whole bytes above the width are exceptions. */
static int load_raw(const plan *p, workspace *w, frame_result *frame, int f, const uint8_t *from,
                    int64_t first, int64_t count, int64_t dtype, int width, uint8_t *low,
                    uint8_t *high, float *floats) {
    const uint8_t *const valid = p->valid_bytes + first;
    if (width == FLOATS) {
        if (dtype == F32)
            memcpy(floats, from, 4 * (size_t)count);
        else
            for (int64_t i = 0; i < count; i++) floats[i] = (float)value_of(from, i, dtype);
        for (int64_t i = 0; i < count; i++) {
            if (!valid[i]) {
                floats[i] = 0;
                continue;
            }
            /* Of 32 bits the float may round to a sentinel that the value is not. */
            const double exact = dtype == F32 ? floats[i] : value_of(from, i, dtype);
            if (!isfinite(exact) || needs_care(p, exact)) {
                if (!note(p, w, frame, f, first + i, exact)) return 0;
                floats[i] = 0;
            }
        }
        return 1;
    }
    const uint32_t limit = width == ONE_BYTE ? 256 : 65536;
    const int small = width == ONE_BYTE;
    for (int64_t at = 0; at < count; at += 256) {
        const int64_t end = count - at > 256 ? at + 256 : count;
        uint32_t all;
        if (dtype == U8)
            all = w->op->mask_bytes(from + at, valid + at, end - at, low + at);
        else if (dtype == U16)
            all = w->op->mask_pairs(from + 2 * at, valid + at, end - at, low + at, high + at);
        else
            all = w->op->mask_words(from + 4 * at, valid + at, end - at, low + at, high + at);
        if (dtype == U8 && !small) memset(high + at, 0, (size_t)(end - at));
        const uint32_t large = all & ~(limit - 1);
        if (!large) continue;
        for (int64_t i = at; i < end; i++) {
            const double v = value_of(from, i, dtype);
            if (valid[i] && (v >= limit || v < 0)) {
                if (!note(p, w, frame, f, first + i, v)) return 0;
                low[i] = 0;
                if (!small) high[i] = 0;
            }
        }
    }
    return 1;
}

/* One decoded block of bit planes to the rows of a tile. */
static int load_planes(const plan *p, workspace *w, frame_result *frame, int f, int64_t first,
                       size_t count, int64_t dtype, int width, uint8_t *low, uint8_t *high,
                       float *floats) {
    const int item = item_size(dtype), planes = 8 * item;
    const size_t bytes = count / 8;
    const uint8_t *const valid = p->valid_bits + first / 8;
    if (width == FLOATS) {
        for (int k = 0; k < item; k++)
            w->op->bytes_of_planes(w->block + k * count, bytes, valid, w->bytes + k * count);
        uint8_t *const values = w->block;
        w->op->join(w->bytes, count, item, values);
        return load_raw(p, w, frame, f, values, first, (int64_t)count, dtype, width, low, high,
                        floats);
    }
    const int held = width == ONE_BYTE ? 8 : 16;
    const uint8_t *keep = valid;
    if (planes > held &&
        w->op->any_bit(w->block + held * bytes, bytes, planes - held, valid, w->bits)) {
        for (size_t i = 0; i < bytes; i++)
            for (unsigned left = w->bits[i]; left; left &= left - 1) {
                const int bit = __builtin_ctz(left);
                uint32_t raw = 0;
                for (int k = 0; k < planes; k++)
                    raw |= (uint32_t)(w->block[k * bytes + i] >> bit & 1) << k;
                const double v = value_of(&raw, 0, item == 2 ? U16 : dtype);
                if (!note(p, w, frame, f, first + 8 * (int64_t)i + bit, v)) return 0;
            }
        for (size_t i = 0; i < bytes; i++) w->bits[i] = valid[i] & (uint8_t)~w->bits[i];
        keep = w->bits;
    }
    w->op->bytes_of_planes(w->block, bytes, keep, low);
    if (width == TWO_BYTES) {
        if (planes > 8)
            w->op->bytes_of_planes(w->block + count, bytes, keep, high);
        else
            memset(high, 0, count);
    }
    return 1;
}

/* Load ``count`` pixels of one frame from ``first`` on into its rows. OK, CORRUPT, NO_MEMORY. */
static int load(const plan *p, workspace *w, frame_result *frame, int f, int64_t first,
                int64_t count, int64_t dtype, int width, size_t row) {
    cursor *at = &w->at[f];
    uint8_t *low = w->low + row, *high = w->high + row;
    float *floats = w->floats + row;
    const int item = item_size(dtype);
    if (!at->block) {
        if (!load_raw(p, w, frame, f, at->next, first, count, dtype, width, low, high, floats))
            return NO_MEMORY;
        at->next += count * item;
    }
    for (int64_t done = 0; at->block && done < count;) {
        int64_t part = count - done < at->block ? count - done : at->block;
        if (part < 8) { /* the last pixels of a frame are not compressed */
            if (at->end - at->next != part * item) return CORRUPT;
            if (!load_raw(p, w, frame, f, at->next, first + done, part, dtype, width, low + done,
                          high + done, floats + done))
                return NO_MEMORY;
            at->next += part * item;
        } else {
            part = part / 8 * 8;
            if (!next_block(at, w->block, (size_t)(part * item))) return CORRUPT;
            if (!load_planes(p, w, frame, f, first + done, (size_t)part, dtype, width, low + done,
                             high + done, floats + done))
                return NO_MEMORY;
        }
        done += part;
    }
    if (first + count == p->pixels && at->next != at->end) return CORRUPT;
    if (width == FLOATS) {
        double sum = 0;
        float max = floats[0], min = floats[0];
        for (int64_t i = 0; i < count; i++) {
            sum += floats[i];
            max = floats[i] > max ? floats[i] : max;
            min = floats[i] < min ? floats[i] : min;
        }
        frame->sum += sum;
        if (max > frame->max) frame->max = max;
        if (min < frame->min) frame->min = min;
        return OK;
    }
    if (width == ONE_BYTE) {
        if (looks_below(p, 256) && !sift_bytes(p, w, frame, f, first, (size_t)count, low))
            return NO_MEMORY;
    } else if (!sift_pairs(p, w, frame, f, first, (size_t)count, low, high,
                           looks_below(p, 65535))) {
        return NO_MEMORY;
    }
    uint64_t sum;
    unsigned max;
    w->op->sum_and_max(low, (size_t)count, &sum, &max);
    frame->sum += (double)sum;
    if (width == TWO_BYTES) {
        w->op->sum_and_max(high, (size_t)count, &sum, &max);
        frame->sum += 256.0 * (double)sum;
        w->upper += sum;
        unsigned most = 0;
        for (int64_t i = 0; i < count; i++) {
            const unsigned v = low[i] | (unsigned)high[i] << 8;
            most = v > most ? v : most;
        }
        max = most;
    }
    if (max > frame->max) frame->max = max;
    return OK;
}

/* --- sums ------------------------------------------------------------------------------------ */

/* Take one pixel with the value ``x`` off the sums of a frame, with all that belongs to it. */
static void take_off(const plan *p, double *sums, int64_t rows, int64_t pixel, double x) {
    const double above = x > p->floor ? x : p->floor;
    for (int64_t e = p->pixel_entries[pixel]; e < p->pixel_entries[pixel + 1]; e++) {
        const int64_t row = p->pixel_row[e];
        const double c = p->pixel_coefficient[e];
        sums[SIGNAL * rows + row] -= c * x;
        sums[VARIANCE * rows + row] -= c * c * above;
        sums[NORM * rows + row] -= c * p->norm[pixel];
        sums[SOLID_ANGLE * rows + row] -= c * p->solid_angle[pixel];
        sums[PIXELS * rows + row] -= 1;
        if (p->dark) sums[DARK * rows + row] -= c * p->dark[pixel];
        sums[SQUARES * rows + row] -= c * c;
    }
}

/* Give a pixel whose lane held 0 its value. */
static void put_in(const plan *p, double *sums, int64_t rows, int64_t pixel, double x) {
    const double above = (x > p->floor ? x : p->floor) - p->floor;
    for (int64_t e = p->pixel_entries[pixel]; e < p->pixel_entries[pixel + 1]; e++) {
        const int64_t row = p->pixel_row[e];
        const double c = p->pixel_coefficient[e];
        sums[SIGNAL * rows + row] += c * x;
        sums[VARIANCE * rows + row] += c * c * above;
    }
}

/* What a tile changes, to begin it again. */
typedef struct {
    frame_result frame;
    cursor at;
    int64_t noted;
} mark;

static int widest(int64_t dtype) { return dtype == U8 ? ONE_BYTE : dtype == U16 ? TWO_BYTES : FLOATS; }

/* Sort the exceptions of a frame, and mark them in what is kept. */
static void settle_exceptions(workspace *w, int f, int64_t work) {
    exception_list *const list = &w->exceptional[f];
    if (list->count > 1) qsort(list->items, (size_t)list->count, sizeof *list->items, by_pixel);
    for (int64_t i = 0; work & KEEP && i < list->count; i++) {
        const exception *const item = &list->items[i];
        const int64_t at = (int64_t)item->pixel * LANES + f;
        const int width = width_of(w, item->pixel);
        if (width == FLOATS)
            w->kept.floats[at] = item->flags & INVALID ? NAN : item->value;
        else
            w->kept.low[at] = 255;
        if (width == TWO_BYTES) w->kept.high[at] = 255;
    }
}

/* Decode ``count`` ≤ LANES frames and sum them.

   ``sums``: (count, ALL_SUMS, rows). ``exact``: pixels will be taken off again. ``work``: what is
   to follow. Returns OK or NO_MEMORY. */
EXPORT int64_t xk_integrate(const plan *p, workspace *w, frame_result *frames, int64_t count,
                            int64_t dtype, int64_t exact, int64_t work, double *sums) {
    const size_t values = (size_t)p->rows * LANES;
    w->frames = count;
    w->batches++;
    memset(w->signal, 0, values * sizeof(double));
    memset(w->variance, 0, values * sizeof(double));
    int64_t step = 2048;
    for (int f = 0; f < count; f++) {
        frame_result *const frame = &frames[f];
        frame->invalid = frame->invalid_extra = frame->saturated = frame->watched = 0;
        frame->sum = frame->max = frame->min = 0;
        w->exceptional[f].count = 0;
        frame->status = open_frame(p, w, frame, f, dtype) ? OK : CORRUPT;
        if (w->at[f].block > step) step = w->at[f].block;
    }
    if (dtype == F32) w->floats_only = 1;
    if (work && !room_for_rings(p, w, w->floats_only, work)) return NO_MEMORY;
    if (work & MOMENTS)
        memset(w->moments, 0, (size_t)p->bins * SUMMED_MOMENTS * LANES * sizeof(double));
    if (step > p->tile) step = p->tile;
    const int last = widest(dtype);
    const int64_t many = p->tile * count / 128;
    for (int64_t tile = 0; tile < p->tiles; tile++) {
        const int64_t first = tile * p->tile;
        const int64_t pixels = p->pixels - first < p->tile ? p->pixels - first : p->tile;
        mark marks[LANES];
        for (int f = 0; f < count; f++)
            marks[f] = (mark){frames[f], w->at[f], w->exceptional[f].count};
        int width = dtype == F32 || (work && w->floats_only) ? FLOATS
                    : w->width[tile] > last                  ? last
                                                             : w->width[tile];
        int64_t noted;
        tile_values to;
    again:
        noted = 0;
        to = w->tile;
        if (work & KEEP) {
            if (width == FLOATS)
                to.floats = w->kept.floats + LANES * first;
            else
                to.low = w->kept.low + LANES * first, to.high = w->kept.high + LANES * first;
        }
        w->upper = 0;
        for (int64_t done = 0; done < pixels; done += step) {
            const int64_t part = pixels - done < step ? pixels - done : step;
            for (int f = 0; f < LANES; f++) {
                const size_t row = (size_t)f * step;
                if (f < count && frames[f].status == OK) {
                    const int64_t before = w->exceptional[f].count;
                    const int result =
                        load(p, w, &frames[f], f, first + done, part, dtype, width, row);
                    if (result == NO_MEMORY) return NO_MEMORY;
                    frames[f].status = result;
                    noted += w->exceptional[f].count - before;
                }
                if (f >= count || frames[f].status != OK) {
                    if (width == FLOATS)
                        memset(w->floats + row, 0, (size_t)part * sizeof(float));
                    else
                        memset(w->low + row, 0, (size_t)part);
                    if (width == TWO_BYTES) memset(w->high + row, 0, (size_t)part);
                }
            }
            if (noted > many && width < last) {
                for (int f = 0; f < count; f++) {
                    frames[f] = marks[f].frame, w->at[f] = marks[f].at;
                    w->exceptional[f].count = marks[f].noted;
                }
                width++;
                if (work && width == FLOATS) {
                    w->floats_only = 1; /* stays: frames of one series are alike */
                    return xk_integrate(p, w, frames, count, dtype, exact, work, sums);
                }
                goto again;
            }
            if (width == FLOATS)
                for (int64_t i = 0; i < part; i++)
                    for (int f = 0; f < LANES; f++)
                        to.floats[LANES * (done + i) + f] = w->floats[(size_t)f * step + i];
            else
                w->op->interleave(w->low, (size_t)step, (size_t)part, to.low + LANES * done);
            if (width == TWO_BYTES)
                w->op->interleave(w->high, (size_t)step, (size_t)part, to.high + LANES * done);
        }
        /* The next batch begins with what was needed, or with less where that may do. */
        const int narrower = (width == TWO_BYTES && (int64_t)w->upper < many / 2) ||
                             (width == FLOATS && !work && w->batches % 32 == 31);
        w->width[tile] = narrower ? width - 1 : width;
        w->held[tile] = (uint8_t)width;
        w->op->sum_tile(p, tile, &to, width, (int)exact, w->signal, w->variance);
        if (work & MOMENTS) w->op->tile_moments(p, tile, &to, width, w->moments);
    }
    w->usable = 0;
    for (int f = 0; f < count; f++) {
        double *const own = sums + (size_t)f * ALL_SUMS * p->rows;
        memcpy(own, p->static_sums, (size_t)(STATIC_SUMS * p->rows) * sizeof(double));
        for (int64_t row = 0; row < p->rows; row++) {
            own[SIGNAL * p->rows + row] = w->signal[LANES * row + f];
            own[VARIANCE * p->rows + row] = w->variance[LANES * row + f];
        }
        const exception_list *const list = &w->exceptional[f];
        if (frames[f].status == OK && list->count > p->pixels / 16) frames[f].status = EXCEPTIONAL;
        if (frames[f].status != OK) continue;
        w->usable |= 1u << f;
        if (work) settle_exceptions(w, f, work);
        for (int64_t i = 0; i < list->count; i++) {
            const exception *const item = &list->items[i];
            if (item->flags & INVALID)
                take_off(p, own, p->rows, item->pixel, 0);
            else
                put_in(p, own, p->rows, item->pixel, item->value);
        }
    }
    return OK;
}

#include "rejection.h"

/* --- an empty module ------------------------------------------------------------------------- */

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel",
                                        "Loaded through ctypes; see kernel.py.", -1,
                                        NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModule_Create(&definition); }
