/* Differences, integrals, blocks, combinations, covariances, places: all made of other ops. */
#include "ops/attr.h"
#include "ops/infer.h"
#include "ops_gen.h"
#include "tensor/memory.h"

static const sp_scalar half = {.v.f = 0.5, .kind = SP_FLOAT64};

/* x along d, all but the last, or all but the first. */
static sp_status neighbours(const sp_tensor *x, int d, sp_tensor **before, sp_tensor **behind)
{
    int64_t n = x->shape[d], least = n > 0;
    SP_RETURN_IF(sp_slice(x, d, 0, n - least, NULL, before));
    return sp_slice(x, d, least, n, NULL, behind);
}

/* ---- diff ----- */

static sp_status difference(const sp_tensor *x, int d, sp_tensor **out)
{
    sp_tensor *before = NULL, *behind = NULL;
    sp_status status = SP_OK;
    SP_TRY(neighbours(x, d, &before, &behind));
    if (x->dtype == SP_BOOL)
        SP_TRY(sp_logical_xor(behind, before, out));
    else
        SP_TRY(sp_sub(behind, before, out));
out:
    sp_drop(&before), sp_drop(&behind);
    return status;
}

/* x with what is to stand before and behind it. */
static sp_status surrounded(const sp_call *c, int d, sp_tensor **out)
{
    const sp_cat_opt opt = {.size = sizeof opt, .dim = d};
    const sp_tensor *all[3];
    int n = 0;
    for (int i = 0; i < 3; i++) {
        static const int order[] = {1, 0, 2};
        if (c->in[order[i]]) all[n++] = c->in[order[i]];
    }
    if (n > 1) return sp_cat(all, n, &opt, out);
    *out = sp__retain(c->in[0]);
    return SP_OK;
}

sp_status sp__body_diff(sp_call *c)
{
    int64_t times = c->attr[SP_DIFF_N].v.i;
    sp_tensor *x = NULL, *less = NULL;
    int d;
    sp_status status = SP_OK;
    SP_RETURN_IF(sp__check_has_dims(c, c->in[0]));
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), c->attr[SP_DIFF_DIM].v.i, c->in[0]->rank, &d));
    if (times < 0)
        return sp_fail(SP_EVALUE, "%s: n is %lld, expected 0 or more", sp__op_name(c),
                       (long long)times);
    SP_TRY(surrounded(c, d, &x));
    if (times > x->shape[d]) times = x->shape[d]; /* nothing is left of nothing */
    for (; times > 0; times--) {
        SP_TRY(difference(x, d, &less));
        sp_drop(&x);
        x = less, less = NULL;
    }
    if (x == c->in[0])
        SP_TRY(sp_alias(x, &c->out[0]));
    else
        c->out[0] = x, x = NULL;
out:
    sp_drop(&x);
    return status;
}

/* ---- integrals ----- */

/* Twice the areas between neighbours along d: the sum of two values times a width, 1 without. */
static sp_status twice_areas(const sp_call *c, int d, const sp_tensor *widths, sp_tensor **out)
{
    sp_tensor *before = NULL, *behind = NULL, *sum = NULL;
    sp_status status = SP_OK;
    SP_TRY(neighbours(c->in[0], d, &before, &behind));
    SP_TRY(sp_add(before, behind, &sum));
    if (widths)
        SP_TRY(sp_mul(sum, widths, out));
    else
        *out = sum, sum = NULL;
out:
    sp_drop(&before), sp_drop(&behind), sp_drop(&sum);
    return status;
}

