/* Derivatives of scatter_fold: extrema and products of what an index brings together.
 *
 * They are made of ops, so they have derivatives in turn. The derivative of a product with respect
 * to a factor is the product of the others: the factors are sorted by place, so that those of one
 * place follow one another, and multiplied up from both ends of such a run:
 *
 *     before[i] = 1 where a run begins, else f[i - 1] before[i - 1]       after[i] likewise
 *
 * which are linear recurrences, as in rules_scan.c: nothing is divided by, so zeros need no care at
 * any order.
 */
#include "autograd/rules.h"

#include "ops_gen.h"

/* Everything at one place of the fold: x's own element, and src's. */
typedef struct fold_args {
    const sp_tensor *x, *index, *src, *y;
    int64_t dim;
} fold_args;

static sp_status truth_as(const sp_tensor *a, const sp_tensor *b, sp_dtype dtype, sp_tensor **out)
{
    sp_tensor *same = NULL;
    SP_RETURN_IF(sp_eq(a, b, &same));
    sp_status status = sp_cast(same, dtype, out);
    sp_drop(&same);
    return status;
}

/* ---- extrema ----- */

/* Which elements are the extremum: 1 or 0; and the gradient's share for each of them. */
static sp_status shares(const fold_args *a, const sp_tensor *gy, sp_tensor **own,
                        sp_tensor **others, sp_tensor **share)
{
    sp_dtype dtype = (sp_dtype)a->x->dtype;
    sp_tensor *there = NULL, *count = NULL;
    sp_status status = SP_OK;
    SP_TRY(truth_as(a->x, a->y, dtype, own));
    SP_TRY(sp_gather(a->y, a->dim, a->index, &there));
    SP_TRY(truth_as(a->src, there, dtype, others));
    SP_TRY(sp_scatter_add(*own, a->dim, a->index, *others, &count));
    SP_TRY(sp_div(gy, count, share));
out:
    sp_drop(&there), sp_drop(&count);
    return status;
}

static sp_status extremum(const fold_args *a, const sp_tensor *gy, bool of_src, sp_tensor **out)
{
    sp_tensor *own = NULL, *others = NULL, *share = NULL, *there = NULL;
    sp_status status = SP_OK;
    SP_TRY(shares(a, gy, &own, &others, &share));
    if (of_src) {
        SP_TRY(sp_gather(share, a->dim, a->index, &there));
        SP_TRY(sp_mul(there, others, out));
    } else {
        SP_TRY(sp_mul(share, own, out));
    }
out:
    sp_drop(&own), sp_drop(&others), sp_drop(&share), sp_drop(&there);
    return status;
}

/* ---- products ----- */

/* The part of x that the index can name: its first elements in the other dimensions. */
static sp_status named_part(const fold_args *a, const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *part = sp__retain(x);
    for (int d = 0; d < x->rank; d++) {
        sp_tensor *less = NULL;
        if (d == a->dim || a->index->shape[d] == x->shape[d]) continue;
        sp_status status = sp_slice(part, d, 0, a->index->shape[d], NULL, &less);
        sp_drop(&part);
        SP_RETURN_IF(status);
        part = less;
    }
    *out = part;
    return SP_OK;
}

static sp_status joined(const fold_args *a, const sp_tensor *x, const sp_tensor *src,
                        sp_tensor **out)
{
    const sp_cat_opt opt = {.size = sizeof opt, .dim = a->dim};
    const sp_tensor *both[2] = {x, src};
    return sp_cat(both, 2, &opt, out);
}

