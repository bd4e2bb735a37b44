/* The plain versions of the kernels: one element at a time, no vectors, no threads. Tests compare
 * the fast ones with them.
 */
#ifndef SP_CPU_REFERENCE_H
#define SP_CPU_REFERENCE_H

#include <math.h>
#include <string.h>

#include "backends/cpu/strided.h"

/* The element at a row-major position, as a double (int64 values below 2^53). */
static inline double sp__ref_get(const sp_operand *x, int64_t position)
{
    sp_scalar s = sp__scalar_from(sp__element_at(x, position), x->dtype);
    return s.kind == SP_FLOAT64 ? s.v.f : (double)s.v.i;
}

static inline void sp__ref_set(const sp_operand *x, int64_t position, double value)
{
    sp__scalar_to(SP_FLOAT(value), x->dtype, sp__element_at(x, position));
}

/* op(x, y, z) in double. */
typedef double (*sp_ref_fn)(double x, double y, double z);

static inline void sp__ref_pointwise(sp_ref_fn op, const sp_operand *out,
                                     const sp_operand *const *in, int n_in)
{
    for (int64_t i = 0; i < out->numel; i++) {
        double v[3] = {0, 0, 0};
        for (int k = 0; k < n_in; k++) v[k] = sp__ref_get(in[k], in[k]->numel == 1 ? 0 : i);
        sp__ref_set(out, i, op(v[0], v[1], v[2]));
    }
}

/* Sum (or maximum) of x over the dimensions in `mask`; out is dense, one double an output in
 * row-major order. */
static inline void sp__ref_reduce(bool max, const sp_operand *x, unsigned mask, double *out)
{
    int64_t outputs = 1;
    for (int d = 0; d < x->rank; d++) outputs *= mask >> d & 1 ? 1 : x->shape[d];
    for (int64_t i = 0; i < outputs; i++) out[i] = max ? -INFINITY : 0;
    for (int64_t i = 0; i < x->numel; i++) {
        int64_t rest = i, at = 0, step = 1;
        for (int d = x->rank - 1; d >= 0; d--) {
            if (!(mask >> d & 1)) at += rest % x->shape[d] * step, step *= x->shape[d];
            rest /= x->shape[d];
        }
        double v = sp__ref_get(x, i);
        out[at] = !max ? out[at] + v : isnan(v) || v > out[at] ? v : out[at];
    }
}

/* c[m][n] = a[m][k] b[k][n], matrices of any strides; c dense. */
static inline void sp__ref_matmul(const sp_operand *a, const sp_operand *b, double *c)
{
    int64_t m = a->shape[0], k = a->shape[1], n = b->shape[1];
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < k; p++)
                sum += sp__ref_get(a, i * k + p) * sp__ref_get(b, p * n + j);
            c[i * n + j] = sum;
        }
    }
}

#endif