/* The distances of the points that x says, in a shape that broadcasts with y. */
static sp_status widths_of(const sp_call *c, int d, sp_tensor **out)
{
    const sp_tensor *y = c->in[0], *x = c->in[1];
    int64_t shape[SP_MAX_RANK];
    sp_tensor *lined = NULL;
    if (x->rank != 1 && x->rank != y->rank)
        return sp_fail(SP_ESHAPE, "%s: x has shape %s and y %s; expected one dimension, or as many",
                       sp__op_name(c), SP_SHAPE(x), SP_SHAPE(y));
    int at = x->rank == 1 ? 0 : d;
    if (x->shape[at] != y->shape[d])
        return sp_fail(SP_ESHAPE, "%s: %lld points for %lld values", sp__op_name(c),
                       (long long)x->shape[at], (long long)y->shape[d]);
    if (x->rank > 1) return difference(x, d, out);
    for (int i = 0; i < y->rank; i++) shape[i] = i == d ? x->numel : 1;
    SP_RETURN_IF(sp_reshape(x, shape, y->rank, &lined));
    sp_status status = difference(lined, d, out);
    sp_drop(&lined);
    return status;
}

/* The integral over points dx apart: their sum, those at the ends counted half. */
static sp_status even_integral(sp_call *c, int d)
{
    const sp_tensor *y = c->in[0];
    const int64_t along = d;
    const sp_sum_opt opt = {.size = sizeof opt, .dim = &along, .n_dim = 1};
    sp_tensor *total = NULL, *first = NULL, *last = NULL, *ends = NULL, *mean = NULL, *sum = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_sum(y, &opt, &total));
    SP_TRY(sp_select(y, d, 0, &first));
    SP_TRY(sp_select(y, d, -1, &last));
    SP_TRY(sp_add(first, last, &ends));
    SP_TRY(sp_mul_scalar(ends, half, &mean));
    SP_TRY(sp_sub(total, mean, &sum));
    SP_TRY(sp_mul_scalar(sum, sp__attr_to_scalar(&c->attr[SP_TRAPEZOID_DX]), &c->out[0]));
out:
    sp_drop(&total), sp_drop(&first), sp_drop(&last), sp_drop(&ends), sp_drop(&mean), sp_drop(&sum);
    return status;
}

static sp_scalar half_of(const sp_attr *a)
{
    return SP_FLOAT(0.5 * (a->tag == SP_FLOAT64 ? a->v.f : (double)a->v.i));
}

static sp_status integral(sp_call *c, const sp_attr *dim, bool running)
{
    int64_t along;
    sp_tensor *widths = NULL, *parts = NULL, *twice = NULL;
    int d;
    sp_status status = SP_OK;
    SP_RETURN_IF(sp__check_has_dims(c, c->in[0]));
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), dim->v.i, c->in[0]->rank, &d));
    along = d;
    if (c->n_in == 1 && !running && c->in[0]->shape[d] > 0) return even_integral(c, d);
    if (c->n_in > 1) SP_TRY(widths_of(c, d, &widths));
    SP_TRY(twice_areas(c, d, widths, &parts));
    const sp_sum_opt opt = {.size = sizeof opt, .dim = &along, .n_dim = 1};
    SP_TRY(running ? sp_cumsum(parts, d, NULL, &twice) : sp_sum(parts, &opt, &twice));
    SP_TRY(sp_mul_scalar(twice, widths ? half : half_of(&c->attr[0]), &c->out[0]));
out:
    sp_drop(&widths), sp_drop(&parts), sp_drop(&twice);
    return status;
}

sp_status sp__body_trapezoid(sp_call *c)
{
    return integral(c, &c->attr[SP_TRAPEZOID_DIM], false);
}

sp_status sp__body_trapezoid_at(sp_call *c)
{
    return integral(c, &c->attr[SP_TRAPEZOID_AT_DIM], false);
}

sp_status sp__body_cumulative_trapezoid(sp_call *c)
{
    return integral(c, &c->attr[SP_CUMULATIVE_TRAPEZOID_DIM], true);
}

sp_status sp__body_cumulative_trapezoid_at(sp_call *c)
{
    return integral(c, &c->attr[SP_CUMULATIVE_TRAPEZOID_AT_DIM], true);
}

/* ---- turned, side by side ----- */

