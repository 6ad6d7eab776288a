/* Memory of one thread, and the lists it keeps of pixels that need care. */
#ifndef XRDPIPE_WORKSPACE_H
#define XRDPIPE_WORKSPACE_H

#include <stdlib.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "lz4.h"
#include "plan.h"

typedef struct operations operations;

enum { INVALID = 1, SATURATED = 2 };

/* A pixel whose value its lane does not hold. */
typedef struct {
    int32_t pixel;
    int32_t flags;
    float value;
} exception;

typedef struct {
    exception *items; /* sorted by pixel once the frame is decoded */
    int64_t count, room;
} exception_list;

/* A pixel, and which frames of the batch are meant. */
typedef struct {
    int32_t pixel;
    uint32_t lanes;
} marked;

typedef struct {
    marked *items;
    int64_t count, room;
} marked_list;

/* Where one frame's decoding stands. */
typedef struct {
    const uint8_t *next, *end;
    int64_t block;  /* pixels per block; 0 = raw values */
    int64_t loaded; /* pixels given out so far */
} cursor;

enum { MOMENT_SUM, MOMENT_VALUE, MOMENT_SQUARE, MOMENT_COUNTS, SUMMED_MOMENTS };
enum { TAKEN = 8 }; /* ALL_SUMS, and one for alignment */

typedef struct {
    const operations *op;
    int64_t frames;
    uint32_t usable;         /* lanes whose frame could be decoded */
    uint8_t *low, *high;     /* (LANES, tile) */
    float *floats;           /* (LANES, tile) */
    tile_values tile;        /* (tile, LANES) */
    uint8_t *block;          /* one decoded LZ4 block */
    uint8_t *bits;           /* one bit per pixel of a block */
    uint8_t *bytes;          /* (4, tile) */
    double *signal, *variance; /* (rows, LANES) */
    int *width;              /* (tiles) to begin with */
    int64_t batches;
    uint64_t upper;          /* sum of the upper bytes of a tile */
    exception_list exceptional[LANES];
    cursor at[LANES];
    uint8_t *whole[LANES];   /* decoded frame where its blocks do not fit into tiles */
    /* Only where pixels are rejected. */
    int floats_only;         /* values do not fit into two bytes */
    int shift;               /* a pixel's tile is pixel >> shift */
    uint8_t *held;           /* (tiles) the width of each tile in this batch */
    void *memory[3];         /* of the values kept, with a margin */
    tile_values kept;        /* (pixels, LANES); 255 or 65535: perhaps an exception */
    double *moments;         /* (bins, SUMMED_MOMENTS, LANES) */
    float *column;           /* (most samples of a bin, LANES) */
    uint8_t *least;          /* (bins + 2, LANES) */
    int32_t *outlying;       /* (bins, LANES) */
    uint16_t *clipped;       /* (bins + 1) lanes */
    uint16_t *marks;         /* (pixels) rejected lanes */
    uint16_t *seen;          /* (pixels) lanes that growth has looked at */
    uint16_t *row;           /* (2, columns + 2) */
    marked_list hot, near;
    double *taken;           /* (LANES, bins, TAKEN) of the caller */
    float *ring;             /* (LANES, longest ring) */
    double *clip;            /* (3, longest ring) */
    int32_t *place;          /* (longest ring) */
} workspace;

/* Memory that fits vectors; large pieces in large pages, as their parts are far apart. */
static void *room_for(size_t bytes) {
    enum { LARGE = 1 << 21 };
    void *memory = NULL;
    if (posix_memalign(&memory, bytes < 2 * LARGE ? 64 : LARGE, bytes ? bytes : 64)) return NULL;
#ifdef MADV_HUGEPAGE
    if (bytes >= 2 * LARGE) madvise(memory, bytes, MADV_HUGEPAGE); /* as well as it can */
#endif
    return memory;
}

static void *zeros_for(size_t bytes) {
    void *const memory = room_for(bytes);
    if (memory) memset(memory, 0, bytes);
    return memory;
}

/* Room unless there is some already; 0 without memory. */
#define ROOM(pointer, bytes) ((pointer) || ((pointer) = room_for(bytes)))
#define ZEROS(pointer, bytes) ((pointer) || ((pointer) = zeros_for(bytes)))

