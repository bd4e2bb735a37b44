/* Inner loops of pooling (pooling.h), for lanes.c: over whole vectors of scratch memory, which has
 * room for one more vector behind its last element.
 *
 * Element i of a result combines x[offset[0] + i], x[offset[1] + i], ... in that order.
 */
#ifndef SP_CPU_LANES_POOLING_H
#define SP_CPU_LANES_POOLING_H

#include "backends/cpu/vec.h"

enum { POOL_TOGETHER = 4 }; /* vectors */

/* Of two elements that are x[] at two offsets, in order: equal, the first one stays. */
#define POOL_LARGER(T, b, v) SELECT(v != v, v, larger_of_##T(v, b))
#define larger_of_i64(v, b)  SELECT(v > b, v, b)

/* Vectors i .. i + W - 1 at a time, so that what a step costs is shared by them. at: as wide as an
 * element. Of equal elements the first one stays, of NaN the last one. */
#define DEFINE_POOL_MAX(T, PLACE)                                                                  \
    ALWAYS_INLINE void pool_max_some_##T(E_##T *best, PLACE *at, const E_##T *x,                   \
                                         const int64_t *offset, const int64_t *place, int64_t k,   \
                                         const int W)                                              \
    {                                                                                              \
        typedef V_##T V;                                                                           \
        typedef M_##T M;                                                                           \
        V b[POOL_TOGETHER];                                                                        \
        M a[POOL_TOGETHER];                                                                        \
        for (int j = 0; j < W; j++)                                                                \
            b[j] = load_##T(x + offset[0] + j * N_##T), a[j] = (M){0} + (PLACE)place[0];           \
        for (int64_t q = 1; q < k; q++) {                                                          \
            M here = (M){0} + (PLACE)place[q];                                                     \
            for (int j = 0; j < W; j++) {                                                          \
                V v = load_##T(x + offset[q] + j * N_##T);                                         \
                M take = (v > b[j]) | (v != v);                                                    \
                b[j] = SELECT(take, v, b[j]);                                                      \
                a[j] = (take & here) | (~take & a[j]);                                             \
            }                                                                                      \
        }                                                                                          \
        for (int j = 0; j < W; j++) {                                                              \
            store_##T(best + j * N_##T, b[j]);                                                     \
            memcpy(at + j * N_##T, &a[j], sizeof a[j]);                                            \
        }                                                                                          \
    }                                                                                              \
    static void pool_max_##T(void *best, void *at, const void *x, const int64_t *offset,           \
                             const int64_t *place, int64_t k, int64_t n)                           \
    {                                                                                              \
        const E_##T *from = x;                                                                     \
        int64_t i = 0;                                                                             \
        for (; i + POOL_TOGETHER * N_##T <= n; i += POOL_TOGETHER * N_##T)                         \
            pool_max_some_##T((E_##T *)best + i, (PLACE *)at + i, from + i, offset, place, k,      \
                              POOL_TOGETHER);                                                      \
        for (; i < n; i += N_##T)                                                                  \
            pool_max_some_##T((E_##T *)best + i, (PLACE *)at + i, from + i, offset, place, k, 1);  \
    }                                                                                              \
    ALWAYS_INLINE void pool_most_some_##T(E_##T *best, const E_##T *x, const int64_t *offset,      \
                                          int64_t k, const int W)                                  \
    {                                                                                              \
        typedef V_##T V;                                                                           \
        typedef M_##T M;                                                                           \
        V b[POOL_TOGETHER];                                                                        \
        for (int j = 0; j < W; j++) b[j] = load_##T(x + offset[0] + j * N_##T);                    \
        for (int64_t q = 1; q < k; q++) {                                                          \
            for (int j = 0; j < W; j++) {                                                          \
                V v = load_##T(x + offset[q] + j * N_##T);                                         \
                b[j] = POOL_LARGER(T, b[j], v);                                                    \
            }                                                                                      \
        }                                                                                          \
        for (int j = 0; j < W; j++) store_##T(best + j * N_##T, b[j]);                             \
    }                                                                                              \
    static void pool_most_##T(void *best, const void *x, const int64_t *offset, int64_t k,         \
                              int64_t n)                                                           \
    {                                                                                              \
        const E_##T *from = x;                                                                     \
        int64_t i = 0;                                                                             \
        for (; i + POOL_TOGETHER * N_##T <= n; i += POOL_TOGETHER * N_##T)                         \
            pool_most_some_##T((E_##T *)best + i, from + i, offset, k, POOL_TOGETHER);             \
        for (; i < n; i += N_##T) pool_most_some_##T((E_##T *)best + i, from + i, offset, k, 1);   \
    }                                                                                              \
    /* to[r][i] = at[r][i] + first + r * row + i * step; rows of at `wide` apart, of `to` dense */ \
    static void pool_places_##T(int64_t *to, const void *at, int64_t rows, int64_t n,              \
                                int64_t wide, int64_t first, int64_t row, int64_t step)            \
    {                                                                                              \
        const PLACE *from = at;                                                                    \
        for (int64_t r = 0; r < rows; r++, from += wide, to += n, first += row)                    \
            for (int64_t i = 0; i < n; i++) to[i] = from[i] + first + i * step;                    \
    }

#define DEFINE_POOL_SUM(T)                                                                         \
    static void pool_sum_##T(void *sum, const void *x, const int64_t *offset, int64_t k,           \
                             int64_t n)                                                            \
    {                                                                                              \
        for (int64_t i = 0; i < n; i += N_##T) {                                                   \
            const E_##T *from = (const E_##T *)x + i;                                              \
            V_##T s = load_##T(from + offset[0]);                                                  \
            for (int64_t q = 1; q < k; q++) s += load_##T(from + offset[q]);                       \
            store_##T((E_##T *)sum + i, s);                                                        \
        }                                                                                          \
    }                                                                                              \
    /* to[r][i] = from[r][i] / (down[r] * across[i]) */                                            \
    static void pool_divide_##T(void *to_, int64_t to_row, const void *from_, int64_t from_row,    \
                                int64_t rows, int64_t n, const double *down, const void *across_)  \
    {                                                                                              \
        const E_##T *from = from_, *across = across_;                                              \
        E_##T *to = to_;                                                                           \
        for (int64_t r = 0; r < rows; r++, from += from_row, to += to_row)                         \
            for (int64_t i = 0; i < n; i++) to[i] = from[i] / ((E_##T)down[r] * across[i]);        \
    }

/* Fewer bytes than a vector has, at least 4, in two pieces that may overlap. */
#define COPY_TWICE(size)                                                                           \
    if (n >= (size)) {                                                                             \
        memcpy(to, from, size);                                                                    \
        memcpy(to + n - (size), from + n - (size), size);                                          \
        return;                                                                                    \
    }
ALWAYS_INLINE void copy_few(char *to, const char *from, int64_t n)
{
    COPY_TWICE(32)
    COPY_TWICE(16)
    COPY_TWICE(8)
    if (n > 0) memcpy(to, from, 4);
}

/* Less than a vector: masked where that is one instruction, else in pieces. */
#if VB == 64
#define DEFINE_POOL_FEW(T)                                                                         \
    ALWAYS_INLINE void few_##T(E_##T *to, const E_##T *from, int64_t n)                            \
    {                                                                                              \
        store_some_##T(to, pad_##T(from, n), n);                                                   \
    }
#else
#define DEFINE_POOL_FEW(T)                                                                         \
    ALWAYS_INLINE void few_##T(E_##T *to, const E_##T *from, int64_t n)                            \
    {                                                                                              \
        copy_few((char *)to, (const char *)from, n *(int64_t)sizeof *to);                          \
    }
#endif

/* One row, by vectors of which the last one overlaps: rows are short, and their ends would cost
 * more than they do. */
#define DEFINE_POOL_ROW(T)                                                                         \
    DEFINE_POOL_FEW(T)                                                                             \
    ALWAYS_INLINE void copy_row_##T(E_##T *to, const E_##T *from, int64_t n)                       \
    {                                                                                              \
        if (n < N_##T) {                                                                           \
            few_##T(to, from, n);                                                                  \
            return;                                                                                \
        }                                                                                          \
        for (int64_t i = 0; i + N_##T < n; i += N_##T) store_##T(to + i, load_##T(from + i));      \
        store_##T(to + n - N_##T, load_##T(from + n - N_##T));                                     \
    }                                                                                              \
    ALWAYS_INLINE void clear_row_##T(E_##T *to, int64_t n)                                         \
    {                                                                                              \
        static const E_##T zeros[N_##T];                                                           \
        if (n < N_##T) {                                                                           \
            few_##T(to, zeros, n);                                                                 \
            return;                                                                                \
        }                                                                                          \
        for (int64_t i = 0; i + N_##T < n; i += N_##T) store_##T(to + i, (V_##T){0});              \
        store_##T(to + n - N_##T, (V_##T){0});                                                     \
    }                                                                                              \
    ALWAYS_INLINE void add_row_##T(E_##T *to, const E_##T *from, int64_t n)                        \
    {                                                                                              \
        int64_t i = 0;                                                                             \
        for (; i + N_##T <= n; i += N_##T)                                                         \
            store_##T(to + i, load_##T(to + i) + load_##T(from + i));                              \
        for (; i < n; i++) to[i] += from[i];                                                       \
    }

/* Rows of every step-th element to rows of dense ones, and back. The compiler makes shuffles of
 * step 2. */
#define DEFINE_POOL_STEPS(T)                                                                       \
    ALWAYS_INLINE void steps_##T(E_##T *to, int64_t to_row, int64_t to_step, const E_##T *from,    \
                                 int64_t from_row, int64_t from_step, int64_t rows, int64_t n)     \
    {                                                                                              \
        for (int64_t r = 0; r < rows; r++, to += to_row, from += from_row)                         \
            for (int64_t i = 0; i < n; i++) to[i * to_step] = from[i * from_step];                 \
    }                                                                                              \
    static void pool_take_##T(void *to, int64_t to_row, const void *from, int64_t from_row,        \
                              int64_t step, int64_t rows, int64_t n)                               \
    {                                                                                              \
        if (step == 1)                                                                             \
            for (int64_t r = 0; r < rows; r++)                                                     \
                copy_row_##T((E_##T *)to + r * to_row, (const E_##T *)from + r * from_row, n);     \
        else if (step == 2)                                                                        \
            steps_##T(to, to_row, 1, from, from_row, 2, rows, n);                                  \
        else                                                                                       \
            steps_##T(to, to_row, 1, from, from_row, step, rows, n);                               \
    }                                                                                              \
    static void pool_put_##T(void *to, int64_t to_row, int64_t step, const void *from,             \
                             int64_t from_row, int64_t rows, int64_t n)                            \
    {                                                                                              \
        if (step == 1)                                                                             \
            steps_##T(to, to_row, 1, from, from_row, 1, rows, n);                                  \
        else                                                                                       \
            steps_##T(to, to_row, step, from, from_row, 1, rows, n);                               \
    }

/* Every other element of from, which ends with the last one taken. */
#if VB == 64
#define DEFINE_POOL_EVENS(T, PICK, INDEX, CAST)                                                    \
    ALWAYS_INLINE void evens_##T(E_##T *to, const E_##T *from, int64_t n)                          \
    {                                                                                              \
        for (int64_t i = 0; i < n; i += N_##T) {                                                   \
            int64_t left = 2 * (n - i) - 1, more = left - N_##T, some = n - i;                     \
            V_##T low = left < N_##T ? pad_##T(from + 2 * i, left) : load_##T(from + 2 * i),       \
                  high = pad_##T(from + 2 * i + N_##T, more < 0           ? 0                      \
                                                       : more < N_##T - 1 ? more                   \
                                                                          : N_##T - 1);            \
            store_some_##T(to + i, (V_##T)PICK((CAST)low, INDEX, (CAST)high),                      \
                           some < N_##T ? some : N_##T);                                           \
        }                                                                                          \
    }
#define EVENS_16 _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0)
#define EVENS_8  _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0)
DEFINE_POOL_EVENS(f32, _mm512_permutex2var_ps, EVENS_16, __m512)
DEFINE_POOL_EVENS(f64, _mm512_permutex2var_pd, EVENS_8, __m512d)
DEFINE_POOL_EVENS(i64, _mm512_permutex2var_epi64, EVENS_8, __m512i)
#else
#define DEFINE_POOL_EVENS(T)                                                                       \
    ALWAYS_INLINE void evens_##T(E_##T *to, const E_##T *from, int64_t n)                          \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++) to[i] = from[2 * i]; /* the compiler makes shuffles */     \
    }
DEFINE_POOL_EVENS(f32)
DEFINE_POOL_EVENS(f64)
DEFINE_POOL_EVENS(i64)
#endif

/* A row of x in a row of `width`, zeros before and after; and a row back into x, added. */
#define DEFINE_POOL_FRAME(T)                                                                       \
    static void pool_frame_##T(void *to_, int64_t width, int64_t first, const void *from_,         \
                               int64_t from_row, int64_t step, int64_t rows, int64_t n)            \
    {                                                                                              \
        const E_##T *from = from_;                                                                 \
        E_##T *to = to_;                                                                           \
        for (int64_t r = 0; r < rows; r++, to += width, from += from_row) {                        \
            bool whole = step == 1 && n < width;                                                   \
            clear_row_##T(to, whole ? width : first); /* ends would cost more than the row */      \
            if (step == 1)                                                                         \
                copy_row_##T(to + first, from, n);                                                 \
            else if (step == 2)                                                                    \
                evens_##T(to + first, from, n);                                                    \
            else                                                                                   \
                for (int64_t i = 0; i < n; i++) to[first + i] = from[i * step];                    \
            if (!whole) clear_row_##T(to + first + n, width - first - n);                          \
        }                                                                                          \
    }                                                                                              \
    static void pool_add_##T(void *to_, int64_t to_row, int64_t step, const void *from_,           \
                             int64_t from_row, int64_t rows, int64_t n)                            \
    {                                                                                              \
        const E_##T *from = from_;                                                                 \
        E_##T *to = to_;                                                                           \
        for (int64_t r = 0; r < rows; r++, to += to_row, from += from_row) {                       \
            if (step == 1)                                                                         \
                add_row_##T(to, from, n);                                                          \
            else                                                                                   \
                for (int64_t i = 0; i < n; i++) to[i * step] += from[i];                           \
        }                                                                                          \
    }

