/* What derivative formulas of the op table call beyond ops: `keep_dims(gy, x.meta, dim, keepdim)`
 * in a formula is sp__rule_keep_dims() here.
 *
 * Invariants
 * 1. A rule is made of public ops alone and reads no values, so that it can be recorded,
 * transformed and traced like the formula it stands in. It may branch on geometry, dtypes and
 * attributes.
 * 2. Tensors are borrowed; *out is a new reference, and NULL on failure.
 * 3. A rule for input x yields a gradient of x's shape and dtype.
 */
#ifndef SP_RULES_H
#define SP_RULES_H

#include "ops/op.h"

/* ---- any op ----- */

/* g summed to m's shape, which broadcasts to g's, in m's dtype. */
SP_MUST_USE sp_status sp__rule_sum_to(const sp_tensor *g, const sp_meta *m, sp_tensor **out);
/* t broadcast to like's shape, in like's dtype. */
SP_MUST_USE sp_status sp__rule_expand_like(const sp_tensor *t, const sp_tensor *like,
                                           sp_tensor **out);
/* t, or zeros like `like` where t is NULL. */
SP_MUST_USE sp_status sp__rule_or_zeros(const sp_tensor *t, const sp_tensor *like, sp_tensor **out);

/* ---- pointwise ----- */

/* x ** e: gy * e * x ** (e - 1), zero everywhere for e = 0. */
SP_MUST_USE sp_status sp__rule_pow_vjp(const sp_tensor *gy, const sp_tensor *x, sp_scalar e,
                                       sp_tensor **out);

/* x ** e with respect to e: gy * out * log(x), 0 where x is 0 and e is not below. */
SP_MUST_USE sp_status sp__rule_pow_exponent_vjp(const sp_tensor *gy, const sp_tensor *x,
                                                const sp_tensor *e, const sp_tensor *power,
                                                sp_tensor **out);
/* number ** e, likewise. */
SP_MUST_USE sp_status sp__rule_pow_base_vjp(const sp_tensor *gy, const sp_tensor *e, sp_scalar base,
                                            const sp_tensor *power, sp_tensor **out);

/* sin(pi x) / (pi x). */
SP_MUST_USE sp_status sp__rule_sinc_vjp(const sp_tensor *gy, const sp_tensor *x,
                                        const sp_tensor *sinc, sp_tensor **out);

/* The real or imaginary part of gy; the complex numbers whose parts lie along gy's last dimension.
 */