/* The places of x's elements, then those of src's, along dim; all from 0 on. */
static sp_status all_places(const fold_args *a, const sp_tensor *part, sp_tensor **out)
{
    int64_t n = a->x->shape[a->dim], shape[SP_MAX_RANK];
    sp_tensor *line = NULL, *lined = NULL, *own = NULL, *more = NULL, *places = NULL;
    sp_status status = SP_OK;
    for (int d = 0; d < part->rank; d++) shape[d] = d == a->dim ? n : 1;
    SP_TRY(sp_arange(SP_INT(0), SP_INT(n), NULL, &line));
    SP_TRY(sp_reshape(line, shape, part->rank, &lined));
    SP_TRY(sp_expand(lined, part->shape, part->rank, &own));
    SP_TRY(sp_add_scalar(a->index, SP_INT(n), &more));
    SP_TRY(sp_remainder_scalar(more, SP_INT(n), &places));
    SP_TRY(joined(a, own, places, out));
out:
    sp_drop(&line), sp_drop(&lined), sp_drop(&own), sp_drop(&more), sp_drop(&places);
    return status;
}

/* Where, along dim, a sorted place differs from the one before: runs begin there. */
static sp_status run_starts(const fold_args *a, const sp_tensor *places, sp_tensor **out)
{
    int64_t n = places->shape[a->dim], shape[SP_MAX_RANK];
    const sp_scalar truth = {.v.i = 1, .kind = SP_BOOL};
    sp_tensor *first = NULL, *before = NULL, *behind = NULL, *differ = NULL;
    sp_status status = SP_OK;
    for (int d = 0; d < places->rank; d++) shape[d] = d == a->dim ? 1 : places->shape[d];
    SP_TRY(sp_full(shape, places->rank, truth, NULL, &first));
    SP_TRY(sp_slice(places, a->dim, 0, n - 1, NULL, &before));
    SP_TRY(sp_slice(places, a->dim, 1, n, NULL, &behind));
    SP_TRY(sp_ne(behind, before, &differ));
    SP_TRY(joined(a, first, differ, out));
out:
    sp_drop(&first), sp_drop(&before), sp_drop(&behind), sp_drop(&differ);
    return status;
}

/* t moved on along dim, what goes over an edge coming round. */
static sp_status moved(const fold_args *a, const sp_tensor *t, int64_t by, sp_tensor **out)
{
    if (by == 0) {
        *out = sp__retain(t);
        return SP_OK;
    }
    const sp_roll_opt opt = {.size = sizeof opt, .dims = &a->dim, .n_dims = 1};
    return sp_roll(t, &by, 1, &opt, out);
}

/* The product of the factors before, or behind, each in its run. */
static sp_status products_beside(const fold_args *a, const sp_tensor *factors,
                                 const sp_tensor *starts, bool behind, sp_tensor **out)
{
    const sp_linear_scan_opt opt = {.size = sizeof opt, .reverse = behind};
    sp_tensor *edges = NULL, *ones = NULL, *beside = NULL, *steps = NULL;
    sp_status status = SP_OK;
    SP_TRY(moved(a, starts, behind ? -1 : 0, &edges));
    SP_TRY(sp_cast(edges, (sp_dtype)factors->dtype, &ones));
    SP_TRY(moved(a, factors, behind ? 0 : 1, &beside));
    SP_TRY(sp_where_scalar_x(starts, SP_INT(0), beside, &steps));
    SP_TRY(sp_linear_scan(ones, steps, a->dim, &opt, out));
out:
    sp_drop(&edges), sp_drop(&ones), sp_drop(&beside), sp_drop(&steps);
    return status;
}

/* gy times the products of the other factors, of all of x's named part and then of src, along dim.
 */
static sp_status factor_gradients(const fold_args *a, const sp_tensor *gy, const sp_tensor *part,
                                  sp_tensor **out)
{
    const sp_sort_opt along = {.size = sizeof along, .has_dim = true, .dim = a->dim};
    sp_tensor *places = NULL, *sorted = NULL, *order = NULL, *all = NULL, *factors = NULL,
              *starts = NULL, *before = NULL, *after = NULL, *g = NULL, *half = NULL, *whole = NULL;
    sp_status status = SP_OK;
    SP_TRY(all_places(a, part, &places));
    SP_TRY(sp_sort(places, &along, &sorted, &order));
    SP_TRY(joined(a, part, a->src, &all));
    SP_TRY(sp_gather(all, a->dim, order, &factors));
    SP_TRY(run_starts(a, sorted, &starts));
    SP_TRY(products_beside(a, factors, starts, false, &before));
    SP_TRY(products_beside(a, factors, starts, true, &after));
    SP_TRY(sp_gather(gy, a->dim, sorted, &g));
    SP_TRY(sp_mul(g, before, &half));
    SP_TRY(sp_mul(half, after, &whole));
    SP_TRY(sp_scatter(whole, a->dim, order, whole, out)); /* each to where it stood */
out:
    sp_drop(&places), sp_drop(&sorted), sp_drop(&order), sp_drop(&all), sp_drop(&factors);
    sp_drop(&starts), sp_drop(&before), sp_drop(&after), sp_drop(&g), sp_drop(&half);
    sp_drop(&whole);
    return status;
}

