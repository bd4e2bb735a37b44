/* nll_loss and its transpose. */
#include <string.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/reduce.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "ops_gen.h"
#include "tensor/memory.h"

typedef struct classes { /* x (C), (N, C) or (N, C, d1, ...) as target's positions and a class */
    sp_operand places;   /* x without the classes, target's shape */
    int64_t count, stride;
} classes;

static classes classes_of(const sp_operand *x)
{
    int dim = x->rank > 1 ? 1 : 0;
    classes c = {.places = *x, .count = x->shape[dim], .stride = x->stride[dim]};
    c.places.rank--;
    for (int d = dim; d < c.places.rank; d++) {
        c.places.shape[d] = c.places.shape[d + 1], c.places.stride[d] = c.places.stride[d + 1];
    }
    c.places.numel = 1;
    for (int d = 0; d < c.places.rank; d++) c.places.numel *= c.places.shape[d];
    return c;
}

/* Where the classes of target number i begin. */
static char *place_at(const classes *c, int64_t i)
{
    const sp_operand *x = &c->places;
    return x->rank == 1 ? x->data + i * x->stride[0] * sp__size_of(x->dtype) : sp__element_at(x, i);
}

static int64_t target_at(const sp_operand *target, int64_t i)
{
    int64_t value;
    memcpy(&value, target->contiguous ? target->data + i * 8 : sp__element_at(target, i), 8);
    return value;
}

/* How many targets count, if all do that are not ignored. */
static sp_status check_targets(const sp_operand *target, int64_t count, int64_t ignored,
                               int64_t *valid)
{
    *valid = target->numel;
    for (int64_t i = 0; i < target->numel; i++) {
        int64_t value = target_at(target, i);
        if (value == ignored) --*valid;
        if ((value >= 0 && value < count) || value == ignored) continue;
        return sp_fail(SP_EINDEX,
                       "nll_loss: target %lld is out of range for %lld classes: expected 0 to %lld",
                       (long long)value, (long long)count, (long long)count - 1);
    }
    return SP_OK;
}

/* losses[i] = -x[place i][target i], dense; 0 where the target is ignored */
static void pick_losses(const classes *c, const sp_operand *target, int64_t ignored, char *losses,
                        int dtype)
{
    int64_t size = sp__size_of(dtype);
    for (int64_t i = 0; i < target->numel; i++) {
        int64_t value = target_at(target, i);
        const char *from = place_at(c, i) + value * c->stride * size;
        if (value == ignored)
            memset(losses + i * size, 0, (size_t)size);
        else
            memcpy(losses + i * size, from, (size_t)size);
    }
    sp__isa->pointwise[SP_OP_NEG]->fn[dtype](losses, losses, NULL, NULL, target->numel, 0);
}

static void divide(void *x, int64_t n, int dtype)
{
    double divisor;
    float narrow = (float)n, *f = x;
    if (dtype == SP_FLOAT32)
        memcpy(&divisor, &narrow, sizeof narrow);
    else
        divisor = (double)n;
    sp__isa->pointwise[SP_OP_DIV_SCALAR]->fn[dtype](f, f, &divisor, NULL, 1, 2);
}

/* attributes: reduction, ignore_index */
sp_status sp__cpu_nll_loss(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0], *target = &args->arg[2];
    int64_t reduction = args->attr[SP_NLL_LOSS_REDUCTION].v.i, size = sp__size_of(out->dtype),
            ignored = args->attr[SP_NLL_LOSS_IGNORE_INDEX].v.i, valid;
    classes c = classes_of(&args->arg[1]);
    SP_RETURN_IF(check_targets(target, c.count, ignored, &valid));
    if (reduction == SP_REDUCTION_NONE && out->contiguous) {
        pick_losses(&c, target, ignored, out->data, out->dtype);
        return SP_OK;
    }
    size_t bytes = (size_t)(target->numel * size);
    char *losses = sp__alloc(bytes);
    if (losses == NULL)
        return sp_fail(SP_EMEMORY, "nll_loss: no memory for %zu bytes of losses", bytes);
    pick_losses(&c, target, ignored, losses, out->dtype);
    if (reduction == SP_REDUCTION_NONE) {
        sp__scatter(out, losses, 0, target->numel);
    } else {
        sp__reduce_row(SP_TREE_SUM, out->dtype, losses, target->numel, out->data);
        if (reduction == SP_REDUCTION_MEAN) divide(out->data, valid, out->dtype);
    }
    sp__free(losses, bytes);
    return SP_OK;
}

/* The element of grad, at i if there is one a target, negated and divided. */
static void put_share(const sp_operand *grad, int64_t i, double divisor, char *to)
{
    const char *from = grad->numel == 1 ? grad->data : sp__element_at(grad, i);
    float narrow;
    double wide;
    if (grad->dtype == SP_FLOAT32) {
        memcpy(&narrow, from, sizeof narrow);
        narrow = -narrow / (float)divisor;
        memcpy(to, &narrow, sizeof narrow);
    } else {
        memcpy(&wide, from, sizeof wide);
        wide = -wide / divisor;
        memcpy(to, &wide, sizeof wide);
    }
}

static void clear(const sp_operand *x, int64_t size)
{
    if (x->contiguous) {
        memset(x->data, 0, (size_t)(x->numel * size));
        return;
    }
    for (int64_t i = 0; i < x->numel; i++) memset(sp__element_at(x, i), 0, (size_t)size);
}

/* inputs: grad, target; attributes: size, reduction, ignore_index */
sp_status sp__cpu_nll_loss_backward(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0], *grad = &args->arg[1], *target = &args->arg[2];
    int64_t size = sp__size_of(out->dtype), valid,
            ignored = args->attr[SP_NLL_LOSS_BACKWARD_IGNORE_INDEX].v.i;
    bool mean = args->attr[SP_NLL_LOSS_BACKWARD_REDUCTION].v.i == SP_REDUCTION_MEAN;
    classes c = classes_of(out);
    SP_RETURN_IF(check_targets(target, c.count, ignored, &valid));
    clear(out, size);
    for (int64_t i = 0; i < target->numel; i++) {
        int64_t value = target_at(target, i);
        if (value == ignored) continue;
        put_share(grad, i, mean ? (double)valid : 1, place_at(&c, i) + value * c.stride * size);
    }
    return SP_OK;
}
