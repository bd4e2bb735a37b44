/* Inner loops of direct convolutions (conv_direct.c), for lanes.c: blocks of sums in registers, of
 * some channels of the result by some vectors of its positions, or by some kernel elements.
 *
 * Every sum takes its products in the order of k (of spots, for the gradient of w), by fused
 * multiply-adds where the instruction set has them, whatever block it lies in.
 */
#ifndef SP_CPU_LANES_CONV_H
#define SP_CPU_LANES_CONV_H

#include "backends/cpu/lanes.h"
#include "backends/cpu/vec.h"

/* ROWS channels by SPOTS vectors: about a dozen sums, which hide the latency of an addition and
 * leave registers for what they are made of. Missing spots repeat the first one, and are not
 * stored. */
#define DEFINE_CONV_BLOCK(T, MUL_ADD, ROWS, SPOTS)                                                 \
    static void conv_block_##ROWS##_##T(const sp_conv_spot *spot, int64_t n, const E_##T *x,       \
                                        const int64_t *offset, int64_t k, const E_##T *w,          \
                                        const E_##T *start, bool more, E_##T *y, int64_t y_row)    \
    {                                                                                              \
        const E_##T *at[SPOTS];                                                                    \
        V_##T sum[ROWS][SPOTS];                                                                    \
        for (int s = 0; s < SPOTS; s++) {                                                          \
            const sp_conv_spot *here = &spot[s < n ? s : 0];                                       \
            at[s] = x + here->x;                                                                   \
            for (int r = 0; r < ROWS; r++)                                                         \
                sum[r][s] = more    ? some_##T(y + r * y_row + here->y, here->n)                   \
                            : start ? splat_##T(start[r])                                          \
                                    : (V_##T){0};                                                  \
        }                                                                                          \
        for (int64_t i = 0; i < k; i++, w += ROWS) {                                               \
            V_##T v[SPOTS];                                                                        \
            for (int s = 0; s < SPOTS; s++) v[s] = load_##T(at[s] + offset[i]);                    \
            for (int r = 0; r < ROWS; r++) {                                                       \
                V_##T weight = splat_##T(w[r]);                                                    \
                for (int s = 0; s < SPOTS; s++) sum[r][s] = MUL_ADD(weight, v[s], sum[r][s]);      \
            }                                                                                      \
        }                                                                                          \
        for (int s = 0; s < SPOTS; s++)                                                            \
            for (int r = 0; r < ROWS && s < n; r++)                                                \
                put_##T(y + r * y_row + spot[s].y, sum[r][s], spot[s].n);                          \
    }                                                                                              \
    ALWAYS_INLINE void conv_blocks_##ROWS##_##T(                                                   \
        const sp_conv_spot *spot, int64_t n, const E_##T *x, const int64_t *offset, int64_t k,     \
        const E_##T *w, const E_##T *start, bool more, E_##T *y, int64_t y_row)                    \
    {                                                                                              \
        for (int64_t s = 0; s < n; s += SPOTS)                                                     \
            conv_block_##ROWS##_##T(spot + s, n - s, x, offset, k, w, start, more, y, y_row);      \
    }

/* Loads that begin anywhere in a cache line of 64 bytes take two cycles where a vector is as long:
 * twice the sums, for which AVX-512 has the registers, ask for half as many. */
#if VB == 64
#define CONV_SUMS(n) (2 * (n))
#define CONV_KEPT(v) __asm__("" : "+v"(v))
#else
#define CONV_SUMS(n) (n)
#define CONV_KEPT(v) __asm__("" : "+x"(v))
#endif

/* ROWS channels by OFFSETS kernel elements, each a vector of sums over all spots, then one number.
 * tails: spots are shorter than a vector; what lies outside is 0, of x too: 0 times infinity would
 * not be. */
#define DEFINE_CONV_SHARE(T, MUL_ADD, ROWS, OFFSETS)                                               \
    ALWAYS_INLINE void conv_share_##ROWS##_##T(                                                    \
        bool tails, const sp_conv_spot *spot, int64_t n_spots, const E_##T *x,                     \
        const int64_t *offset, int64_t n, const E_##T *y, int64_t y_row, E_##T *w, int64_t w_row)  \
    {                                                                                              \
        const E_##T *at[OFFSETS];                                                                  \
        V_##T sum[ROWS][OFFSETS];                                                                  \
        for (int i = 0; i < OFFSETS; i++) {                                                        \
            at[i] = x + offset[i < n ? i : 0];                                                     \
            for (int r = 0; r < ROWS; r++) sum[r][i] = (V_##T){0};                                 \
        }                                                                                          \
        for (const sp_conv_spot *s = spot; s < spot + n_spots; s++) {                              \
            V_##T v[OFFSETS];                                                                      \
            for (int i = 0; i < OFFSETS; i++)                                                      \
                v[i] = tails ? first_##T(load_##T(at[i] + s->x), s->n) : load_##T(at[i] + s->x);   \
            for (int r = 0; r < ROWS; r++) {                                                       \
                const E_##T *from = y + r * y_row + s->y;                                          \
                V_##T slope = tails ? pad_##T(from, s->n) : load_##T(from);                        \
                CONV_KEPT(slope); /* the compiler would load it for each sum */                    \
                for (int i = 0; i < OFFSETS; i++) sum[r][i] = MUL_ADD(slope, v[i], sum[r][i]);     \
            }                                                                                      \
        }                                                                                          \
        for (int i = 0; i < OFFSETS; i++)                                                          \
            for (int r = 0; r < ROWS && i < n; r++) w[r * w_row + i] += total_##T(sum[r][i]);      \
    }                                                                                              \
    static void conv_shares_##ROWS##_##T(bool tails, const sp_conv_spot *spot, int64_t n_spots,    \
                                         const E_##T *x, const int64_t *offset, int64_t k,         \
                                         const E_##T *y, int64_t y_row, E_##T *w, int64_t w_row)   \
    {                                                                                              \
        for (int64_t i = 0; i < k; i += OFFSETS)                                                   \
            if (tails)                                                                             \
                conv_share_##ROWS##_##T(true, spot, n_spots, x, offset + i, k - i, y, y_row,       \
                                        w + i, w_row);                                             \
            else                                                                                   \
                conv_share_##ROWS##_##T(false, spot, n_spots, x, offset + i, k - i, y, y_row,      \
                                        w + i, w_row);                                             \
    }

