/* Reading, writing and adding at places that an index names, one an element or one a slice.
 *
 * Every index is checked before anything is written to what may be an argument: a failed call
 * leaves its arguments as they were. gather and index_select write a new result alone, and check on
 * the way. The loops are those of places.c.
 */
#include <string.h>

#include "backends/cpu/dense.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/places.h"
#include "backends/cpu/strided.h"
#include "ops/attr.h"
#include "ops/index.h"
#include "ops/op.h"
#include "ops_gen.h"

enum { BLOCK = 512 }; /* indices read at a time */

static int dim_of(const sp_kargs *args, int rank)
{
    int64_t dim = args->attr[0].v.i;
    return (int)(dim < 0 ? dim + rank : dim);
}

static sp_status out_of_range(const sp_kargs *args, int64_t index, int dim, int64_t size)
{
    return sp_fail(SP_EINDEX,
                   "%s: index %lld is out of range for dimension %d of size %lld: indices go from "
                   "%lld to %lld",
                   sp_op_table[args->op].name, (long long)index, dim, (long long)size,
                   (long long)-size, (long long)size - 1);
}

/* Whether all of x's values lie in [-size, size). */
static sp_status check_indices(const sp_kargs *args, const sp_operand *x, int dim, int64_t size)
{
    int64_t index;
    if (sp__indices_within((const int64_t *)(void *)x->data, x->rank, x->shape, x->stride, -size,
                           size, &index))
        return SP_OK;
    return out_of_range(args, index, dim, size);
}

/* A tensor without dimensions is one of a single element. */
static void at_least_one_dim(sp_operand *x)
{
    if (x->rank == 0) x->rank = 1, x->shape[0] = 1, x->stride[0] = 1;
}

/* inputs: x, index, src. x with src's elements at the places of `index`, which is `given` or made
 * of it. */
static sp_status meet(const sp_kargs *args, sp_meeting how, const sp_operand *given,
                      const sp_operand *index, int dim)
{
    sp_operand out = args->arg[0], src = args->arg[3];
    bool in_place = out.data == args->arg[1].data;
    at_least_one_dim(&out), at_least_one_dim(&src);
    if (in_place) SP_RETURN_IF(check_indices(args, given, dim, out.shape[dim]));
    sp__copy_unless_same(&args->arg[0], &args->arg[1]);
    if (src.numel > 0 && sp__places_run(how, index, &src, &out, dim)) return SP_OK;
    return check_indices(args, given, dim, out.shape[dim]);
}

/* ---- one index an element ----- */

/* attributes: dim */
sp_status sp__cpu_gather(const sp_kargs *args)
{
    sp_operand out = args->arg[0], x = args->arg[1], index = args->arg[2];
    at_least_one_dim(&out), at_least_one_dim(&x), at_least_one_dim(&index);
    int dim = dim_of(args, x.rank);
    if (out.numel > 0 && sp__places_run(SP_PLACES_READ, &index, &out, &x, dim)) return SP_OK;
    return check_indices(args, &index, dim, x.shape[dim]);
}

/* attributes: dim; inputs: x, index, src. x with src's elements at their places. */
static sp_status scatter(const sp_kargs *args, sp_meeting how)
{
    sp_operand out = args->arg[0], index = args->arg[2], src = args->arg[3];
    at_least_one_dim(&out), at_least_one_dim(&index), at_least_one_dim(&src);
    int dim = dim_of(args, out.rank);
    return meet(args, how, &index, &index, dim);
}

sp_status sp__cpu_scatter_add(const sp_kargs *args)
{
    return scatter(args, SP_PLACES_ADD);
}

/* attributes: dim, fold */
sp_status sp__cpu_scatter_fold(const sp_kargs *args)
{
    static const sp_meeting folds[] = {[SP_FOLD_PROD] = SP_PLACES_MUL,
                                       [SP_FOLD_AMAX] = SP_PLACES_MAX,
                                       [SP_FOLD_AMIN] = SP_PLACES_MIN};
    return scatter(args, folds[args->attr[SP_SCATTER_FOLD_FOLD].v.i]);
}

sp_status sp__cpu_scatter(const sp_kargs *args)
{
    return scatter(args, SP_PLACES_WRITE);
}

/* attributes: dim, value; inputs: x, index. A src of one element, everywhere. */
sp_status sp__cpu_scatter_value(const sp_kargs *args)
{
    char value[16];
    sp_kargs spread = *args;
    sp_operand *src = &spread.room[3];
    spread.arg = spread.room, spread.n_arg = 4;
    for (int i = 0; i < 3; i++) spread.room[i] = args->arg[i];
    *src = args->arg[2];
    src->data = value, src->dtype = args->arg[0].dtype;
    for (int d = 0; d < src->rank; d++) src->stride[d] = 0;
    sp__scalar_to(sp__attr_to_scalar(&args->attr[1]), src->dtype, value);
    return scatter(&spread, SP_PLACES_WRITE);
}

