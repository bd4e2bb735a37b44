/* Products of vectors, matrices and batches, made of matmul, mul and sum. */
#include "ops/attr.h"
#include "ops/infer.h"
#include "ops_gen.h"

static sp_status check_rank(const sp_call *c, int i, int rank)
{
    if (c->in[i]->rank == rank) return SP_OK;
    return sp_fail(SP_ESHAPE, "%s: %s has shape %s, expected %d dimension%s", sp__op_name(c),
                   sp_op_table[c->op].in_names[i], SP_SHAPE(c->in[i]), rank, rank == 1 ? "" : "s");
}

/* matmul of inputs a and a + 1, for these ranks alone. */
static sp_status product(const sp_call *c, int a, int rank_a, int rank_b, sp_tensor **out)
{
    const sp_tensor *x = c->in[a], *y = c->in[a + 1];
    SP_RETURN_IF(check_rank(c, a, rank_a));
    SP_RETURN_IF(check_rank(c, a + 1, rank_b));
    if (rank_a == 3 && x->shape[0] != y->shape[0])
        return sp_fail(SP_ESHAPE, "%s: batches of %lld and %lld matrices, expected as many",
                       sp__op_name(c), (long long)x->shape[0], (long long)y->shape[0]);
    return sp_matmul(x, y, out);
}

sp_status sp__body_mm(sp_call *c)
{
    return product(c, 0, 2, 2, &c->out[0]);
}

sp_status sp__body_bmm(sp_call *c)
{
    return product(c, 0, 3, 3, &c->out[0]);
}

sp_status sp__body_mv(sp_call *c)
{
    return product(c, 0, 2, 1, &c->out[0]);
}

sp_status sp__body_dot(sp_call *c)
{
    return product(c, 0, 1, 1, &c->out[0]);
}

sp_status sp__infer_conj_dot(const sp_call *c, sp_meta *out)
{
    for (int i = 0; i < 2; i++) SP_RETURN_IF(check_rank(c, i, 1));
    if (sp__dtype_is_complex(c->in[0]->dtype)) return sp__infer_matmul(c, out);
    return sp_fail(SP_EDTYPE, "%s: x is %s, expected complex numbers; use dot()", sp__op_name(c),
                   sp_dtype_name((sp_dtype)c->in[0]->dtype));
}

sp_status sp__body_conj_dot(sp_call *c)
{
    sp_tensor *turned = NULL;
    SP_RETURN_IF(sp_conj_physical(c->in[0], &turned));
    sp_status status = sp_dot(turned, c->in[1], &c->out[0]);
    sp_drop(&turned);
    return status;
}

/* The conjugate of x times y. */
sp_status sp__body_vdot(sp_call *c)
{
    const sp_tensor *x = c->in[0], *y = c->in[1];
    for (int i = 0; i < 2; i++) SP_RETURN_IF(check_rank(c, i, 1));
    if (sp__dtype_is_complex(x->dtype)) return sp_conj_dot(x, y, &c->out[0]);
    return sp_dot(x, y, &c->out[0]);
}

/* Each element of the vector x with each of y. */
static sp_status outer_of(const sp_tensor *x, const sp_tensor *y, sp_tensor **out)
{
    sp_tensor *column = NULL;
    SP_RETURN_IF(sp_unsqueeze(x, 1, &column));
    sp_status status = sp_mul(column, y, out);
    sp_drop(&column);
    return status;
}

sp_status sp__body_outer(sp_call *c)
{
    for (int i = 0; i < 2; i++) SP_RETURN_IF(check_rank(c, i, 1));
    return outer_of(c->in[0], c->in[1], &c->out[0]);
}

/* ---- sums over pairs of dimensions ----- */

/* x as a matrix: the dimensions in `summed` last if `last`, else first, the others in their order;
 * their sizes are added to shape[*rank ..]. */
static sp_status as_matrix(const sp_tensor *x, const int *summed, int n, bool last, int64_t *shape,
                           int *rank, sp_tensor **out)
{
    int64_t order[SP_MAX_RANK], sizes[2] = {1, 1};
    int kept = x->rank - n, at = last ? 0 : n;
    uint32_t mask = 0;
    sp_tensor *turned = NULL;
    for (int i = 0; i < n; i++) {
        order[last ? kept + i : i] = summed[i];
        sizes[last] *= x->shape[summed[i]], mask |= 1u << summed[i];
    }
    for (int d = 0; d < x->rank; d++) {
        if (mask >> d & 1) continue;
        order[at++] = d;
        sizes[!last] *= x->shape[d];
        if (*rank < SP_MAX_RANK) shape[*rank] = x->shape[d];
        ++*rank;
    }
    SP_RETURN_IF(sp_permute(x, order, x->rank, &turned));
    sp_status status = sp_reshape(turned, sizes, 2, out);
    sp_drop(&turned);
    return status;
}