/* All channels, four at a time, then two, then one. w is packed by such blocks for the result
 * (conv_direct.c), as its dtype has it for the gradient. */
#define DEFINE_CONV(T, LANE, MUL_ADD)                                                              \
    ALWAYS_INLINE V_##T some_##T(const E_##T *p, int64_t n)                                        \
    {                                                                                              \
        return n == N_##T ? load_##T(p) : pad_##T(p, n);                                           \
    }                                                                                              \
    ALWAYS_INLINE void put_##T(E_##T *p, V_##T v, int64_t n)                                       \
    {                                                                                              \
        if (n == N_##T)                                                                            \
            store_##T(p, v);                                                                       \
        else                                                                                       \
            store_some_##T(p, v, n);                                                               \
    }                                                                                              \
    ALWAYS_INLINE V_##T first_##T(V_##T v, int64_t n)                                              \
    {                                                                                              \
        static const LANE ones[2 * N_##T] = {[0 ... N_##T - 1] = -1};                              \
        M_##T mask;                                                                                \
        memcpy(&mask, ones + N_##T - n, sizeof mask);                                              \
        return (V_##T)((M_##T)v & mask);                                                           \
    }                                                                                              \
    ALWAYS_INLINE E_##T total_##T(V_##T v)                                                         \
    {                                                                                              \
        E_##T lane[N_##T];                                                                         \
        store_##T(lane, v); /* v[i] would keep all sums in memory */                               \
        for (int n = N_##T / 2; n > 0; n /= 2)                                                     \
            for (int i = 0; i < n; i++) lane[i] += lane[i + n];                                    \
        return lane[0];                                                                            \
    }                                                                                              \
    DEFINE_CONV_BLOCK(T, MUL_ADD, 4, 3)                                                            \
    DEFINE_CONV_BLOCK(T, MUL_ADD, 2, 6)                                                            \
    DEFINE_CONV_BLOCK(T, MUL_ADD, 1, 8)                                                            \
    DEFINE_CONV_SHARE(T, MUL_ADD, 4, CONV_SUMS(3))                                                 \
    DEFINE_CONV_SHARE(T, MUL_ADD, 2, CONV_SUMS(5))                                                 \
    DEFINE_CONV_SHARE(T, MUL_ADD, 1, CONV_SUMS(9))                                                 \
    static void conv_result_##T(const sp_conv_spot *spot, int64_t n_spots, const void *x,          \
                                const int64_t *offset, int64_t k, const void *w_, int64_t rows,    \
                                const void *start_, bool more, void *y_, int64_t y_row)            \
    {                                                                                              \
        const E_##T *w = w_, *start = start_;                                                      \
        E_##T *y = y_;                                                                             \
        while (rows > 0) {                                                                         \
            int block = rows >= 4 ? 4 : rows >= 2 ? 2 : 1;                                         \
            if (block == 4)                                                                        \
                conv_blocks_4_##T(spot, n_spots, x, offset, k, w, start, more, y, y_row);          \
            else if (block == 2)                                                                   \
                conv_blocks_2_##T(spot, n_spots, x, offset, k, w, start, more, y, y_row);          \
            else                                                                                   \
                conv_blocks_1_##T(spot, n_spots, x, offset, k, w, start, more, y, y_row);          \
            w += block * k, y += block * y_row, rows -= block;                                     \
            if (start) start += block;                                                             \
        }                                                                                          \
    }                                                                                              \
    static void conv_weight_##T(const sp_conv_spot *spot, int64_t n_spots, const void *x,          \
                                const int64_t *offset, int64_t k, const void *y_, int64_t y_row,   \
                                int64_t rows, void *w_, int64_t w_row)                             \
    {                                                                                              \
        const E_##T *y = y_;                                                                       \
        E_##T *w = w_;                                                                             \
        if (n_spots == 0) return;                                                                  \
        bool tails = spot->n < N_##T;                                                              \
        while (rows > 0) {                                                                         \
            int block = rows >= 4 ? 4 : rows >= 2 ? 2 : 1;                                         \
            if (block == 4)                                                                        \
                conv_shares_4_##T(tails, spot, n_spots, x, offset, k, y, y_row, w, w_row);         \
            else if (block == 2)                                                                   \
                conv_shares_2_##T(tails, spot, n_spots, x, offset, k, y, y_row, w, w_row);         \
            else                                                                                   \
                conv_shares_1_##T(tails, spot, n_spots, x, offset, k, y, y_row, w, w_row);         \
            w += block * w_row, y += block * y_row, rows -= block;                                 \
        }                                                                                          \
    }
DEFINE_CONV(f32, int32_t, MUL_ADD_F32)
DEFINE_CONV(f64, int64_t, MUL_ADD_F64)

#define CONV_ROWS                                                                                  \
    {                                                                                              \
        [SP_FLOAT32] = {N_f32, conv_result_f32, conv_weight_f32}, [SP_FLOAT64] = {                 \
            N_f64,                                                                                 \
            conv_result_f64,                                                                       \
            conv_weight_f64                                                                        \
        }                                                                                          \
    }

#endif
