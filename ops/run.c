/* sp__run(): a call, evaluated. The bottom of the way that dispatch.h describes.
 *
 *     uniform?       inputs dense, of one shape and dtype: no inference, the result's dtype is
 *                    remembered per opcode
 *     fresh results  infer, make handles; then a view is done, a composite without a kernel runs
 * its body, a kernel is launched in place, out= check the target, infer, check that the result
 * fits; launch over it, or into a copy where the kernel would overwrite what it reads
 */
#include <stdio.h>
#include <string.h>

#include "ops/launch_int.h"
#include "ops/random.h"
#include "ops/write.h"

/* ---- uniform calls ----- */

/* What pointwise ops yield for inputs of one dtype, per opcode, that dtype, and the kind of
 * their number if they have one: 0 unknown, else (result dtype + 1) | compute dtype << 8. Filled
 * by inference, which does not look at anything else in calls that rule_of() admits. */
static _Atomic uint16_t rules[SP_OP_COUNT][SP_DTYPE_COUNT][SP_KIND_FLOAT + 1];

static inline _Atomic uint16_t *rule_of(const sp_call *c)
{
    if (c->n_attr > 1 || (c->n_attr == 1 && c->attr[0].kind != SP_ATTR_SCALAR)) return NULL;
    return &rules[c->op][c->in[0]->dtype][c->n_attr ? sp__dtype_kind(c->attr[0].tag) : 0];
}

/* Inference of these checks the number of a call on integers: the exponent's sign, a divisor of 0.
 */
static bool looks_at_number(int op)
{
    return op == SP_OP_POW_SCALAR || op == SP_OP_FLOOR_DIVIDE_SCALAR ||
           op == SP_OP_REMAINDER_SCALAR || op == SP_OP_FMOD_SCALAR;
}

static void learn_rule(const sp_call *c, const sp_meta *result)
{
    _Atomic uint16_t *rule = rule_of(c);
    if (!rule) return;
    if (sp__dtype_is_integer(result->dtype) && looks_at_number(c->op)) return;
    unsigned compute = sp__pointwise_compute(c);
    atomic_store_explicit(rule, (uint16_t)((result->dtype + 1u) | compute << 8),
                          memory_order_relaxed);
}

static inline bool is_dense(const sp_tensor *t)
{
    return (t->flags & (SP_T_CONTIGUOUS | SP_T_WRAPPED)) == SP_T_CONTIGUOUS && !t->storage->region;
}

static inline bool same_shape(const sp_tensor *a, const sp_tensor *b)
{
    if (a->numel != b->numel || a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->shape[i] != b->shape[i]) return false;
    return true;
}

/* A further input beside a: dense, of a's shape, dtype and device; and not overlapping a
 * otherwise than exactly if a is written. */
static inline bool goes_with(const sp_tensor *a, const sp_tensor *b, bool written)
{
    if (!b || !is_dense(b) || b->dtype != a->dtype || b->device != a->device || !same_shape(a, b))
        return false;
    if (!written) return true;
    return b->storage == a->storage ? b->offset == a->offset : !(b->storage->flags & SP_S_FOREIGN);
}

static inline bool is_uniform(const sp_call *c)
{
    const sp_tensor *a = c->in[0];
    if (!a || !is_dense(a) || a->numel == 0) return false;
    if (c->flags &&
        (c->flags != SP_CALL_INPLACE || a->storage->flags & (SP_S_FOREIGN | SP_S_READONLY)))
        return false;
    if (c->n_in == 1) return true;
    return goes_with(a, c->in[1], c->flags) &&
           (c->n_in == 2 || (c->n_in == 3 && goes_with(a, c->in[2], c->flags)));
}

static inline void fill_line(sp_operand *a, const sp_tensor *t, int dtype, int64_t numel)
{
    a->data = t->storage->data + (t->offset << sp__dtype_shift(dtype));
    a->dtype = (uint8_t)dtype;
    a->rank = numel != 1;
    a->contiguous = true;
    a->numel = numel;
    a->shape[0] = numel;
    a->stride[0] = 1;
}

