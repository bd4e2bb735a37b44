/* Loops over whole rows, compiled once per instruction set: statistics, what normalisation does
 * with them, exponentials.
 *
 * Invariants
 * 1. Sums go over blocks of SP_ROWS_BLOCK elements. In a block, lane i of SP_ROWS_LANES takes the
 *    elements i, i + SP_ROWS_LANES, ...; the lanes are added in halves. Blocks are combined in
 *    order, in float64. So a sum's bits depend on the elements alone, on every instruction set.
 * 2. Statistics are float64 whatever the elements are: a block's mean is corrected by the sum of
 *    the differences from it, so that a large mean costs neither mean nor variance their digits.
 * 3. Elementwise results depend on their element and the row's numbers alone. What is written
 *    overlaps nothing that is read.
 */
#ifndef SP_CPU_ROWS_H
#define SP_CPU_ROWS_H

#include "tensor/backend.h"

enum { SP_ROWS_LANES = 32, SP_ROWS_BLOCK = 512, SP_ROWS_COLUMNS = 64 };

/* n elements, their mean, and the sum of the squares of their differences from it. */
typedef struct sp_moments {
    double n, mean, m2;
} sp_moments;

/* The moments of both together (Chan, Golub, LeVeque 1983). */
static inline sp_moments sp__moments_join(sp_moments a, sp_moments b)
{
    double n = a.n + b.n, delta = b.mean - a.mean;
    if (a.n == 0) return b;
    if (b.n == 0) return a;
    return (sp_moments){n, a.mean + delta * (b.n / n),
                        a.m2 + b.m2 + delta * delta * (a.n * (b.n / n))};
}

typedef struct sp_rows {
    sp_moments (*moments)(const void *x, int64_t n);
    /* sum g, sum g (x - mean) */
    void (*sums)(const void *g, const void *x, int64_t n, double mean, double sum[2]);
    /* y = (x - mean) scale + shift */
    void (*apply)(void *y, const void *x, int64_t n, double mean, double scale, double shift);
    /* gx = a gy + b (x - mean) + c */
    void (*back)(void *gx, const void *gy, const void *x, int64_t n, double mean,
                 const double *abc);

    /* With weights and biases along the row, either of which may be NULL:
     * y = (x - mean) rstd weight + bias */
    void (*apply_each)(void *y, const void *x, int64_t n, double mean, double rstd,
                       const void *weight, const void *bias);
    /* With g = gy weight and z = (x - mean) rstd: sum g, sum g z; gw += gy z, and if there is a gb,
     * gb += gy */
    void (*sums_each)(const void *gy, const void *x, const void *weight, int64_t n, double mean,
                      double rstd, void *gw, void *gb, double sum[2]);
    /* gx = (g - a - z b) rstd */
    void (*back_each)(void *gx, const void *gy, const void *x, const void *weight, int64_t n,
                      double mean, double rstd, double a, double b);

    /* The same for each of n <= SP_ROWS_COLUMNS columns of `rows` rows, `stride` elements apart. */
    void (*moments_columns)(const void *x, int64_t rows, int64_t stride, int64_t n,
                            sp_moments *out);
    void (*sums_columns)(const void *g, const void *x, int64_t rows, int64_t stride, int64_t n,
                         const double *mean, double *sum_g, double *sum_gx);
    void (*apply_columns)(void *y, const void *x, int64_t rows, int64_t stride, int64_t n,
                          const double *mean, const double *scale, const double *shift);
    /* a, b, c: one a column */
    void (*back_columns)(void *gx, const void *gy, const void *x, int64_t rows, int64_t stride,
                         int64_t n, const double *mean, const double *const abc[3]);

    /* The largest element, NaN if there is one. n > 0 */
    double (*max)(const void *x, int64_t n);
    /* y = exp(x - shift) where no x exceeds shift; y may be x, or NULL. Returns the sum. */
    double (*exps)(void *y, const void *x, int64_t n, double shift);
    /* y = x * scale */
    void (*scale)(void *y, const void *x, int64_t n, double scale);
    /* y = (x - a) - b */
    void (*less)(void *y, const void *x, int64_t n, double a, double b);
    /* y += x; y = -inf where there is no `keep` */
    void (*add)(void *y, const void *x, int64_t n);
    void (*hide)(void *y, const void *keep, int64_t n);
    /* gx = y (g - sum), gx = g - exp(y) sum where no y exceeds 0 */
    void (*softmax_back)(void *gx, const void *g, const void *y, int64_t n, double sum);
    void (*log_softmax_back)(void *gx, const void *g, const void *y, int64_t n, double sum);
} sp_rows;

#endif