static sp_status contract(const sp_call *c, const int *x_dims, const int *y_dims, int n,
                          sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK];
    int rank = 0;
    sp_tensor *a = NULL, *b = NULL, *ab = NULL;
    sp_status status = SP_OK;
    SP_TRY(as_matrix(c->in[0], x_dims, n, true, shape, &rank, &a));
    SP_TRY(as_matrix(c->in[1], y_dims, n, false, shape, &rank, &b));
    if (rank > SP_MAX_RANK)
        SP_TRY(sp_fail(SP_ESHAPE,
                       "%s: the result would have %d dimensions, at most %d are possible",
                       sp__op_name(c), rank, SP_MAX_RANK));
    SP_TRY(sp_matmul(a, b, &ab));
    SP_TRY(sp_reshape(ab, shape, rank, out));
out:
    sp_drop(&a), sp_drop(&b), sp_drop(&ab);
    return status;
}

static sp_status dims_of(const sp_call *c, int input, const sp_attr *dims, int *out)
{
    uint32_t seen = 0;
    for (int i = 0; i < dims->n; i++) {
        SP_RETURN_IF(
            sp__dim_normalize(sp__op_name(c), dims->v.ints[i], c->in[input]->rank, &out[i]));
        if (c->in[input]->rank == 0)
            return sp_fail(SP_EINDEX, "%s: a tensor without dimensions has none to sum over",
                           sp__op_name(c));
        if (seen & 1u << out[i])
            return sp_fail(SP_EVALUE, "%s: dimension %d is named twice", sp__op_name(c), out[i]);
        seen |= 1u << out[i];
    }
    return SP_OK;
}

sp_status sp__body_tensordot(sp_call *c)
{
    const sp_attr *x_dims = &c->attr[0], *y_dims = &c->attr[1];
    int a[SP_MAX_RANK], b[SP_MAX_RANK];
    if (x_dims->n != y_dims->n)
        return sp_fail(SP_ESHAPE, "%s: %d dimensions of x and %d of other, expected as many",
                       sp__op_name(c), x_dims->n, y_dims->n);
    SP_RETURN_IF(dims_of(c, 0, x_dims, a));
    SP_RETURN_IF(dims_of(c, 1, y_dims, b));
    for (int i = 0; i < x_dims->n; i++)
        if (c->in[0]->shape[a[i]] != c->in[1]->shape[b[i]])
            return sp_fail(SP_ESHAPE,
                           "%s: dimension %d of x of shape %s and dimension %d of other of shape "
                           "%s differ in size",
                           sp__op_name(c), a[i], SP_SHAPE(c->in[0]), b[i], SP_SHAPE(c->in[1]));
    return contract(c, a, b, x_dims->n, &c->out[0]);
}

sp_status sp__body_inner(sp_call *c)
{
    const sp_tensor *x = c->in[0], *y = c->in[1];
    if (x->rank == 0 || y->rank == 0) return sp_mul(x, y, &c->out[0]);
    int a = x->rank - 1, b = y->rank - 1;
    if (x->shape[a] != y->shape[b])
        return sp_fail(SP_ESHAPE, "%s: shapes %s and %s differ in their last sizes", sp__op_name(c),
                       SP_SHAPE(x), SP_SHAPE(y));
    return contract(c, &a, &b, 1, &c->out[0]);
}

/* ---- sums of a tensor and a product ----- */

static bool is(sp_scalar s, int64_t value)
{
    return s.kind == SP_FLOAT64 ? s.v.f == (double)value : s.v.i == value;
}

/* t * factor, or t. */
static sp_status scaled(const sp_tensor *t, sp_scalar factor, sp_tensor **out)
{
    if (!is(factor, 1)) return sp_mul_scalar(t, factor, out);
    *out = sp__retain(t);
    return SP_OK;
}

static sp_status check_factors(const sp_call *c)
{
    const sp_tensor *x = c->in[0];
    bool whole = !sp__dtype_is_inexact(x->dtype);
    for (int i = 0; whole && i < 2; i++)
        if (sp__attr_to_scalar(&c->attr[i]).kind == SP_FLOAT64)
            return sp_fail(SP_EDTYPE, "%s: %s is a floating number, but x is %s; give an integer",
                           sp__op_name(c), sp_op_table[c->op].attr_names[i],
                           sp_dtype_name((sp_dtype)x->dtype));
    return SP_OK;
}