sp_status sp__body_rot90(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    const sp_attr *dims = &c->attr[SP_ROT90_DIMS];
    int64_t k = (c->attr[SP_ROT90_K].v.i % 4 + 4) % 4, plane[2];
    sp_tensor *flipped = NULL;
    int d[2];
    if (dims->n != 2 || x->rank < 2)
        return sp_fail(SP_EVALUE, "%s: %d dimensions of x of shape %s, expected two",
                       sp__op_name(c), dims->n, SP_SHAPE(x));
    for (int i = 0; i < 2; i++) {
        SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), dims->v.ints[i], x->rank, &d[i]));
        plane[i] = d[i];
    }
    if (d[0] == d[1]) return sp_fail(SP_EVALUE, "%s: both dimensions are %d", sp__op_name(c), d[0]);
    if (k == 0) return sp_clone(x, &c->out[0]);
    if (k == 2) return sp_flip(x, plane, 2, &c->out[0]);
    SP_RETURN_IF(sp_flip(x, &plane[k == 1], 1, &flipped));
    sp_status status = sp_transpose(flipped, plane[0], plane[1], &c->out[0]);
    sp_drop(&flipped);
    return status;
}

static sp_status need_one(const sp_call *c)
{
    if (c->n_in > 0) return SP_OK;
    return sp_fail(SP_EVALUE, "%s: no tensors, expected one or more", sp__op_name(c));
}

/* One tensor made of each input, and these joined along dim. */
static sp_status joined(sp_call *c, sp_status (*made)(const sp_call *, int, sp_tensor **),
                        int64_t dim)
{
    const sp_cat_opt opt = {.size = sizeof opt, .dim = dim};
    size_t bytes = (size_t)c->n_in * sizeof(sp_tensor *);
    SP_RETURN_IF(need_one(c));
    sp_tensor **parts = sp__alloc_zero(bytes);
    if (!parts) return sp_fail(SP_EMEMORY, "%s: no memory for its inputs", sp__op_name(c));
    sp_status status = SP_OK;
    for (int i = 0; i < c->n_in; i++) SP_TRY(made(c, i, &parts[i]));
    SP_TRY(sp_cat((const sp_tensor *const *)parts, c->n_in, &opt, &c->out[0]));
out:
    for (int i = 0; i < c->n_in; i++) sp_drop(&parts[i]);
    sp__free(parts, bytes);
    return status;
}

static sp_status as_column(const sp_call *c, int i, sp_tensor **out)
{
    const sp_tensor *x = c->in[i];
    int64_t shape[2] = {x->numel, 1};
    if (x->rank < 2) return sp_reshape(x, shape, 2, out);
    *out = sp__retain(x);
    return SP_OK;
}

sp_status sp__body_column_stack(sp_call *c)
{
    return joined(c, as_column, 1);
}

static int64_t rows_of(const sp_tensor *x)
{
    return x->rank == 2 ? x->shape[0] : 1;
}

static int64_t columns_of(const sp_tensor *x)
{
    return x->rank > 0 ? x->shape[x->rank - 1] : 1;
}

/* A block with zeros on its left and right. */
static sp_status as_block_row(const sp_call *c, int i, sp_tensor **out)
{
    const sp_tensor *x = c->in[i];
    const sp_full_opt like = {.size = sizeof like, .has_dtype = true, .dtype = (sp_dtype)x->dtype};
    const sp_cat_opt across = {.size = sizeof across, .dim = 1};
    int64_t rows = rows_of(x), left = 0, right = 0, block[2] = {rows, columns_of(x)};
    sp_tensor *parts[3] = {NULL};
    sp_status status = SP_OK;
    if (x->rank > 2)
        return sp_fail(SP_ESHAPE, "%s: tensor %d has shape %s, expected two dimensions at most",
                       sp__op_name(c), i, SP_SHAPE(x));
    for (int k = 0; k < c->n_in; k++)
        *(k < i ? &left : &right) += k == i ? 0 : columns_of(c->in[k]);
    SP_TRY(sp_full((int64_t[]){rows, left}, 2, SP_INT(0), &like, &parts[0]));
    SP_TRY(sp_reshape(x, block, 2, &parts[1]));
    SP_TRY(sp_full((int64_t[]){rows, right}, 2, SP_INT(0), &like, &parts[2]));
    SP_TRY(sp_cat((const sp_tensor *const *)parts, 3, &across, out));
out:
    for (int k = 0; k < 3; k++) sp_drop(&parts[k]);
    return status;
}

