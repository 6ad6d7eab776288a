/* What one geometry, mask and binning comes to; every array belongs to the caller. */
#ifndef XRDPIPE_PLAN_H
#define XRDPIPE_PLAN_H

#include <stdint.h>

#define LANES 16

/* Members are 8 bytes each, so that the layout needs no padding on either side. */
typedef struct {
    int64_t pixels, columns, tile, tiles;
    int64_t rows; /* of sums: bins, or twice the bins where the variants' static masks differ */
    const int64_t *tile_runs;         /* (tiles + 1) first run of each tile */
    const int32_t *run_row;           /* (runs) */
    const int64_t *run_entries;       /* (runs + 1) */
    const uint16_t *entry_pixel;      /* (entries) within the tile */
    const float *entry_coefficient;   /* (entries) */
    const int64_t *pixel_entries;     /* (pixels + 1) the same matrix by pixel */
    const int32_t *pixel_row;         /* (entries) */
    const float *pixel_coefficient;   /* (entries) */
    const uint8_t *valid_bits;        /* (pixels / 8, padded) statically valid, lowest bit first */
    const uint8_t *valid_bytes;       /* (pixels) 255 or 0 */
    const uint8_t *extra;             /* (pixels) 1 = not in the first rows of sums; or NULL */
    const double *static_sums;        /* (STATIC_SUMS, rows) of all statically valid pixels */
    const float *norm;                /* (pixels) */
    const double *solid_angle;        /* (pixels) */
    const float *dark;                /* (pixels) or NULL */
    double floor;                     /* variance counts at least this value */
    double saturation;                /* infinity = unknown */
    double hot_limit;                 /* no isolated hot pixel is lower than this signal */
    int64_t sentinel_count, watched_count;
    const double *sentinels;          /* as the dtype holds them */
    const double *watched;
    /* What rejection and spottiness need; NULL where they do not. */
    int64_t bins;
    const int32_t *bin;               /* (pixels) of the centre; bins = none, -1 = never looked at */
    const double *ring_totals;        /* (bins, RING_TOTALS) of the pixels looked at */
    const int64_t *tile_ring_runs;    /* (tiles + 1) first run of each tile */
    const int32_t *ring_run_bin;      /* (ring runs) */
    const int64_t *ring_run_entries;  /* (ring runs + 1) */
    const uint16_t *ring_entry_pixel; /* within the tile */
    const float *ring_entry_inverse;  /* 1 / norm */
    const int64_t *sample_start;      /* (bins + 1) pixels that statistics are taken of */
    const int32_t *sample_pixel;      /* (samples) ascending in each bin */
    const float *sample_norm;         /* (samples) */
    int64_t edge_count;
    const int32_t *edges;             /* pixels without a neighbour on the left or right */
    const int64_t *ring_start;        /* (bins + 1) */
    const int32_t *ring_pixel;        /* pixels looked at, sorted by bin */
} plan;

enum { NORM, SOLID_ANGLE, PIXELS, DARK, SQUARES, STATIC_SUMS };
enum { SIGNAL = STATIC_SUMS, VARIANCE, ALL_SUMS };

enum { ONE_BYTE, TWO_BYTES, FLOATS };
/* What is wanted besides sums: values to reject by, robust limits, moments. */
enum { KEEP = 1, JUDGE = 2, MOMENTS = 4 };
enum { RING_NORM, RING_INVERSE_SQUARES, RING_PIXELS, RING_TOTALS };
enum { U8, U16, U32, I32, F32 };
enum { RAW, BITSHUFFLE_LZ4, BYTE_OFFSET };
enum { OK, CORRUPT, EXCEPTIONAL, NO_MEMORY };

/* One frame, in and out. */
typedef struct {
    const void *data;
    int64_t size;     /* bytes */
    int64_t encoding; /* of these three */
    int64_t status;   /* EXCEPTIONAL: too many pixels need care, use the other path */
    int64_t invalid, invalid_extra, saturated, watched; /* pixels */
    double sum, max, min;                /* over valid pixels */
} frame_result;

/* Values of pixels, LANES frames each; of a tile, or of whole frames. */
typedef struct {
    uint8_t *low, *high;
    float *floats;
} tile_values;

#endif