/* ---- several indices made one ----- */

static sp_status check_each(const sp_kargs *args)
{
    for (int i = 1; i < args->n_arg; i++) {
        const sp_status status =
            check_indices(args, &args->arg[i], i - 1, args->attr[0].v.ints[i - 1]);
        if (status != SP_OK) return status;
    }
    return SP_OK;
}

/* x broadcast to out's shape. */
static sp_operand spread_to(const sp_operand *x, const sp_operand *out)
{
    sp_operand s = *x;
    int lead = out->rank - x->rank;
    for (int d = 0; d < out->rank; d++) {
        s.shape[d] = out->shape[d];
        s.stride[d] = d < lead || x->shape[d - lead] == 1 ? 0 : x->stride[d - lead];
    }
    s.rank = out->rank, s.numel = out->numel;
    return s;
}

/* attributes: dims; the output is dense */
sp_status sp__cpu_ravel_multi_index(const sp_kargs *args)
{
    sp_operand out = args->arg[0];
    const int64_t *sizes = args->attr[0].v.ints;
    SP_RETURN_IF(check_each(args));
    if (out.numel > 0) memset(out.data, 0, (size_t)out.numel * 8);
    for (int i = 1; i < args->n_arg; i++) {
        sp_operand x = spread_to(&args->arg[i], &out);
        int64_t room[BLOCK], size = sizes[i - 1];
        for (int64_t at = 0; at < out.numel; at += BLOCK) {
            int64_t n = out.numel - at < BLOCK ? out.numel - at : BLOCK;
            int64_t *to = (int64_t *)(void *)out.data + at;
            sp__gather(room, &x, at, n);
            for (int64_t k = 0; k < n; k++)
                to[k] = to[k] * size + (room[k] < 0 ? room[k] + size : room[k]);
        }
    }
    return SP_OK;
}

/* attributes: num_classes; the output is dense */
sp_status sp__cpu_one_hot(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0], *x = &args->arg[1];
    int64_t classes = args->attr[0].v.i, room[BLOCK];
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t at = 0; at < x->numel; at += BLOCK) {
            int64_t n = x->numel - at < BLOCK ? x->numel - at : BLOCK;
            sp__gather(room, x, at, n);
            for (int64_t i = 0; i < n; i++) {
                if (room[i] < 0 || room[i] >= classes)
                    return sp_fail(SP_EINDEX, "%s: class %lld is out of range: there are %lld",
                                   sp_op_table[args->op].name, (long long)room[i],
                                   (long long)classes);
                int64_t one = 1, *row = (int64_t *)(void *)out->data + (at + i) * classes;
                if (pass) memset(row, 0, (size_t)classes * 8), row[room[i]] = one;
            }
        }
    }
    return SP_OK;
}

/* ---- counting ----- */

/* attributes: num_classes */
sp_status sp__cpu_count_classes(const sp_kargs *args)
{
    sp_dense dense[2];
    int64_t classes = args->attr[0].v.i, n = args->arg[1].numel, found;
    sp_status status = sp__dense_begin(args, dense);
    const int64_t *x = (const int64_t *)(void *)dense[1].data;
    if (status == SP_OK && !sp__places_count(x, n, classes, (int64_t *)(void *)dense[0].data)) {
        sp__indices_within(x, 1, &n, (int64_t[]){1}, 0, classes, &found);
        status = sp_fail(SP_EINDEX, "%s: x holds %lld, expected numbers from 0 to %lld",
                         sp_op_table[args->op].name, (long long)found, (long long)classes - 1);
    }
    return sp__dense_end(args, dense, status);
}

/* ---- one index a slice ----- */

/* attributes: dim */
sp_status sp__cpu_index_select(const sp_kargs *args)
{
    sp_operand out = args->arg[0], x = args->arg[1], list = args->arg[2];
    at_least_one_dim(&out), at_least_one_dim(&x);
    int dim = dim_of(args, x.rank);
    sp_operand index = sp__places_of_slices(&list, &out, dim);
    if (out.numel > 0 && sp__places_run(SP_PLACES_READ, &index, &out, &x, dim)) return SP_OK;
    return check_indices(args, &list, dim, x.shape[dim]);
}

/* attributes: dim; inputs: x, index, src */
static sp_status scatter_slices(const sp_kargs *args, sp_meeting how)
{
    sp_operand out = args->arg[0], list = args->arg[2], src = args->arg[3];
    at_least_one_dim(&out), at_least_one_dim(&src);
    int dim = dim_of(args, out.rank);
    sp_operand index = sp__places_of_slices(&list, &src, dim);
    return meet(args, how, &list, &index, dim);
}

sp_status sp__cpu_index_copy(const sp_kargs *args)
{
    return scatter_slices(args, SP_PLACES_WRITE);
}

sp_status sp__cpu_index_add(const sp_kargs *args)
{
    return scatter_slices(args, SP_PLACES_ADD);
}