SP_MUST_USE sp_status sp__rule_part_of(const sp_tensor *gy, bool imaginary, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_join_parts(const sp_tensor *gy, sp_tensor **out);
/* 1 / sqrt(x x - 1), of complex numbers on acosh's branch. */
SP_MUST_USE sp_status sp__rule_acosh_slope(const sp_tensor *x, sp_tensor **out);
/* abs, angle and sgn, of real and complex numbers. */
SP_MUST_USE sp_status sp__rule_abs_vjp(const sp_tensor *gy, const sp_tensor *x, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_abs_jvp(const sp_tensor *tx, const sp_tensor *x, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_angle_vjp(const sp_tensor *gy, const sp_tensor *x, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_angle_jvp(const sp_tensor *tx, const sp_tensor *x, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_sgn_vjp(const sp_tensor *gy, const sp_tensor *x,
                                       const sp_tensor *sign, sp_tensor **out);

/* gelu's second derivative at x, times gy and grad. */
SP_MUST_USE sp_status sp__rule_gelu_second(const sp_tensor *gy, const sp_tensor *grad,
                                           const sp_tensor *x, int64_t approximate,
                                           sp_tensor **out);

/* ---- reductions of an x of geometry m over dim ----- */

/* A result of the reduction with the reduced dimensions put back as size 1. */
SP_MUST_USE sp_status sp__rule_keep_dims(const sp_tensor *t, const sp_meta *m, const sp_attr *dim,
                                         bool keepdim, sp_tensor **out);
/* The same, repeated to x's shape, in x's dtype. */
SP_MUST_USE sp_status sp__rule_expand_reduced(const sp_tensor *gy, const sp_meta *m,
                                              const sp_attr *dim, bool keepdim, sp_tensor **out);

/* gy at the places along dim that `indices` names, in zeros of geometry m; and its transpose, the
 * elements of tx there. Without keepdim, dim is missing from gy, indices and the result. */
SP_MUST_USE sp_status sp__rule_place_along(const sp_tensor *gy, const sp_meta *m, int64_t dim,
                                           bool keepdim, const sp_tensor *indices, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_pick_along(const sp_tensor *tx, int64_t dim, bool keepdim,
                                          const sp_tensor *indices, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_prod_vjp(const sp_tensor *gy, const sp_tensor *x, const sp_attr *dim,
                                        bool keepdim, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_prod_jvp(const sp_tensor *tx, const sp_tensor *x, const sp_tensor *y,
                                        const sp_attr *dim, bool keepdim, sp_tensor **out);

/* The sum of |x| ** p: gy, which broadcasts with x, times p |x| ** (p - 1) sign(x); 0 at 0. */
SP_MUST_USE sp_status sp__rule_power_sum_vjp(const sp_tensor *gy, const sp_tensor *x, double p,
                                             sp_tensor **out);

/* ---- running results y along dim ----- */

SP_MUST_USE sp_status sp__rule_cumsum_vjp(const sp_tensor *gy, const sp_meta *x, int64_t dim,
                                          sp_tensor **out);
SP_MUST_USE sp_status sp__rule_cumprod_vjp(const sp_tensor *gy, const sp_tensor *x, int64_t dim,
                                           sp_tensor **out);
SP_MUST_USE sp_status sp__rule_cumprod_jvp(const sp_tensor *tx, const sp_tensor *x,
                                           const sp_tensor *y, int64_t dim, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_logcumsumexp_vjp(const sp_tensor *gy, const sp_tensor *x,
                                                const sp_tensor *y, int64_t dim, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_logcumsumexp_jvp(const sp_tensor *tx, const sp_tensor *x,
                                                const sp_tensor *y, int64_t dim, sp_tensor **out);
/* linear_scan with respect to x and to the factors, and the part of its tangent that theirs makes.
 */
SP_MUST_USE sp_status sp__rule_linear_scan_x(const sp_tensor *gy, const sp_tensor *factor,
                                             int64_t dim, bool reverse, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_linear_scan_factor(const sp_tensor *gy, const sp_tensor *factor,
                                                  const sp_tensor *y, int64_t dim, bool reverse,
                                                  sp_tensor **out);
SP_MUST_USE sp_status sp__rule_linear_scan_tangent(const sp_tensor *tfactor,
                                                   const sp_tensor *factor, const sp_tensor *y,
                                                   int64_t dim, bool reverse, sp_tensor **out);

/* ---- products ----- */

/* x @ y, with respect to x and to y; the meta is that of the one asked for. */
SP_MUST_USE sp_status sp__rule_matmul_x(const sp_tensor *gy, const sp_tensor *y, const sp_meta *x,
                                        sp_tensor **out);
SP_MUST_USE sp_status sp__rule_matmul_y(const sp_tensor *gy, const sp_tensor *x, const sp_meta *y,
                                        sp_tensor **out);
/* linear(x, w, b) with respect to w: gy^T x over all rows. */
SP_MUST_USE sp_status sp__rule_linear_w(const sp_tensor *gy, const sp_tensor *x, const sp_meta *w,
                                        sp_tensor **out);

/* cdist(a, b, p) = d of gradient gy, with respect to a, whose geometry is m. */
SP_MUST_USE sp_status sp__rule_cdist_rows(const sp_tensor *gy, const sp_tensor *a,
                                          const sp_tensor *b, const sp_tensor *d, double p,
                                          const sp_meta *m, sp_tensor **out);

/* ---- views ----- */

/* Undoes permute(x, dims). */
SP_MUST_USE sp_status sp__rule_permute_back(const sp_tensor *gy, const sp_attr *dims,
                                            sp_tensor **out);
/* unfold of an x of geometry m: what each window got, added up. */
SP_MUST_USE sp_status sp__rule_unfold_vjp(const sp_tensor *gy, const sp_meta *m, int64_t dimension,
                                          int64_t size, int64_t step, sp_tensor **out);
/* as_strided of an x of geometry m: gy added up at the places of x that it came from. */
SP_MUST_USE sp_status sp__rule_as_strided_vjp(const sp_tensor *gy, const sp_meta *m,
                                              const sp_attr *size, const sp_attr *stride,
                                              const sp_attr *offset, sp_tensor **out);
/* The same view of a tangent, which need not lie in memory as x does. */
SP_MUST_USE sp_status sp__rule_as_strided_jvp(const sp_tensor *tx, const sp_meta *m,
                                              const sp_attr *size, const sp_attr *stride,
                                              const sp_attr *offset, sp_tensor **out);
/* The part of gy that as_strided_scatter replaced. */
SP_MUST_USE sp_status sp__rule_as_strided_part(const sp_tensor *gy, const sp_attr *size,
                                               const sp_attr *stride, const sp_attr *offset,
                                               sp_tensor **out);

/* ---- tensors joined: of metas[i] one each, out of gy, and of tangents, NULL for zero ----- */

SP_MUST_USE sp_status sp__rule_cat_vjp(const sp_tensor *gy, const sp_meta *metas, int i,
                                       int64_t dim, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_stack_vjp(const sp_tensor *gy, const sp_meta *metas, int i,
                                         int64_t dim, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_cat_jvp(sp_tensor *const *ts, sp_tensor *const *xs, int n,
                                       const sp_tensor *y, int64_t dim, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_stack_jvp(sp_tensor *const *ts, sp_tensor *const *xs, int n,
                                         const sp_tensor *y, int64_t dim, sp_tensor **out);
/* ---- convolutions ----- */

/* g (N, C, ...) summed to (C): what a bias gets. */
SP_MUST_USE sp_status sp__rule_channel_sum(const sp_tensor *g, sp_tensor **out);
/* t (C) repeated to m's shape (N, C, ...). */
SP_MUST_USE sp_status sp__rule_channel_expand(const sp_tensor *t, const sp_meta *m,
                                              sp_tensor **out);

/* ---- folding at indices ----- */

/* scatter_fold's gradients: of an extremum evenly to those that are it, of a product to each the
 * product of the others. */
SP_MUST_USE sp_status sp__rule_scatter_fold_x(const sp_tensor *gy, const sp_tensor *x, int64_t dim,
                                              const sp_tensor *index, const sp_tensor *src,
                                              const sp_tensor *y, int64_t fold, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_scatter_fold_src(const sp_tensor *gy, const sp_tensor *x,
                                                int64_t dim, const sp_tensor *index,
                                                const sp_tensor *src, const sp_tensor *y,
                                                int64_t fold, sp_tensor **out);

/* ---- random ----- */

/* t with the elements dropped that seed and offset say. */
SP_MUST_USE sp_status sp__rule_dropout_again(const sp_tensor *t, double p, int64_t seed,
                                             int64_t offset, sp_tensor **out);

/* ---- statistics of x (N, C, ...) a channel: the mean, and the variance divided by n ----- */

SP_MUST_USE sp_status sp__rule_channel_mean_vjp(const sp_tensor *gy, const sp_meta *x,
                                                sp_tensor **out);
SP_MUST_USE sp_status sp__rule_channel_var_vjp(const sp_tensor *gy, const sp_tensor *x,
                                               const sp_tensor *mean, sp_tensor **out);

/* ---- pooling of an x of geometry m; `windows` has a number for each dimension pooled ----- */

/* gy where it was picked from, and its transpose. */
SP_MUST_USE sp_status sp__rule_pool_place(const sp_tensor *gy, const sp_tensor *indices,
                                          const sp_meta *m, const sp_attr *windows,
                                          sp_tensor **out);
SP_MUST_USE sp_status sp__rule_pool_pick(const sp_tensor *tx, const sp_tensor *indices,
                                         const sp_attr *windows, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_avg_pool_x(const sp_tensor *gy, const sp_meta *m,
                                          const sp_attr *kernel_size, const sp_attr *stride,
                                          const sp_attr *padding, bool ceil_mode,
                                          bool count_include_pad, const sp_attr *divisor,
                                          sp_tensor **out);
SP_MUST_USE sp_status sp__rule_adaptive_avg_pool_x(const sp_tensor *gy, const sp_meta *m,
                                                   const sp_attr *size, sp_tensor **out);
/* adaptive_avg_pool_backward of a y of geometry m. */
SP_MUST_USE sp_status sp__rule_adaptive_avg_pool_y(const sp_tensor *gy, const sp_meta *m,
                                                   const sp_attr *size, sp_tensor **out);

/* ---- padding ----- */

/* gy without what was put around x, with zeros for what was taken away. */
SP_MUST_USE sp_status sp__rule_pad_back(const sp_tensor *gy, const sp_attr *pad, sp_tensor **out);

/* ---- resample of an x of geometry m, and resample_backward of a y of geometry m ----- */

SP_MUST_USE sp_status sp__rule_resample_x(const sp_tensor *gy, const sp_meta *m,
                                          const sp_attr *size, int64_t method, bool corners,
                                          const sp_attr *scale_h, const sp_attr *scale_w,
                                          sp_tensor **out);
SP_MUST_USE sp_status sp__rule_resample_y(const sp_tensor *gx, const sp_meta *m,
                                          const sp_attr *size, int64_t method, bool corners,
                                          const sp_attr *scale_h, const sp_attr *scale_w,
                                          sp_tensor **out);

/* ---- attention: its logsumexp by q and k, both results by a floating mask ----- */

SP_MUST_USE sp_status sp__rule_attention_lse_q(const sp_tensor *g, const sp_tensor *q,
                                               const sp_tensor *k, const sp_tensor *mask,
                                               bool causal, double scale, sp_tensor **out);
SP_MUST_USE sp_status sp__rule_attention_lse_k(const sp_tensor *g, const sp_tensor *q,
                                               const sp_tensor *k, const sp_tensor *mask,
                                               const sp_tensor *lse, bool causal, double scale,
                                               sp_tensor **out);
/* Either of the gradients may be NULL. */
SP_MUST_USE sp_status sp__rule_attention_mask(const sp_tensor *gy, const sp_tensor *glse,
                                              const sp_tensor *q, const sp_tensor *k,
                                              const sp_tensor *v, const sp_tensor *mask,
                                              const sp_tensor *y, const sp_tensor *lse, bool causal,
                                              double scale, sp_tensor **out);

#endif