/* gy, but part where its first elements in dimensions d and on are. */
static sp_status put_back(const sp_tensor *gy, const sp_tensor *part, int d, sp_tensor **out)
{
    sp_tensor *row = NULL, *whole = NULL;
    sp_status status = SP_OK;
    while (d < part->rank && part->shape[d] == gy->shape[d]) d++;
    if (d == part->rank) {
        *out = sp__retain(part);
        return SP_OK;
    }
    const sp_slice_scatter_opt to = {
        .size = sizeof to, .dim = d, .has_end = true, .end = part->shape[d]};
    SP_TRY(sp_slice(gy, d, 0, part->shape[d], NULL, &row));
    SP_TRY(put_back(row, part, d + 1, &whole));
    SP_TRY(sp_slice_scatter(gy, whole, &to, out));
out:
    sp_drop(&row), sp_drop(&whole);
    return status;
}

static sp_status nothing_met(const fold_args *a, const sp_tensor *gy, bool of_src, sp_tensor **out)
{
    const sp_full_opt like = {.size = sizeof like, .has_dtype = true, .dtype = (sp_dtype)gy->dtype};
    if (of_src) return sp_full(a->src->shape, a->src->rank, SP_INT(0), &like, out);
    *out = sp__retain(gy);
    return SP_OK;
}

static sp_status factor(const fold_args *a, const sp_tensor *gy, bool of_src, sp_tensor **out)
{
    int64_t n = a->x->shape[a->dim];
    sp_tensor *part = NULL, *all = NULL, *own = NULL;
    sp_status status = SP_OK;
    if (a->index->numel == 0) return nothing_met(a, gy, of_src, out);
    SP_TRY(named_part(a, a->x, &part));
    SP_TRY(factor_gradients(a, gy, part, &all));
    if (of_src) {
        SP_TRY(sp_slice(all, a->dim, n, n + a->index->shape[a->dim], NULL, out));
    } else {
        SP_TRY(sp_slice(all, a->dim, 0, n, NULL, &own));
        SP_TRY(put_back(gy, own, 0, out));
    }
out:
    sp_drop(&part), sp_drop(&all), sp_drop(&own);
    return status;
}

/* ---- both ----- */

sp_status sp__rule_scatter_fold_x(const sp_tensor *gy, const sp_tensor *x, int64_t dim,
                                  const sp_tensor *index, const sp_tensor *src, const sp_tensor *y,
                                  int64_t fold, sp_tensor **out)
{
    const fold_args a = {
        .x = x, .index = index, .src = src, .y = y, .dim = dim < 0 ? dim + x->rank : dim};
    *out = NULL;
    return (fold == SP_FOLD_PROD ? factor : extremum)(&a, gy, false, out);
}

sp_status sp__rule_scatter_fold_src(const sp_tensor *gy, const sp_tensor *x, int64_t dim,
                                    const sp_tensor *index, const sp_tensor *src,
                                    const sp_tensor *y, int64_t fold, sp_tensor **out)
{
    const fold_args a = {
        .x = x, .index = index, .src = src, .y = y, .dim = dim < 0 ? dim + x->rank : dim};
    *out = NULL;
    return (fold == SP_FOLD_PROD ? factor : extremum)(&a, gy, true, out);
}