/* The kernel's arguments are lines of numel elements, whatever the shape. */
static inline sp_status run_uniform(sp_call *c, unsigned rule, sp_kernel kernel)
{
    sp_kargs k;
    sp_tensor *a = c->in[0], *out = a;
    int dtype = a->dtype, result = (int)(rule & 255) - 1;
    int64_t numel = a->numel;
    if (!c->flags) SP_RETURN_IF(sp__handle_like(a, result, &out));
    sp__kargs_header(c, &k);
    k.dense = true;
    k.compute = (uint8_t)(rule >> 8);
    fill_line(&k.room[0], out, result, numel);
    fill_line(&k.room[1], a, dtype, numel);
    for (int i = 1; i < c->n_in; i++) fill_line(&k.room[i + 1], c->in[i], dtype, numel);
    c->out[0] = out;
    sp_status status = sp__launch_filled(c, &k, kernel, out->device, numel * k.n_arg);
    if (SP_UNLIKELY(status != SP_OK)) {
        if (!c->flags) sp_drop(&c->out[0]);
    } else if (c->flags) {
        sp__written(a->storage, c->op);
    }
    return status;
}

/* ---- all others ----- */

static sp_status check_inputs(const sp_call *c, int *device)
{
    *device = SP_DEVICE_CPU;
    for (int i = 0, seen = 0; i < c->n_in; i++) {
        const sp_tensor *t = c->in[i];
        if (!t) continue;
        if (SP_UNLIKELY(!t->storage))
            return sp_fail(
                SP_EUNSUPPORTED,
                "%s: input %d belongs to a transform (vmap, jvp or grad) that is not active here",
                sp_op_table[c->op].name, i);
        if (SP_UNLIKELY(seen && t->device != *device))
            return sp_fail(SP_EDEVICE, "%s: inputs on different devices; move them to one",
                           sp_op_table[c->op].name);
        *device = t->device;
        seen = 1;
    }
    return SP_OK;
}

static sp_status infer(const sp_call *c, int device, sp_meta *meta)
{
    for (int i = 0; i < c->n_out; i++) {
        meta[i].view_of = -1;
        meta[i].offset = 0;
        meta[i].device = (uint8_t)device;
    }
    return sp__infer(c, meta);
}

static void drop_outputs(sp_call *c)
{
    for (int i = 0; i < c->n_out; i++) sp_drop(&c->out[i]);
}

static sp_status make_outputs(sp_call *c, const sp_meta *meta)
{
    for (int i = 0; i < c->n_out; i++) c->out[i] = NULL;
    for (int i = 0; i < c->n_out; i++) {
        sp_storage *shared = meta[i].view_of >= 0 ? c->in[meta[i].view_of]->storage : NULL;
        /* Views of another dtype: neither plans nor the queue look through them. */
        if (shared && c->in[meta[i].view_of]->dtype != meta[i].dtype) shared->flags |= SP_S_FOREIGN;
        sp_status status = sp__handle_new(&meta[i], shared, &c->out[i]);
        if (SP_UNLIKELY(status != SP_OK)) {
            drop_outputs(c);
            return status;
        }
    }
    return SP_OK;
}

/* A composite's body calls public ops; recording, tracing and levels have already seen the
 * composite itself. */
static sp_status run_body(sp_call *c)
{
    sp_tls *tls = &sp__tls, saved = *tls;
    tls->top = NULL;
    tls->tracer = NULL;
    tls->no_grad = true;
    sp_status status = sp__body(c);
    tls->top = saved.top;
    tls->tracer = saved.tracer;
    tls->no_grad = saved.no_grad;
    return status;
}

