/* Inner loops of resample (resample.c), for lanes.c: weighed sums of few elements, in order. */
#ifndef SP_CPU_LANES_RESAMPLE_H
#define SP_CPU_LANES_RESAMPLE_H

#include "backends/cpu/vec.h"

#define DEFINE_RESAMPLE(T)                                                                         \
    static void resample_add_##T(void *to_, const void *from_, double weight, int64_t n)           \
    {                                                                                              \
        E_##T *restrict to = to_;                                                                  \
        const E_##T *restrict from = from_;                                                        \
        E_##T w = (E_##T)weight;                                                                   \
        for (int64_t i = 0; i < n; i++) to[i] += w * from[i];                                      \
    }                                                                                              \
    /* to[i] = weight[0] x[at[0]][i] + ..., rows of x `row` elements apart */                      \
    static void resample_blend_##T(void *to_, const void *x_, int64_t row, const int64_t *at,      \
                                   const double *weight, int taps, int64_t n)                      \
    {                                                                                              \
        E_##T *restrict to = to_;                                                                  \
        const E_##T *restrict x = x_;                                                              \
        const E_##T *restrict first = x + at[0] * row;                                             \
        E_##T w = (E_##T)weight[0];                                                                \
        if (taps == 1) {                                                                           \
            memcpy(to, first, (size_t)n * sizeof *to);                                             \
            return;                                                                                \
        }                                                                                          \
        for (int64_t i = 0; i < n; i++) to[i] = w * first[i];                                      \
        for (int k = 1; k < taps; k++) resample_add_##T(to, x + at[k] * row, weight[k], n);        \
    }                                                                                              \
    /* to[i] = weight[i][0] x[at[i][0]] + ... */                                                   \
    static void resample_pick_##T(void *to_, const void *x_, const int64_t *at,                    \
                                  const double *weight, int taps, int64_t n)                       \
    {                                                                                              \
        E_##T *restrict to = to_;                                                                  \
        const E_##T *restrict x = x_;                                                              \
        if (taps == 1)                                                                             \
            for (int64_t i = 0; i < n; i++) to[i] = x[at[i]];                                      \
        else if (taps == 2)                                                                        \
            for (int64_t i = 0; i < n; i++)                                                        \
                to[i] = (E_##T)weight[2 * i] * x[at[2 * i]] +                                      \
                        (E_##T)weight[2 * i + 1] * x[at[2 * i + 1]];                               \
        else                                                                                       \
            for (int64_t i = 0; i < n; i++) {                                                      \
                E_##T s = (E_##T)weight[taps * i] * x[at[taps * i]];                               \
                for (int k = 1; k < taps; k++)                                                     \
                    s += (E_##T)weight[taps * i + k] * x[at[taps * i + k]];                        \
                to[i] = s;                                                                         \
            }                                                                                      \
    }                                                                                              \
    /* x[at[i][k]] += weight[i][k] from[i] */                                                      \
    static void resample_place_##T(void *x_, const void *from_, const int64_t *at,                 \
                                   const double *weight, int taps, int64_t n)                      \
    {                                                                                              \
        E_##T *restrict x = x_;                                                                    \
        const E_##T *restrict from = from_;                                                        \
        for (int64_t i = 0; i < n; i++)                                                            \
            for (int k = 0; k < taps; k++)                                                         \
                x[at[taps * i + k]] += (E_##T)weight[taps * i + k] * from[i];                      \
    }
DEFINE_RESAMPLE(f32)
DEFINE_RESAMPLE(f64)

#define RESAMPLE_ROW(T)                                                                            \
    {                                                                                              \
        resample_add_##T, resample_blend_##T, resample_pick_##T, resample_place_##T                \
    }
#define RESAMPLE_ROWS                                                                              \
    {                                                                                              \
        [SP_FLOAT32] = RESAMPLE_ROW(f32), [SP_FLOAT64] = RESAMPLE_ROW(f64)                         \
    }

#endif