/* One plane's windows that share it out: rows start[0][i] to end[0][i], columns likewise. Rows are
 * combined first, then what they made. room: a row of elements, twice. Of equal elements the first
 * one in row-major order stays, of NaN the last one. */
#define DEFINE_POOL_SHARES(T, PLACE)                                                               \
    static void pool_share_##T(void *y_, const void *x_, const int64_t *in, const int64_t *out,    \
                               const int64_t *const *start, const int64_t *const *end, void *room) \
    {                                                                                              \
        const E_##T *x = x_;                                                                       \
        E_##T *y = y_, *sum = room;                                                                \
        int64_t width = in[1];                                                                     \
        for (int64_t i = 0; i < out[0]; i++) {                                                     \
            int64_t r = start[0][i], rows = end[0][i] - r;                                         \
            memcpy(sum, x + r * width, (size_t)width * sizeof *sum);                               \
            for (r++; r < end[0][i]; r++) add_row_##T(sum, x + r * width, width);                  \
            for (int64_t k = 0; k < out[1]; k++) {                                                 \
                int64_t first = start[1][k], last = end[1][k];                                     \
                E_##T s = 0;                                                                       \
                for (int64_t c = first; c < last; c++) s += sum[c];                                \
                *y++ = s / (E_##T)(rows * (last - first));                                         \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    static void pool_spread_##T(void *x_, const void *y_, const int64_t *in, const int64_t *out,   \
                                const int64_t *const *start, const int64_t *const *end,            \
                                void *room)                                                        \
    {                                                                                              \
        const E_##T *y = y_;                                                                       \
        E_##T *x = x_, *sum = room;                                                                \
        int64_t width = in[1];                                                                     \
        memset(x, 0, (size_t)(in[0] * width) * sizeof *x);                                         \
        for (int64_t i = 0; i < out[0]; i++) {                                                     \
            int64_t rows = end[0][i] - start[0][i];                                                \
            memset(sum, 0, (size_t)width * sizeof *sum);                                           \
            for (int64_t k = 0; k < out[1]; k++) {                                                 \
                int64_t first = start[1][k], last = end[1][k];                                     \
                E_##T s = *y++ / (E_##T)(rows * (last - first));                                   \
                for (int64_t c = first; c < last; c++) sum[c] += s;                                \
            }                                                                                      \
            for (int64_t r = start[0][i]; r < end[0][i]; r++)                                      \
                add_row_##T(x + r * width, sum, width);                                            \
        }                                                                                          \
    }                                                                                              \
    ALWAYS_INLINE void max_row_##T(E_##T *restrict best, PLACE *restrict at,                       \
                                   const E_##T *restrict x, PLACE row, int64_t n)                  \
    {                                                                                              \
        for (int64_t c = 0; c < n; c++) {                                                          \
            bool take = (x[c] > best[c]) | (x[c] != x[c]);                                         \
            at[c] = take ? row : at[c];                                                            \
            best[c] = take ? x[c] : best[c];                                                       \
        }                                                                                          \
    }                                                                                              \
    /* Whether the best of a column goes before that of one to its left. */                        \
    ALWAYS_INLINE bool beats_##T(E_##T x, PLACE at, E_##T y, PLACE y_at)                           \
    {                                                                                              \
        if (x != x) return y == y || at >= y_at;                                                   \
        return x > y || (x == y && at < y_at);                                                     \
    }                                                                                              \
    static void pool_largest_##T(void *y_, int64_t *places, const void *x_, const int64_t *in,     \
                                 const int64_t *out, const int64_t *const *start,                  \
                                 const int64_t *const *end, void *room)                            \
    {                                                                                              \
        const E_##T *x = x_;                                                                       \
        int64_t width = in[1];                                                                     \
        E_##T *y = y_, *best = room;                                                               \
        PLACE *at = (PLACE *)(best + width);                                                       \
        for (int64_t i = 0; i < out[0]; i++) {                                                     \
            int64_t r = start[0][i];                                                               \
            memcpy(best, x + r * width, (size_t)width * sizeof *best);                             \
            for (int64_t c = 0; c < width; c++) at[c] = (PLACE)r;                                  \
            for (r++; r < end[0][i]; r++) max_row_##T(best, at, x + r * width, (PLACE)r, width);   \
            for (int64_t k = 0; k < out[1]; k++) {                                                 \
                int64_t b = start[1][k], last = end[1][k];                                         \
                for (int64_t c = b + 1; c < last; c++)                                             \
                    if (beats_##T(best[c], at[c], best[b], at[b])) b = c;                          \
                *y++ = best[b], *places++ = (int64_t)at[b] * width + b;                            \
            }                                                                                      \
        }                                                                                          \
    }

DEFINE_POOL_MAX(f32, int32_t)
DEFINE_POOL_MAX(f64, int64_t)
DEFINE_POOL_MAX(i64, int64_t)
DEFINE_POOL_SUM(f32)
DEFINE_POOL_SUM(f64)
DEFINE_POOL_ROW(f32)
DEFINE_POOL_ROW(f64)
DEFINE_POOL_ROW(i64)
DEFINE_POOL_STEPS(f32)
DEFINE_POOL_STEPS(i64)
DEFINE_POOL_FRAME(f32)
DEFINE_POOL_FRAME(f64)
DEFINE_POOL_SHARES(f32, int32_t)
DEFINE_POOL_SHARES(f64, int64_t)

#define POOL_MOVES(T, bits)                                                                        \
    .max = pool_max_##T, .most = pool_most_##T, .places = pool_places_##T,                         \
    .take = pool_take_##bits, .put = pool_put_##bits
#define POOL_MEANS(T)                                                                              \
    .sum = pool_sum_##T, .divide = pool_divide_##T, .add = pool_add_##T, .frame = pool_frame_##T,  \
    .share = pool_share_##T, .spread = pool_spread_##T, .largest = pool_largest_##T
#define POOL_ROWS                                                                                  \
    {                                                                                              \
        [SP_FLOAT32] = {POOL_MOVES(f32, f32), POOL_MEANS(f32)},                                    \
        [SP_FLOAT64] = {POOL_MOVES(f64, i64), POOL_MEANS(f64)}, [SP_INT64] = {                     \
            POOL_MOVES(i64, i64)                                                                   \
        }                                                                                          \
    }

#endif
