/* x-CBF_BYTE_OFFSET: differences of neighbouring pixels in 1, 3, 7 or 15 bytes. */
#ifndef XRDPIPE_BYTE_OFFSET_H
#define XRDPIPE_BYTE_OFFSET_H

#include <stdint.h>
#include <string.h>

/* Decode to exactly ``pixels`` values; 0 where the input holds fewer. Sums wrap at 32 bits, as
   those of other readers do; bytes behind the last pixel are padding. */
static inline int byte_offset(const uint8_t *in, int64_t size, int32_t *out, int64_t pixels) {
    const uint8_t *const end = in + size;
    uint32_t value = 0;
    int64_t i = 0;
    while (i < pixels) {
        /* Eight differences of one byte each are the usual case. */
        while (pixels - i >= 8 && end - in >= 8) {
            uint64_t eight;
            memcpy(&eight, in, 8);
            const uint64_t marks = eight ^ 0x8080808080808080u;
            if ((marks - 0x0101010101010101u) & ~marks & 0x8080808080808080u) break;
            for (int k = 0; k < 8; k++) {
                value += (uint32_t)(int32_t)(int8_t)in[k];
                out[i + k] = (int32_t)value;
            }
            in += 8, i += 8;
        }
        if (i == pixels) break;
        if (end - in < 1) return 0;
        int64_t step = (int8_t)*in++;
        if (step == INT8_MIN) {
            int16_t two;
            if (end - in < 2) return 0;
            memcpy(&two, in, 2);
            in += 2, step = two;
            if (two == INT16_MIN) {
                int32_t four;
                if (end - in < 4) return 0;
                memcpy(&four, in, 4);
                in += 4, step = four;
                if (four == INT32_MIN) {
                    if (end - in < 8) return 0;
                    memcpy(&step, in, 8);
                    in += 8;
                }
            }
        }
        value += (uint32_t)(uint64_t)step;
        out[i++] = (int32_t)value;
    }
    return 1;
}

#endif