EXPORT void xk_free(workspace *w) {
    if (!w) return;
    free(w->low), free(w->high), free(w->floats);
    free(w->tile.low), free(w->tile.high), free(w->tile.floats);
    free(w->block), free(w->bits), free(w->bytes);
    free(w->signal), free(w->variance), free(w->width), free(w->held);
    for (int k = 0; k < 3; k++) free(w->memory[k]);
    free(w->moments), free(w->column), free(w->least), free(w->outlying), free(w->clipped);
    free(w->marks), free(w->seen), free(w->row);
    free(w->hot.items), free(w->near.items);
    free(w->ring), free(w->clip), free(w->place);
    for (int f = 0; f < LANES; f++) {
        free(w->exceptional[f].items);
        free(w->whole[f]);
    }
    free(w);
}

/* Room for the values of whole frames, and for what is done with them; 0 without memory. */
static int room_for_rings(const plan *p, workspace *w, int floats, int64_t work) {
    enum { MARGIN = 64 }; /* the neighbours of the first and last pixel are read */
    const size_t pixels = (size_t)p->pixels, bins = (size_t)p->bins;
    if (work & KEEP) {
        const size_t bytes = pixels * LANES + 2 * MARGIN;
        if (floats) {
            if (!ROOM(w->memory[2], bytes * sizeof(float))) return 0;
            w->kept.floats = (float *)w->memory[2] + MARGIN;
        } else {
            if (!ROOM(w->memory[0], bytes) || !ROOM(w->memory[1], bytes)) return 0;
            w->kept.low = (uint8_t *)w->memory[0] + MARGIN;
            w->kept.high = (uint8_t *)w->memory[1] + MARGIN;
        }
        if (!ROOM(w->marks, pixels * sizeof *w->marks)) return 0;
    }
    if (work & JUDGE) {
        size_t most = 1;
        for (size_t b = 0; b < bins; b++) {
            const size_t count = (size_t)(p->sample_start[b + 1] - p->sample_start[b]);
            most = count > most ? count : most;
        }
        if (!ROOM(w->column, most * LANES * sizeof(float)) ||
            !ROOM(w->least, (bins + 2) * LANES) ||
            !ROOM(w->outlying, bins * LANES * sizeof *w->outlying) ||
            !ROOM(w->clipped, (bins + 1) * sizeof *w->clipped) ||
            !ROOM(w->seen, pixels * sizeof *w->seen) ||
            !ROOM(w->row, 2 * ((size_t)p->columns + 2) * sizeof *w->row))
            return 0;
    }
    if (work & MOMENTS)
        return ROOM(w->moments, bins * SUMMED_MOMENTS * LANES * sizeof(double));
    return 1;
}

/* Memory of one thread; NULL if there is none. */
static workspace *new_workspace(const plan *p, const operations *op) {
    workspace *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->op = op;
    while ((int64_t)1 << w->shift < p->tile) w->shift++;
    const size_t tile = (size_t)p->tile, sums = (size_t)p->rows * LANES * sizeof(double);
    const int whole = ROOM(w->low, LANES * tile) && ROOM(w->high, LANES * tile) &&
                      ROOM(w->floats, LANES * tile * sizeof(float)) &&
                      ROOM(w->tile.low, LANES * tile) &&
                      ROOM(w->tile.high, LANES * tile) &&
                      ROOM(w->tile.floats, LANES * tile * sizeof(float)) &&
                      ROOM(w->block, 4 * tile + LZ4_SLACK) &&
                      ROOM(w->bits, tile / 8 + 64) &&
                      ROOM(w->bytes, 4 * tile + 64) && ROOM(w->signal, sums) &&
                      ROOM(w->variance, sums) &&
                      ZEROS(w->width, ((size_t)p->tiles + 1) * sizeof *w->width) &&
                      ZEROS(w->held, (size_t)p->tiles + 1);
    if (whole) return w;
    xk_free(w);
    return NULL;
}

static int push(marked_list *list, int64_t pixel, uint32_t lanes) {
    if (list->count == list->room) {
        const int64_t room = list->room ? 2 * list->room : 1024;
        marked *items = realloc(list->items, (size_t)room * sizeof *items);
        if (!items) return 0;
        list->items = items, list->room = room;
    }
    list->items[list->count++] = (marked){(int32_t)pixel, lanes};
    return 1;
}

static int by_pixel(const void *one, const void *other) {
    const int32_t a = ((const exception *)one)->pixel, b = ((const exception *)other)->pixel;
    return (a > b) - (a < b);
}

/* What a frame's lane does not hold of a pixel; NULL if it holds its value. */
static const exception *exception_of(const workspace *w, int f, int64_t pixel) {
    const exception_list *const list = &w->exceptional[f];
    int64_t low = 0, high = list->count;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (list->items[middle].pixel < pixel)
            low = middle + 1;
        else
            high = middle;
    }
    return low < list->count && list->items[low].pixel == pixel ? &list->items[low] : NULL;
}

#endif