sp_status sp__body_block_diag(sp_call *c)
{
    return joined(c, as_block_row, 0);
}

/* ---- tuples ----- */

/* Vector i as the i-th coordinate of all points of the grid, (points, 1). */
static sp_status as_coordinate(const sp_call *c, int i, sp_tensor **out)
{
    int64_t line[SP_MAX_RANK], grid[SP_MAX_RANK], column[2] = {1, 1};
    sp_tensor *lined = NULL, *wide = NULL;
    sp_status status = SP_OK;
    for (int k = 0; k < c->n_in; k++) {
        if (c->in[k]->rank != 1 || c->n_in > SP_MAX_RANK)
            return sp_fail(SP_ESHAPE, "%s: tensor %d of %d has shape %s, expected up to %d vectors",
                           sp__op_name(c), k, c->n_in, SP_SHAPE(c->in[k]), SP_MAX_RANK);
        grid[k] = c->in[k]->numel, line[k] = k == i ? grid[k] : 1, column[0] *= grid[k];
    }
    SP_TRY(sp_reshape(c->in[i], line, c->n_in, &lined));
    SP_TRY(sp_expand(lined, grid, c->n_in, &wide));
    SP_TRY(sp_reshape(wide, column, 2, out));
out:
    sp_drop(&lined), sp_drop(&wide);
    return status;
}

sp_status sp__body_cartesian_prod(sp_call *c)
{
    if (c->n_in == 1 && c->in[0]->rank == 1) return sp_alias(c->in[0], &c->out[0]);
    return joined(c, as_coordinate, 1);
}

/* How many ways, -1 for too many to hold. */
static int64_t count_ways(int64_t n, int64_t r, bool again)
{
    int64_t pool = again ? n + r - 1 : n, ways = 1;
    if (r == 0) return 1;
    if (r > pool) return 0;
    for (int64_t i = 1; i <= r; i++) {
        __int128 product = (__int128)ways * (pool - r + i);
        if (product / i > INT32_MAX) return -1;
        ways = (int64_t)(product / i);
    }
    return ways;
}

/* Rows of r indices in ascending order, the last one counting up fastest. */
static void list_ways(int64_t *rows, int64_t ways, int64_t n, int64_t r, bool again)
{
    for (int64_t i = 0; i < r && ways > 0; i++) rows[i] = again ? 0 : i;
    for (int64_t w = 1; w < ways; w++) {
        const int64_t *before = rows + (w - 1) * r;
        int64_t *row = rows + w * r, at = r - 1;
        for (int64_t i = 0; i < r; i++) row[i] = before[i];
        while (at > 0 && row[at] == (again ? n - 1 : n - r + at)) at--;
        row[at]++;
        for (int64_t i = at + 1; i < r; i++) row[i] = again ? row[at] : row[i - 1] + 1;
    }
}

sp_status sp__body_combinations(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    int64_t r = c->attr[SP_COMBINATIONS_R].v.i, n = x->numel;
    bool again = c->attr[SP_COMBINATIONS_WITH_REPLACEMENT].v.i != 0;
    sp_tensor *index = NULL, *taken = NULL;
    sp_status status = SP_OK;
    if (x->rank != 1)
        return sp_fail(SP_ESHAPE, "%s: x has shape %s, expected one dimension", sp__op_name(c),
                       SP_SHAPE(x));
    int64_t ways = r < 0 ? -1 : r == 0 ? 0 : count_ways(n, r, again), total = ways * r;
    if (ways < 0)
        return sp_fail(SP_EVALUE, "%s: %lld of %lld elements, expected 0 or more, and fewer ways",
                       sp__op_name(c), (long long)r, (long long)n);
    size_t bytes = (size_t)total * sizeof(int64_t);
    int64_t *rows = sp__alloc(bytes);
    if (!rows) return sp_fail(SP_EMEMORY, "%s: no memory for the ways", sp__op_name(c));
    list_ways(rows, ways, n, r, again);
    SP_TRY(sp_from_data(rows, SP_INT64, 1, &total, &index));
    SP_TRY(sp_index_select(x, 0, index, &taken));
    SP_TRY(sp_reshape(taken, (int64_t[]){ways, r}, r > 0 ? 2 : 1, &c->out[0]));
out:
    sp__free(rows, bytes);
    sp_drop(&index), sp_drop(&taken);
    return status;
}

