/* The inner loops of the steps of optimizers, for lanes.c: whole vectors, and what is left over as
 * one masked vector, through the same function (update_steps.h).
 */
#ifndef SP_CPU_UPDATE_LANES_H
#define SP_CPU_UPDATE_LANES_H

#include "backends/cpu/lanes.h"
#include "backends/cpu/vec.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b)  JOIN_(a, b)

#define T f32
#include "backends/cpu/update_steps.h"
#undef T
#define T f64
#include "backends/cpu/update_steps.h"
#undef T

#define DEFINE_UPDATE_LOOP(T, step, n_states)                                                      \
    static void update_##step##_##T(char *const *out, const char *const *in, int64_t n,            \
                                    const sp_update *given)                                        \
    {                                                                                              \
        const sp_update u = *given; /* nothing stored changes it */                                \
        V_##T s[n_states], g;                                                                      \
        int64_t at = 0, size = sizeof(E_##T);                                                      \
        for (; at + N_##T <= n; at += N_##T) {                                                     \
            for (int j = 0; j < n_states; j++) s[j] = load_##T(in[j] + at * size);                 \
            g = load_##T(in[n_states] + at * size);                                                \
            step##_##T(s, g, &u);                                                                  \
            for (int j = 0; j < n_states; j++) store_##T(out[j] + at * size, s[j]);                \
        }                                                                                          \
        if (at == n) return;                                                                       \
        for (int j = 0; j < n_states; j++) s[j] = pad_##T(in[j] + at * size, n - at);              \
        g = pad_##T(in[n_states] + at * size, n - at);                                             \
        step##_##T(s, g, &u);                                                                      \
        for (int j = 0; j < n_states; j++) store_some_##T(out[j] + at * size, s[j], n - at);       \
    }
#define SP_UPDATE(kind, step, n_states)                                                            \
    DEFINE_UPDATE_LOOP(f32, step, n_states)                                                        \
    DEFINE_UPDATE_LOOP(f64, step, n_states)
#include "backends/cpu/update_kinds.h"

#define SP_UPDATE(kind, step, n_states)                                                            \
    [kind] = {[SP_FLOAT32] = update_##step##_f32, [SP_FLOAT64] = update_##step##_f64},
static const sp_update_fn updates[SP_UPDATE_KINDS][SP_DTYPE_COUNT] = {
#include "backends/cpu/update_kinds.h"
};

#endif
