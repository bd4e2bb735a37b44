/* The vmap rule of convolutions.
 *
 * One op computes y of x and w, its transposes x of y and w, and w of y and x. Which dimensions of
 * the three tensors take the mapped one in follows from what is the same for all examples, so that
 * one rule serves all three ops:
 *
 *     the same     x (N, C, ...)   w (O, C / g, ...)   y (N, O, ...)
 *     w            N                                   N
 *     x                            O                   O
 *     y            C               C / g
 *     nothing      C               O                   O               and g is B times as large
 *
 * C and O consist of groups, so the mapped dimension goes in between a group and its channels; but
 * where each example becomes a group, or g of them, it comes first.
 */
#include "autograd/vmap_int.h"

#include <string.h>

typedef enum role { X, W, Y, NOTHING } role;

typedef struct way {
    int8_t dim[NOTHING];   /* of x, w and y; -1: it is the same for all */
    bool grouped[NOTHING]; /* whether that consists of groups */
} way;

static const way ways[] = {
    [W] = {.dim = {0, -1, 0}},
    [X] = {.dim = {-1, 0, 1}, .grouped = {false, true, true}},
    [Y] = {.dim = {1, 1, -1}, .grouped = {true, false, false}},
    [NOTHING] = {.dim = {1, 0, 1}},
};

typedef struct roles {
    role in[2], out;
    int groups; /* the attribute; the first one is the result's size, but for y */
} roles;

static roles roles_of(int op)
{
    if (op == SP_OP_CONVOLUTION) return (roles){{X, W}, Y, SP_CONVOLUTION_GROUPS};
    if (op == SP_OP_CONVOLUTION_INPUT) return (roles){{Y, W}, X, SP_CONVOLUTION_INPUT_GROUPS};
    return (roles){{Y, X}, W, SP_CONVOLUTION_WEIGHT_GROUPS};
}

static role same_for_all(const sp_batch *b, const roles *r)
{
    if (!sp__batched(b, 0)) return r->in[0];
    return sp__batched(b, 1) ? NOTHING : r->in[1];
}

static void size_of_all(sp_batch *b, int dim)
{
    const sp_attr *size = &b->c->attr[0];
    memcpy(b->ints[0], size->v.ints, sizeof *size->v.ints * (size_t)size->n);
    b->ints[0][dim] *= b->size;
    sp__batch_set_ints(b, 0, b->ints[0], size->n);
}

/* The call without a bias, its result taken apart again. */
static sp_status convolve(sp_batch *b, const roles *r, role same, sp_tensor **out)
{
    const way *w = &ways[same];
    int64_t groups = b->c->attr[r->groups].v.i;
    for (int i = 0; i < 2; i++) {
        role is = r->in[i];
        if (w->dim[is] < 0) continue;
        SP_RETURN_IF(sp__batch_fold_input(b, i, w->dim[is], w->grouped[is] ? groups : 1));
    }
    if (r->out != Y) size_of_all(b, w->dim[r->out]);
    if (same == NOTHING) sp__batch_set_int(b, r->groups, groups * b->size);
    SP_RETURN_IF(sp__dispatch(&b->low));
    sp_tensor *y = b->low.out[0];
    b->low.out[0] = NULL;
    sp_status status = sp__batch_unfold(b, y, w->dim[r->out], w->grouped[r->out] ? groups : 1, out);
    sp_drop(&y);
    return status;
}

/* A bias as (B, 1, O, 1, ...), or (O, 1, ...). */
static sp_status bias_beside(const sp_batch *b, const sp_tensor *bias, sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK + 1] = {b->size, 1};
    int n = sp__batched(b, 2) ? 2 : 0, rank = n + b->c->in[0]->rank - 1;
    shape[n++] = b->c->in[2]->numel;
    while (n < rank) shape[n++] = 1;
    return sp_reshape(bias, shape, rank, out);
}

/* The bias goes along where it is the same for all of N, and is added to the result otherwise. */
sp_status sp__batch_convolution(sp_batch *b)
{
    const roles r = roles_of(b->c->op);
    role same = same_for_all(b, &r);
    bool mapped = sp__batched(b, 0) || sp__batched(b, 1),
         apart = b->c->n_in > 2 && b->c->in[2] && (same != W || sp__batched(b, 2));
    sp_tensor *bias = NULL, *beside = NULL, *y = NULL;
    sp_status status = SP_OK;
    b->done = true;
    if (apart) bias = b->low.in[2], b->low.in[2] = NULL;
    if (mapped) {
        SP_TRY(convolve(b, &r, same, &y));
    } else {
        SP_TRY(sp__dispatch(&b->low));
        y = b->low.out[0], b->low.out[0] = NULL;
    }
    if (apart) SP_TRY(bias_beside(b, bias, &beside));
    if (apart)
        SP_TRY(sp_add(y, beside, &b->low.out[0]));
    else
        b->low.out[0] = sp__retain(y);
out:
    sp_drop(&bias), sp_drop(&beside), sp_drop(&y);
    return status;
}