/* ---- covariances ----- */

/* Observations' weights, or NULL: fweights, aweights, or their product. */
static sp_status weights_of(const sp_call *c, int64_t n, sp_dtype dtype, sp_tensor **out)
{
    sp_tensor *f = NULL;
    sp_status status = SP_OK;
    for (int i = 1; i < 3; i++)
        if (c->in[i] && (c->in[i]->rank > 1 || c->in[i]->numel != n))
            return sp_fail(SP_ESHAPE,
                           "%s: %s has shape %s, expected one for each of %lld "
                           "observations",
                           sp__op_name(c), sp_op_table[c->op].in_names[i], SP_SHAPE(c->in[i]),
                           (long long)n);
    if (c->in[1]) SP_RETURN_IF(sp_cast(c->in[1], dtype, &f));
    if (f && c->in[2])
        SP_TRY(sp_mul(f, c->in[2], out));
    else
        *out = f ? sp__retain(f) : c->in[2] ? sp__retain(c->in[2]) : NULL;
out:
    sp_drop(&f);
    return status;
}

/* What the sum of products is divided by: the total of the weights, less the correction, which
 * counts by the mean of aweights, weighted. */
static sp_status divisor_of(const sp_call *c, const sp_tensor *w, double correction,
                            sp_tensor **out)
{
    sp_tensor *total = NULL, *weighted = NULL, *sum = NULL, *mean = NULL, *taken = NULL,
              *least = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_sum(w, NULL, &total));
    if (c->in[2]) {
        SP_TRY(sp_mul(w, c->in[2], &weighted));
        SP_TRY(sp_sum(weighted, NULL, &sum));
        SP_TRY(sp_div(sum, total, &mean));
        SP_TRY(sp_mul_scalar(mean, SP_FLOAT(correction), &taken));
        SP_TRY(sp_sub(total, taken, &least));
    } else {
        SP_TRY(sp_sub_scalar(total, SP_FLOAT(correction), &least));
    }
    SP_TRY(sp_clamp_min_scalar(least, SP_INT(0), out));
out:
    sp_drop(&total), sp_drop(&weighted), sp_drop(&sum), sp_drop(&mean), sp_drop(&taken),
        sp_drop(&least);
    return status;
}

/* x less its rows' means, weighted by w, or not. */
static sp_status centred(const sp_tensor *x, const sp_tensor *w, sp_tensor **out)
{
    const int64_t last = 1;
    const sp_sum_opt over = {.size = sizeof over, .dim = &last, .n_dim = 1, .keepdim = true};
    sp_tensor *part = NULL, *sum = NULL, *total = NULL, *mean = NULL;
    sp_status status = SP_OK;
    if (w)
        SP_TRY(sp_mul(x, w, &part));
    else
        part = sp__retain(x);
    SP_TRY(sp_sum(part, &over, &sum));
    if (w) {
        SP_TRY(sp_sum(w, NULL, &total));
        SP_TRY(sp_div(sum, total, &mean));
    } else {
        SP_TRY(sp_div_scalar(sum, SP_INT(x->shape[1]), &mean));
    }
    SP_TRY(sp_sub(x, mean, out));
out:
    sp_drop(&part), sp_drop(&sum), sp_drop(&total), sp_drop(&mean);
    return status;
}