static sp_status run_fresh(sp_call *c, const sp_op_info *info, bool uniform)
{
    sp_meta meta[SP_MAX_OUT];
    int device;
    SP_RETURN_IF(check_inputs(c, &device));
    if (SP_UNLIKELY(info->flags & SP_OPF_RANDOM)) sp__random_issue(c);
    bool view = (info->flags & SP_OPF_VIEW) != 0;
    sp_kernel kernel = view ? NULL : sp__kernel_of(device, c->op);
    if (info->body && (!kernel || !info->infer)) return run_body(c);
    SP_RETURN_IF(infer(c, device, meta));
    if (!kernel && meta[0].view_of < 0) return sp__kernel_missing(c, device);
    SP_RETURN_IF(make_outputs(c, meta));
    if (meta[0].view_of >= 0) return SP_OK;
    if (uniform) learn_rule(c, &meta[0]);
    sp_status status = sp__launch_kernel(c, kernel, device);
    if (SP_UNLIKELY(status != SP_OK)) drop_outputs(c);
    return status;
}

/* ---- into tensors that are there ----- */

/* "add_" for add.scalar in place, "add" with out=. */
static const char *written_name(const sp_call *c, char *buf, size_t n)
{
    const char *name = sp_op_table[c->op].name;
    snprintf(buf, n, "%.*s%s", (int)strcspn(name, "."), name,
             c->flags & SP_CALL_INPLACE ? "_" : "");
    return buf;
}
#define WRITTEN_NAME(c) written_name(c, (char[64]){0}, 64)

sp_status sp__check_writable(const sp_call *c, const sp_tensor *t)
{
    if (SP_UNLIKELY(!t->storage))
        return sp_fail(
            SP_EUNSUPPORTED,
            "%s: the tensor written belongs to a transform (vmap, jvp or grad) that is not active "
            "here",
            WRITTEN_NAME(c));
    if (SP_UNLIKELY(t->storage->flags & SP_S_READONLY))
        return sp_fail(SP_EVALUE, "%s: the tensor's memory is read-only; write to a clone() of it",
                       WRITTEN_NAME(c));
    if (SP_UNLIKELY(sp__overlaps_itself(t)))
        return sp_fail(SP_EVALUE,
                       "%s: several elements of the tensor of shape %s are one in memory (expand), "
                       "so it cannot be "
                       "written; clone() it first",
                       WRITTEN_NAME(c), SP_SHAPE(t));
    return SP_OK;
}

static sp_status check_fits(const sp_call *c, const sp_tensor *t, const sp_meta *result)
{
    char shape[SP_SHAPE_TEXT];
    bool fits =
        t->rank == result->rank && memcmp(t->shape, result->shape, sizeof *t->shape * t->rank) == 0;
    if (SP_UNLIKELY(!fits))
        return sp_fail(SP_ESHAPE,
                       "%s: the result has shape %s, the tensor to hold it %s; they must be equal, "
                       "because tensors "
                       "are not resized",
                       WRITTEN_NAME(c),
                       sp__shape_text(result->rank, result->shape, shape, sizeof shape),
                       SP_SHAPE(t));
    if (SP_UNLIKELY(sp__dtype_kind(result->dtype) > sp__dtype_kind(t->dtype)))
        return sp_fail(SP_EDTYPE,
                       "%s: the result is %s, which a tensor of %s cannot hold; cast one of them, "
                       "or write to a new "
                       "tensor",
                       WRITTEN_NAME(c), sp_dtype_name((sp_dtype)result->dtype),
                       sp_dtype_name((sp_dtype)t->dtype));
    bool parts_lost = (c->flags & SP_CALL_INPLACE) && sp__dtype_is_complex(t->dtype) &&
                      sp__dtype_is_floating(result->dtype);
    if (SP_UNLIKELY(parts_lost))
        return sp_fail(SP_EDTYPE,
                       "%s: the result is %s, but x is %s; use the form that is not in place",
                       WRITTEN_NAME(c), sp_dtype_name((sp_dtype)result->dtype),
                       sp_dtype_name((sp_dtype)t->dtype));
    return SP_OK;
}

static bool same_elements(const sp_tensor *a, const sp_tensor *b)
{
    return a->storage == b->storage && a->offset == b->offset && a->dtype == b->dtype &&
           same_shape(a, b) && memcmp(a->stride, b->stride, sizeof *a->stride * a->rank) == 0;
}