static sp_status check_broadcasts(const sp_call *c, const int64_t *shape, int rank)
{
    const sp_tensor *x = c->in[0];
    bool fits = x->rank <= rank;
    for (int d = 1; fits && d <= x->rank; d++)
        fits = x->shape[x->rank - d] == 1 || x->shape[x->rank - d] == shape[rank - d];
    if (fits) return SP_OK;
    return sp_fail(SP_ESHAPE, "%s: x has shape %s, which does not broadcast to the product's, %s",
                   sp__op_name(c), SP_SHAPE(x),
                   sp__shape_text(rank, shape, (char[SP_SHAPE_TEXT]){0}, SP_SHAPE_TEXT));
}

/* beta * x + alpha * made; takes made's reference. The factors are the attributes 0 and 1. */
static sp_status plus(sp_call *c, sp_tensor *made)
{
    sp_scalar beta = sp__attr_to_scalar(&c->attr[0]), alpha = sp__attr_to_scalar(&c->attr[1]);
    sp_tensor *x = NULL, *part = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp__check_same_dtype(c, c->in[0], "x", made, "the product"));
    SP_TRY(check_factors(c));
    SP_TRY(check_broadcasts(c, made->shape, made->rank));
    SP_TRY(scaled(made, alpha, &part));
    if (is(beta, 0)) {
        c->out[0] = part, part = NULL;
    } else {
        SP_TRY(scaled(c->in[0], beta, &x));
        SP_TRY(sp_add(x, part, &c->out[0]));
    }
out:
    sp_drop(&made), sp_drop(&x), sp_drop(&part);
    return status;
}

sp_status sp__body_addmm(sp_call *c)
{
    sp_tensor *made = NULL;
    SP_RETURN_IF(product(c, 1, 2, 2, &made));
    return plus(c, made);
}

sp_status sp__body_addmv(sp_call *c)
{
    sp_tensor *made = NULL;
    SP_RETURN_IF(product(c, 1, 2, 1, &made));
    return plus(c, made);
}

sp_status sp__body_baddbmm(sp_call *c)
{
    sp_tensor *made = NULL;
    SP_RETURN_IF(product(c, 1, 3, 3, &made));
    return plus(c, made);
}

static sp_status check_addr(const sp_call *c)
{
    const sp_tensor *vec1 = c->in[1], *vec2 = c->in[2];
    for (int i = 1; i < 3; i++) SP_RETURN_IF(check_rank(c, i, 1));
    for (int i = 1; i < 3; i++)
        SP_RETURN_IF(sp__check_same_dtype(c, c->in[0], "x", c->in[i], "a vector"));
    SP_RETURN_IF(check_factors(c));
    return check_broadcasts(c, (int64_t[]){vec1->shape[0], vec2->shape[0]}, 2);
}

sp_status sp__body_addr(sp_call *c)
{
    sp_scalar beta = sp__attr_to_scalar(&c->attr[SP_ADDR_BETA]),
              alpha = sp__attr_to_scalar(&c->attr[SP_ADDR_ALPHA]);
    sp_tensor *x = NULL, *vector = NULL, *column = NULL;
    sp_status status = SP_OK;
    SP_TRY(check_addr(c));
    SP_TRY(scaled(c->in[1], alpha, &vector));
    if (is(beta, 0)) {
        SP_TRY(outer_of(vector, c->in[2], &c->out[0]));
    } else {
        SP_TRY(scaled(c->in[0], beta, &x));
        SP_TRY(sp_unsqueeze(vector, 1, &column));
        SP_TRY(sp_addcmul(x, column, c->in[2], &c->out[0]));
    }
out:
    sp_drop(&x), sp_drop(&vector), sp_drop(&column);
    return status;
}

/* The sum over the batch is one product: of (m, b * k) and (b * k, n). */
sp_status sp__body_addbmm(sp_call *c)
{
    static const int x_dims[] = {0, 2}, y_dims[] = {0, 1};
    const sp_tensor *x = c->in[1], *y = c->in[2];
    sp_call inner = *c;
    sp_tensor *made = NULL;
    for (int i = 1; i < 3; i++) SP_RETURN_IF(check_rank(c, i, 3));
    if (x->shape[0] != y->shape[0] || x->shape[2] != y->shape[1])
        return sp_fail(SP_ESHAPE, "%s: batches of shapes %s and %s, expected (b, m, k), (b, k, n)",
                       sp__op_name(c), SP_SHAPE(x), SP_SHAPE(y));
    inner.in = c->in + 1, inner.n_in = 2;
    SP_RETURN_IF(contract(&inner, x_dims, y_dims, 2, &made));
    return plus(c, made);
}