/* (variables, variables), of observations in the rows of the matrix x. */
static sp_status covariance(const sp_call *c, const sp_tensor *x, const sp_tensor *w,
                            double correction, sp_tensor **out)
{
    sp_tensor *away = NULL, *weighted = NULL, *turned = NULL, *sums = NULL, *divisor = NULL;
    double n = (double)x->shape[1] - correction;
    sp_status status = SP_OK;
    SP_TRY(centred(x, w, &away));
    if (w)
        SP_TRY(sp_mul(away, w, &weighted));
    else
        weighted = sp__retain(away);
    SP_TRY(sp_adjoint(away, &turned));
    SP_TRY(sp_matmul(weighted, turned, &sums));
    if (w) {
        SP_TRY(divisor_of(c, w, correction, &divisor));
        SP_TRY(sp_div(sums, divisor, out));
    } else {
        SP_TRY(sp_div_scalar(sums, SP_FLOAT(n > 0 ? n : 0), out));
    }
out:
    sp_drop(&away), sp_drop(&weighted), sp_drop(&turned), sp_drop(&sums), sp_drop(&divisor);
    return status;
}

static sp_status covariances(const sp_call *c, double correction, bool weights, sp_tensor **out)
{
    const sp_tensor *x = c->in[0];
    sp_tensor *numbers = NULL, *rows = NULL, *w = NULL, *all = NULL;
    sp_status status = SP_OK;
    if (x->rank > 2)
        return sp_fail(SP_ESHAPE, "%s: x has shape %s, expected two dimensions at most",
                       sp__op_name(c), SP_SHAPE(x));
    int64_t shape[2] = {rows_of(x), columns_of(x)};
    SP_TRY(sp_cast(x, sp__to_floating((sp_dtype)x->dtype), &numbers));
    SP_TRY(sp_reshape(numbers, shape, 2, &rows));
    if (weights) SP_TRY(weights_of(c, shape[1], (sp_dtype)sp__dtype_real(rows->dtype), &w));
    SP_TRY(covariance(c, rows, w, correction, &all));
    SP_TRY(sp_reshape(all, all->shape, x->rank == 2 && shape[0] != 1 ? 2 : 0, out));
out:
    sp_drop(&numbers), sp_drop(&rows), sp_drop(&w), sp_drop(&all);
    return status;
}

sp_status sp__body_cov(sp_call *c)
{
    return covariances(c, (double)c->attr[SP_COV_CORRECTION].v.i, true, &c->out[0]);
}

/* Between -1 and 1, of complex numbers both parts. */
static sp_status within_one(const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *parts = NULL, *least = NULL;
    sp_status status = SP_OK;
    if (!sp__dtype_is_complex(x->dtype)) return sp_clamp(x, SP_INT(-1), SP_INT(1), out);
    SP_TRY(sp_view_as_real(x, &parts));
    SP_TRY(sp_clamp(parts, SP_INT(-1), SP_INT(1), &least));
    SP_TRY(sp_view_as_complex(least, out));
out:
    sp_drop(&parts), sp_drop(&least);
    return status;
}

sp_status sp__body_corrcoef(sp_call *c)
{
    sp_tensor *all = NULL, *line = NULL, *variances = NULL, *deviation = NULL, *column = NULL,
              *part = NULL, *whole = NULL;
    sp_status status = SP_OK;
    SP_TRY(covariances(c, 1, false, &all));
    if (all->rank == 0) {
        SP_TRY(sp_div(all, all, &c->out[0]));
    } else {
        SP_TRY(sp_diagonal(all, NULL, &line));
        SP_TRY(sp_real(line, &variances));
        SP_TRY(sp_sqrt(variances, &deviation));
        SP_TRY(sp_unsqueeze(deviation, 1, &column));
        SP_TRY(sp_div(all, column, &part));
        SP_TRY(sp_div(part, deviation, &whole));
        SP_TRY(within_one(whole, &c->out[0]));
    }
out:
    sp_drop(&all), sp_drop(&line), sp_drop(&variances), sp_drop(&deviation), sp_drop(&column),
        sp_drop(&part), sp_drop(&whole);
    return status;
}
