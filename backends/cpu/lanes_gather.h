/* Strided elements to dense ones, for lanes.c: whole vectors are put together in registers.
 *
 * Element by element through memory, the vector loads that follow would wait for the stores.
 */
#ifndef SP_CPU_LANES_GATHER_H
#define SP_CPU_LANES_GATHER_H

#include "backends/cpu/vec.h"

#define DEFINE_GATHER(T)                                                                           \
    static void gather_##T(void *dst, const void *src, int64_t rows, int64_t columns, int64_t row, \
                           int64_t column)                                                         \
    {                                                                                              \
        E_##T *to = dst;                                                                           \
        const E_##T *at = src;                                                                     \
        for (int64_t i = 0; i < rows; i++, at += row) {                                            \
            const E_##T *from = at;                                                                \
            int64_t j = 0;                                                                         \
            for (; j + N_##T <= columns; j += N_##T, to += N_##T) {                                \
                V_##T v;                                                                           \
                for (int k = 0; k < N_##T; k++, from += column) v[k] = *from;                      \
                store_##T(to, v);                                                                  \
            }                                                                                      \
            for (; j < columns; j++, from += column) *to++ = *from;                                \
        }                                                                                          \
    }
DEFINE_GATHER(f32)
DEFINE_GATHER(i64)

#endif