/* ---- others ----- */

sp_status sp__body_trace(sp_call *c)
{
    sp_tensor *line = NULL;
    SP_RETURN_IF(check_rank(c, 0, 2));
    SP_RETURN_IF(sp_diagonal(c->in[0], NULL, &line));
    sp_status status = sp_sum(line, NULL, &c->out[0]);
    sp_drop(&line);
    return status;
}

/* x (a, 1, b, 1, ..) or (1, a, 1, b, ..), with `rank` dimensions of its own. */
static sp_status apart(const sp_tensor *x, int rank, int first, sp_tensor **out)
{
    int64_t shape[2 * SP_MAX_RANK];
    for (int i = 0; i < 2 * rank; i++) shape[i] = 1;
    for (int d = 0; d < x->rank; d++) shape[2 * (rank - x->rank + d) + first] = x->shape[d];
    return sp_reshape(x, shape, 2 * rank, out);
}

sp_status sp__body_kron(sp_call *c)
{
    const sp_tensor *x = c->in[0], *y = c->in[1];
    int rank = x->rank > y->rank ? x->rank : y->rank;
    int64_t shape[SP_MAX_RANK];
    sp_tensor *a = NULL, *b = NULL, *ab = NULL;
    sp_status status = SP_OK;
    if (2 * rank > SP_MAX_RANK)
        return sp_fail(SP_ESHAPE, "%s: %d dimensions, at most %d are possible", sp__op_name(c),
                       rank, SP_MAX_RANK / 2);
    SP_TRY(apart(x, rank, 0, &a));
    SP_TRY(apart(y, rank, 1, &b));
    SP_TRY(sp_mul(a, b, &ab));
    for (int d = 0; d < rank; d++) shape[d] = ab->shape[2 * d] * ab->shape[2 * d + 1];
    SP_TRY(sp_reshape(ab, shape, rank, &c->out[0]));
out:
    sp_drop(&a), sp_drop(&b), sp_drop(&ab);
    return status;
}

static sp_status cross_dim(const sp_call *c, int *dim)
{
    const sp_tensor *x = c->in[0], *y = c->in[1];
    const sp_attr *given = &c->attr[SP_CROSS_DIM];
    if (x->rank != y->rank || x->rank == 0)
        return sp_fail(SP_ESHAPE, "%s: shapes %s and %s, expected as many dimensions",
                       sp__op_name(c), SP_SHAPE(x), SP_SHAPE(y));
    if (!given->absent) {
        SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), given->v.i, x->rank, dim));
    } else {
        for (*dim = 0; *dim < x->rank - 1 && x->shape[*dim] != 3;) ++*dim;
    }
    if (x->shape[*dim] == 3 && y->shape[*dim] == 3) return SP_OK;
    return sp_fail(SP_EVALUE, "%s: sizes %lld and %lld in dimension %d, expected 3", sp__op_name(c),
                   (long long)x->shape[*dim], (long long)y->shape[*dim], *dim);
}

/* x rolled by one times y rolled by two, less the other way about. */
sp_status sp__body_cross(sp_call *c)
{
    int dim;
    sp_tensor *t[4] = {NULL}, *plus_part = NULL, *minus_part = NULL;
    sp_status status = SP_OK;
    SP_RETURN_IF(cross_dim(c, &dim));
    for (int i = 0; i < 4; i++) {
        int64_t shift = i == 0 || i == 3 ? 2 : 1, along = dim;
        const sp_roll_opt opt = {.size = sizeof opt, .dims = &along, .n_dims = 1};
        SP_TRY(sp_roll(c->in[i % 2], &shift, 1, &opt, &t[i]));
    }
    SP_TRY(sp_mul(t[0], t[1], &plus_part));
    SP_TRY(sp_mul(t[2], t[3], &minus_part));
    SP_TRY(sp_sub(plus_part, minus_part, &c->out[0]));
out:
    for (int i = 0; i < 4; i++) sp_drop(&t[i]);
    sp_drop(&plus_part), sp_drop(&minus_part);
    return status;
}