/* Whether the kernel would overwrite what it has yet to read. Element by element, or as the op's
 * own in-place form, input and output may be one. */
static const int ELEMENTWISE = SP_OPF_POINTWISE | SP_OPF_UPDATES;

static bool reads_what_it_writes(const sp_call *c, int flags)
{
    for (int i = 0; i < c->n_in; i++) {
        const sp_tensor *in = c->in[i];
        for (int k = 0; in && k < c->n_out; k++) {
            const sp_tensor *out = c->out[k];
            if (in->storage != out->storage &&
                !(in->storage->flags & out->storage->flags & SP_S_FOREIGN))
                continue;
            bool allowed =
                (flags & ELEMENTWISE) || (i == 0 && k == 0 && (c->flags & SP_CALL_INPLACE));
            if (!(allowed && same_elements(in, out)) && sp__may_overlap(in, out)) return true;
        }
    }
    return false;
}

static sp_status run_and_copy(sp_call *c, const sp_op_info *info)
{
    sp_call fresh = *c;
    sp_status status = SP_OK;
    fresh.flags = 0;
    SP_RETURN_IF(run_fresh(&fresh, info, false));
    for (int i = 0; i < c->n_out; i++) {
        sp_meta result;
        sp__meta_of(fresh.out[i], &result);
        SP_TRY(check_fits(c, c->out[i], &result));
    }
    for (int i = 0; i < c->n_out; i++) {
        sp_tensor *in[2] = {c->out[i], fresh.out[i]};
        sp_call copy = {.op = SP_OP_COPY,
                        .n_out = 1,
                        .flags = SP_CALL_INPLACE,
                        .n_in = 2,
                        .in = in,
                        .out = {c->out[i]}};
        SP_TRY(sp__launch(&copy));
        sp__written(c->out[i]->storage, c->op);
    }
out:
    drop_outputs(&fresh);
    return status;
}

static sp_status run_into(sp_call *c, const sp_op_info *info, bool uniform)
{
    sp_meta meta[SP_MAX_OUT];
    int device;
    SP_RETURN_IF(check_inputs(c, &device));
    if (c->flags & SP_CALL_INPLACE) c->out[0] = c->in[0];
    for (int i = 0; i < c->n_out; i++) SP_RETURN_IF(sp__check_writable(c, c->out[i]));
    bool views = (info->flags & (SP_OPF_VIEW | SP_OPF_MAY_VIEW)) != 0;
    sp_kernel kernel = sp__kernel_of(device, c->op);
    if (!kernel || !info->infer || views) return run_and_copy(c, info);
    SP_RETURN_IF(infer(c, device, meta));
    bool copies = reads_what_it_writes(c, info->flags);
    for (int i = 0; i < c->n_out; i++) {
        SP_RETURN_IF(check_fits(c, c->out[i], &meta[i]));
        copies |= c->out[i]->dtype != meta[i].dtype;
    }
    if (copies) return run_and_copy(c, info);
    if (uniform) learn_rule(c, &meta[0]);
    SP_RETURN_IF(sp__launch_kernel(c, kernel, device));
    for (int i = 0; i < c->n_out; i++) sp__written(c->out[i]->storage, c->op);
    return SP_OK;
}

sp_status sp__run(sp_call *c)
{
    const sp_op_info *info = &sp_op_table[c->op];
    bool uniform = (info->flags & SP_OPF_POINTWISE) && is_uniform(c);
    if (SP_LIKELY(uniform)) {
        _Atomic uint16_t *known = rule_of(c);
        unsigned rule = known ? atomic_load_explicit(known, memory_order_relaxed) : 0;
        sp_kernel kernel = sp__kernel_of(c->in[0]->device, c->op);
        if (SP_LIKELY(rule && kernel && !(c->flags && (rule & 255) - 1 != c->in[0]->dtype)))
            return run_uniform(c, rule, kernel);
    }
    return c->flags ? run_into(c, info, uniform) : run_fresh(c, info, uniform);
}
