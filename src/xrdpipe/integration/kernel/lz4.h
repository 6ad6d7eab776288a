/* LZ4 block format, decoded into a buffer with slack. */
#ifndef XRDPIPE_LZ4_H
#define XRDPIPE_LZ4_H

#include <stdint.h>
#include <string.h>

/* Bytes behind the output buffer that may be overwritten: copies go in whole vectors. */
#define LZ4_SLACK 64

static inline void copy16(uint8_t *to, const uint8_t *from) {
    uint64_t a, b;
    memcpy(&a, from, 8);
    memcpy(&b, from + 8, 8);
    memcpy(to, &a, 8);
    memcpy(to + 8, &b, 8);
}

static inline void copy32(uint8_t *to, const uint8_t *from) {
    copy16(to, from);
    copy16(to + 16, from + 16);
}

/* Add the bytes of a long length; 0 where the input ends inside it or it exceeds ``most``. */
static inline int long_length(const uint8_t **in, const uint8_t *end, size_t *length, size_t most) {
    unsigned more;
    do {
        if (*in >= end) return 0;
        more = *(*in)++;
        *length += more;
        if (*length > most) return 0;
    } while (more == 255);
    return 1;
}

/* Decode one block to exactly ``size`` bytes; 0 if it is damaged, 1 if it is whole.

   Nothing is read outside [in, in + compressed), nothing written outside
   [out, out + size + LZ4_SLACK), whatever the input holds. */
static inline int lz4_block(const uint8_t *in, size_t compressed, uint8_t *out, size_t size) {
    const uint8_t *const in_end = in + compressed;
    uint8_t *const begin = out, *const out_end = out + size;
    for (;;) {
        if (in >= in_end) return 0;
        const unsigned token = *in++;
        size_t literals = token >> 4;
        if (literals < 15 && in_end - in >= 18) {
            if (literals > (size_t)(out_end - out)) return 0;
            copy16(out, in);
        } else {
            if (literals == 15 && !long_length(&in, in_end, &literals, size)) return 0;
            if (literals > (size_t)(in_end - in) || literals > (size_t)(out_end - out)) return 0;
            if ((size_t)(in_end - in) >= literals + 32) {
                size_t k = 0;
                do {
                    copy32(out + k, in + k);
                    k += 32;
                } while (k < literals);
            } else {
                memcpy(out, in, literals);
            }
        }
        in += literals;
        out += literals;
        if (in == in_end) return out == out_end;
        if (in_end - in < 2) return 0;
        const size_t offset = in[0] | (size_t)in[1] << 8;
        in += 2;
        size_t length = token & 15;
        if (length == 15 && !long_length(&in, in_end, &length, size)) return 0;
        length += 4;
        if (offset == 0 || offset > (size_t)(out - begin)) return 0;
        if (length > (size_t)(out_end - out)) return 0;
        const uint8_t *from = out - offset;
        uint8_t *const stop = out + length;
        if (offset == 1) {
            memset(out, *from, length);
        } else if (offset >= 32) {
            do {
                copy32(out, from);
                out += 32;
                from += 32;
            } while (out < stop);
        } else {
            /* Each copy doubles the distance over which the text repeats. */
            size_t distance = offset;
            while (distance < 16 && out < stop) {
                copy16(out, from);
                out += distance;
                distance *= 2;
            }
            while (out < stop) {
                copy16(out, from);
                out += 16;
                from += 16;
            }
        }
        out = stop;
    }
}

#endif
