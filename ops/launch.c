/* sp__run() and the launch: from a call to a finished or queued kernel.
 *
 *     sp__run --> uniform?  inputs contiguous, of one shape and dtype: no inference, result rule remembered per opcode
 *             --> else      infer, handles, then: view: done   composite: body   kernel: launch
 *
 *     launch  --> quick?    few elements and nothing pending anywhere: kernel, at once
 *             --> else      predict, look at tickets: inline, queue, or wait and inline
 */
#include "ops/launch.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/queue_int.h"
#include "ops/random.h"
#include "ops_gen.h"
#include "tensor/memory.h"

/* Releasing and taking the interpreter lock costs some 100 ns. */
static const double RELEASE_US = 10;

_Atomic int64_t sp__stat_plan_runs;

/* ---- kernels ----- */

static _Atomic(sp_kernel) kernels[SP_MAX_DEVICES][SP_OP_COUNT];

static sp_kernel find_kernel(int device, int op)
{
    sp_kernel k = sp__backends[device] ? sp__backends[device]->kernel(op) : NULL;
    atomic_store_explicit(&kernels[device][op], k, memory_order_relaxed);
    return k;
}

static inline sp_kernel kernel_of(int device, int op)
{
    sp_kernel k = atomic_load_explicit(&kernels[device][op], memory_order_relaxed);
    return SP_LIKELY(k != NULL) ? k : find_kernel(device, op);
}

void sp__launch_forget_kernels(void)
{
    for (int device = 0; device < SP_MAX_DEVICES; device++)
        for (int op = 0; op < SP_OP_COUNT; op++) atomic_store(&kernels[device][op], NULL);
}

static sp_status no_kernel(const sp_call *c, int device)
{
    const sp_backend *b = sp__backends[device];
    return sp_fail(SP_EUNSUPPORTED, "%s: device %s has no kernel for it", sp_op_table[c->op].name, b ? b->name : "cpu");
}

/* ---- kernel arguments ----- */

static inline void set_operand(sp_operand *a, const sp_tensor *t)
{
    a->data = sp__data(t);
    a->dtype = t->dtype;
    a->rank = t->rank;
    a->contiguous = (t->flags & SP_T_CONTIGUOUS) != 0;
    a->numel = t->numel;
}

static void set_missing(sp_operand *a)
{
    a->data = NULL;
    a->dtype = 0;
    a->rank = 0;
    a->contiguous = true;
    a->numel = 0;
}

static inline const sp_tensor *operand_of(const sp_call *c, int i)
{
    return i < c->n_out ? c->out[i] : c->in[i - c->n_out];
}

static inline void set_header(const sp_call *c, sp_kargs *k)
{
    k->op = c->op;
    k->n_out = c->n_out;
    k->n_attr = c->n_attr;
    k->dense = false;
    k->compute = 0;
    k->n_arg = c->n_out + c->n_in;
    if (k->n_arg <= SP_KARGS_INLINE) k->arg = k->room;
    k->attr = (sp_attr *)c->attr;
}

static void fill_plain(const sp_call *c, sp_kargs *k)
{
    for (int i = 0; i < k->n_arg; i++) {
        const sp_tensor *t = operand_of(c, i);
        sp_operand *a = &k->arg[i];
        if (!t) {
            set_missing(a);
            continue;
        }
        set_operand(a, t);
        for (int d = 0; d < t->rank; d++) a->shape[d] = t->shape[d], a->stride[d] = t->stride[d];
    }
}

/* The output's dimensions of more than one element, outermost (largest stride) first. */
static int iteration_order(const sp_tensor *out, int *dims)
{
    int n = 0;
    bool sorted = (out->flags & SP_T_CONTIGUOUS) != 0;
    for (int d = 0; d < out->rank; d++) {
        if (out->shape[d] == 1) continue;
        int at = n++;
        for (; !sorted && at > 0 && out->stride[dims[at - 1]] < out->stride[d]; at--) dims[at] = dims[at - 1];
        dims[at] = d;
    }
    return n;
}

/* Adds the output's dimension d of `size` to the m merged ones: it joins the last if all operands walk the two as one.
 * `lead` is how many dimensions an operand has less than the output. Returns the new count. */
static inline int merge_dim(sp_operand *arg, const sp_tensor *const *t, const int *lead, int n, int d, int64_t size, int m)
{
    bool joins = m > 0;
    for (int i = 0; i < n; i++) {
        int own = d - lead[i];
        int64_t step = own < 0 || t[i]->shape[own] == 1 ? 0 : t[i]->stride[own]; /* 0: broadcast */
        arg[i].stride[m] = step;
        joins = joins && arg[i].stride[m - 1] == step * size;
    }
    if (!joins) {
        arg[0].shape[m] = size;
        return m + 1;
    }
    for (int i = 0; i < n; i++) arg[i].stride[m - 1] = arg[i].stride[m];
    arg[0].shape[m - 1] *= size;
    return m;
}

static inline bool row_major(const sp_operand *a)
{
    int64_t step = 1;
    for (int d = a->rank - 1; d >= 0; d--) {
        if (a->stride[d] != step) return false;
        step *= a->shape[d];
    }
    return true;
}

/* Pointwise ops have a handful of inputs, so their operands always lie in k->room. */
static void fill_pointwise(const sp_call *c, sp_kargs *k)
{
    const sp_tensor *out = c->out[0], *t[SP_KARGS_INLINE];
    sp_operand *arg = k->room;
    int dims[SP_MAX_RANK], lead[SP_KARGS_INLINE], n = k->n_arg, m = 0;
    for (int i = 0; i < n; i++) {
        t[i] = operand_of(c, i);
        lead[i] = out->rank - t[i]->rank;
    }
    int n_dims = iteration_order(out, dims);
    for (int i = 0; i < n_dims; i++) m = merge_dim(arg, t, lead, n, dims[i], out->shape[dims[i]], m);
    k->dense = m <= 1;
    for (int i = 0; i < n; i++) {
        arg[i].data = sp__data(t[i]);
        arg[i].dtype = t[i]->dtype;
        arg[i].rank = (uint8_t)m;
        arg[i].numel = out->numel;
        for (int d = 0; i && d < m; d++) arg[i].shape[d] = arg[0].shape[d];
        arg[i].contiguous = row_major(&arg[i]);
        if (m == 1 && arg[i].stride[0] > 1) k->dense = false;
    }
}

/* bool < integer < floating. */
static inline int kind_of(int dtype)
{
    return dtype >= SP_FLOAT32 ? 2 : dtype;
}

/* What a comparison's operands promote to: tensors with dimensions decide, then tensors without, then numbers, each only
 * where its kind is higher. */
static uint8_t common_dtype(const sp_call *c)
{
    int wide = -1, zero = -1;
    for (int i = 0; i < c->n_in; i++) {
        int *of = c->in[i]->rank ? &wide : &zero;
        if (c->in[i]->dtype > *of) *of = c->in[i]->dtype;
    }
    int common = wide >= 0 && (zero < 0 || kind_of(zero) <= kind_of(wide)) ? wide : zero;
    for (int i = 0; i < c->n_attr; i++)
        if (c->attr[i].kind == SP_ATTR_SCALAR)
            common = sp__promote_scalar((sp_dtype)common, (sp_dtype)c->attr[i].tag);
    return (uint8_t)common;
}

/* Arithmetic is done in the result's dtype, comparisons in what their operands promote to, a cast in what it reads. */
static inline uint8_t compute_dtype(const sp_call *c)
{
    if (SP_UNLIKELY(c->op == SP_OP_CAST)) return c->in[0]->dtype;
    return c->out[0]->dtype != SP_BOOL ? c->out[0]->dtype : common_dtype(c);
}

void sp__kargs_fill(const sp_call *c, sp_kargs *k)
{
    set_header(c, k);
    if (!(sp_op_table[c->op].flags & SP_OPF_POINTWISE)) {
        fill_plain(c, k);
        return;
    }
    k->compute = compute_dtype(c);
    fill_pointwise(c, k);
}

/* ---- launching ----- */

/* What a launch reads and writes, each storage with a reference: whenever the interpreter lock is let go of, other threads
 * may drop or re-point the call's handles. */
typedef struct footprint {
    int device, n_reads, n_writes;
    bool foreign, pending;
    sp_storage *reads[SP_KARGS_INLINE], *writes[SP_MAX_OUT];
} footprint;

static sp_status flush_regions(const sp_call *c)
{
    for (int i = 0; i < c->n_out + c->n_in; i++) {
        const sp_tensor *t = operand_of(c, i);
        if (t && SP_UNLIKELY(t->storage->region != NULL) && sp__handle_hooks.region_flush)
            SP_RETURN_IF(sp__handle_hooks.region_flush(t->storage->region, t->storage));
    }
    return SP_OK;
}

static void wait_for(sp_storage *s, bool written)
{
    uint64_t ticket = atomic_load_explicit(&s->write_ticket, memory_order_relaxed);
    uint64_t read = written ? atomic_load_explicit(&s->read_ticket, memory_order_relaxed) : 0;
    sp__queue_wait(s->device, ticket > read ? ticket : read);
}

sp_status sp__storage_wait(sp_storage *s, bool for_write)
{
    if (SP_UNLIKELY(!sp__queue_idle(s->device))) {
        sp__count(SP_COUNT_SYNC);
        wait_for(s, for_write);
    }
    return sp__queue_error(s->device);
}

static void note_storage(footprint *f, sp_storage *s, bool written)
{
    f->foreign |= (s->flags & SP_S_FOREIGN) != 0;
    f->pending |= sp__ticket_pending(f->device, &s->write_ticket);
    if (written) f->pending |= sp__ticket_pending(f->device, &s->read_ticket);
}

static void take_footprint(footprint *f, const sp_call *c, int device)
{
    f->device = device;
    f->n_reads = f->n_writes = 0;
    f->foreign = f->pending = false;
    for (int i = 0; i < c->n_out; i++) f->writes[f->n_writes++] = sp__storage_retain(c->out[i]->storage);
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i]) f->reads[f->n_reads++] = sp__storage_retain(c->in[i]->storage);
    for (int i = 0; i < f->n_writes; i++) note_storage(f, f->writes[i], true);
    for (int i = 0; i < f->n_reads; i++) note_storage(f, f->reads[i], false);
}

static void drop_footprint(footprint *f)
{
    for (int i = 0; i < f->n_writes; i++) sp__storage_drop(f->writes[i]);
    for (int i = 0; i < f->n_reads; i++) sp__storage_drop(f->reads[i]);
}

static sp_status wait_footprint(const footprint *f)
{
    for (int i = 0; i < f->n_writes; i++) wait_for(f->writes[i], true);
    for (int i = 0; i < f->n_reads; i++) wait_for(f->reads[i], false);
    return sp__queue_error(f->device);
}

static inline sp_status run_kernel(sp_kernel kernel, const sp_kargs *k)
{
    sp__count(SP_COUNT_INLINE);
    return kernel(k);
}

static sp_status run_inline(sp_kernel kernel, const sp_kargs *k, double us)
{
    void *left = us > RELEASE_US && sp__blocking_hooks.leave ? sp__blocking_hooks.leave() : NULL;
    sp_status status = run_kernel(kernel, k);
    if (left) sp__blocking_hooks.enter(left);
    return status;
}

static double predict(int device, const sp_kargs *k)
{
    const sp_backend *b = sp__backends[device];
    return b && b->predict_us ? b->predict_us(k) : 1e-3 * (double)k->arg[0].numel;
}

static __attribute__((noinline)) sp_status launch_slow(const sp_call *c, const sp_kargs *k, sp_kernel kernel, int device)
{
    footprint f;
    sp_status status = SP_OK;
    sp__knobs_read();
    double us = predict(device, k);
    take_footprint(&f, c, device);
    bool at_once = f.foreign || sp__knobs.blocking || (sp_op_table[c->op].flags & SP_OPF_CHECKS_DATA);
    bool queued = !at_once && (f.pending || us >= sp__knobs.queue_min_us)
                  && sp__queue_op(device, kernel, k, f.reads, f.n_reads, f.writes, f.n_writes);
    if (!queued) {
        if (f.pending) SP_TRY(wait_footprint(&f));
        SP_TRY(run_inline(kernel, k, us));
    }
out:
    drop_footprint(&f);
    return status;
}

static inline sp_status launch_filled(const sp_call *c, const sp_kargs *k, sp_kernel kernel, int device, int64_t work)
{
    if (SP_LIKELY(work <= atomic_load_explicit(&sp__knobs.quick_numel, memory_order_relaxed) && sp__queue_idle(device))) return run_kernel(kernel, k);
    return launch_slow(c, k, kernel, device);
}

/* Ops over more tensors than a slot holds: at the call, after everything pending. */
static sp_status launch_many(const sp_call *c, sp_kernel kernel, int device)
{
    sp_kargs k;
    size_t bytes = sizeof(sp_operand) * (size_t)(c->n_out + c->n_in);
    SP_RETURN_IF(sp__queue_drain());
    k.arg = sp__alloc(bytes);
    if (!k.arg) return sp_fail(SP_EMEMORY, "%s: out of memory: %zu bytes of arguments", sp_op_table[c->op].name, bytes);
    sp__kargs_fill(c, &k);
    sp_status status = run_inline(kernel, &k, predict(device, &k));
    sp__free(k.arg, bytes);
    return status;
}

static sp_status launch_kernel(const sp_call *c, sp_kernel kernel, int device)
{
    sp_kargs k;
    int64_t work = 0;
    SP_RETURN_IF(flush_regions(c));
    if (c->out[0]->numel == 0 && c->n_out == 1 && !(sp_op_table[c->op].flags & SP_OPF_CHECKS_DATA)) return SP_OK;
    if (SP_UNLIKELY(c->n_out + c->n_in > SP_KARGS_INLINE)) return launch_many(c, kernel, device);
    sp__kargs_fill(c, &k);
    for (int i = 0; i < k.n_arg; i++) work += k.arg[i].numel;
    return launch_filled(c, &k, kernel, device, work);
}

sp_status sp__launch(const sp_call *c)
{
    int device = c->out[0]->device;
    sp_kernel kernel = kernel_of(device, c->op);
    return SP_LIKELY(kernel != NULL) ? launch_kernel(c, kernel, device) : no_kernel(c, device);
}

sp_status sp__launch_raw(sp_status (*run)(void *args), const void *args, size_t arg_bytes, double predicted_us,
                         sp_storage *const *reads, int n_reads, sp_storage *const *writes, int n_writes)
{
    footprint f = {.device = n_writes ? writes[0]->device : n_reads ? reads[0]->device : SP_DEVICE_CPU};
    sp__knobs_read();
    for (int i = 0; i < n_writes; i++) note_storage(&f, writes[i], true);
    for (int i = 0; i < n_reads; i++) note_storage(&f, reads[i], false);
    bool wanted = !f.foreign && !sp__knobs.blocking && (f.pending || predicted_us >= sp__knobs.queue_min_us);
    if (wanted && sp__queue_raw(f.device, run, args, arg_bytes, reads, n_reads, writes, n_writes)) return SP_OK;
    for (int i = 0; f.pending && i < n_writes; i++) wait_for(writes[i], true);
    for (int i = 0; f.pending && i < n_reads; i++) wait_for(reads[i], false);
    if (f.pending) SP_RETURN_IF(sp__queue_error(f.device));
    void *left = predicted_us > RELEASE_US && sp__blocking_hooks.leave ? sp__blocking_hooks.leave() : NULL;
    sp_status status = run((void *)args);
    if (left) sp__blocking_hooks.enter(left);
    return status;
}

/* ---- sp__run: uniform calls ----- */

/* What pointwise ops yield for inputs of one dtype, per opcode, that dtype, and the kind of their number if they have one:
 * 0 unknown, else (result dtype + 1) | compute dtype << 8. Filled by inference, which does not look at anything else in
 * calls that rule_of() admits. */
static _Atomic uint16_t rules[SP_OP_COUNT][SP_DTYPE_COUNT][SP_DTYPE_COUNT];

static inline _Atomic uint16_t *rule_of(const sp_call *c)
{
    if (c->n_attr > 1 || (c->n_attr == 1 && c->attr[0].kind != SP_ATTR_SCALAR)) return NULL;
    return &rules[c->op][c->in[0]->dtype][c->n_attr ? c->attr[0].tag : 0];
}

static void learn_rule(const sp_call *c, const sp_meta *result)
{
    _Atomic uint16_t *rule = rule_of(c);
    if (!rule) return;
    if (c->op == SP_OP_POW_SCALAR && result->dtype == SP_INT64) return; /* the exponent's sign is checked */
    unsigned compute = result->dtype == SP_BOOL ? common_dtype(c) : result->dtype;
    atomic_store_explicit(rule, (uint16_t)((result->dtype + 1u) | compute << 8), memory_order_relaxed);
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

/* A further input beside a: dense, of a's shape, dtype and device; and not overlapping a otherwise than exactly if a is
 * written. */
static inline bool goes_with(const sp_tensor *a, const sp_tensor *b, bool written)
{
    if (!b || !is_dense(b) || b->dtype != a->dtype || b->device != a->device || !same_shape(a, b)) return false;
    if (!written) return true;
    return b->storage == a->storage ? b->offset == a->offset : !(b->storage->flags & SP_S_FOREIGN);
}

static inline bool is_uniform(const sp_call *c)
{
    const sp_tensor *a = c->in[0];
    if (!a || !is_dense(a) || a->numel == 0) return false;
    if (c->flags && (c->flags != SP_CALL_INPLACE || a->storage->flags & (SP_S_FOREIGN | SP_S_READONLY))) return false;
    if (c->n_in == 1) return true;
    return goes_with(a, c->in[1], c->flags) && (c->n_in == 2 || (c->n_in == 3 && goes_with(a, c->in[2], c->flags)));
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
    set_header(c, &k);
    k.dense = true;
    k.compute = (uint8_t)(rule >> 8);
    fill_line(&k.room[0], out, result, numel);
    fill_line(&k.room[1], a, dtype, numel);
    for (int i = 1; i < c->n_in; i++) fill_line(&k.room[i + 1], c->in[i], dtype, numel);
    c->out[0] = out;
    sp_status status = launch_filled(c, &k, kernel, out->device, numel * k.n_arg);
    if (c->flags) a->storage->version += status == SP_OK;
    else if (SP_UNLIKELY(status != SP_OK)) sp_drop(&c->out[0]);
    return status;
}

/* ---- sp__run: all others ----- */

static sp_status check_inputs(const sp_call *c, int *device)
{
    *device = SP_DEVICE_CPU;
    for (int i = 0, seen = 0; i < c->n_in; i++) {
        const sp_tensor *t = c->in[i];
        if (!t) continue;
        if (SP_UNLIKELY(!t->storage))
            return sp_fail(SP_EUNSUPPORTED, "%s: input %d belongs to a transform (vmap, jvp or grad) that is not active here",
                           sp_op_table[c->op].name, i);
        if (SP_UNLIKELY(seen && t->device != *device))
            return sp_fail(SP_EDEVICE, "%s: inputs on different devices; move them to one", sp_op_table[c->op].name);
        *device = t->device;
        seen = 1;
    }
    return SP_OK;
}

static sp_status infer(const sp_call *c, const sp_op_info *info, int device, sp_meta *meta)
{
    for (int i = 0; i < c->n_out; i++) {
        meta[i].view_of = -1;
        meta[i].offset = 0;
        meta[i].device = (uint8_t)device;
    }
    return info->infer(c, meta);
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
        sp_status status = sp__handle_new(&meta[i], shared, &c->out[i]);
        if (SP_UNLIKELY(status != SP_OK)) {
            drop_outputs(c);
            return status;
        }
    }
    return SP_OK;
}

/* A composite's body calls public ops; recording, tracing and levels have already seen the composite itself. */
static sp_status run_body(sp_call *c, const sp_op_info *info)
{
    sp_tls *tls = &sp__tls, saved = *tls;
    tls->top = NULL;
    tls->tracer = NULL;
    tls->no_grad = true;
    sp_status status = info->body(c);
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
    sp_kernel kernel = view ? NULL : kernel_of(device, c->op);
    if (info->body && (!kernel || !info->infer)) return run_body(c, info);
    SP_RETURN_IF(infer(c, info, device, meta));
    if (!kernel && meta[0].view_of < 0) return no_kernel(c, device);
    SP_RETURN_IF(make_outputs(c, meta));
    if (meta[0].view_of >= 0) return SP_OK;
    if (uniform) learn_rule(c, &meta[0]);
    sp_status status = launch_kernel(c, kernel, device);
    if (SP_UNLIKELY(status != SP_OK)) drop_outputs(c);
    return status;
}

/* ---- sp__run: into tensors that are there ----- */

/* "add_" for add.scalar in place, "add" with out=. */
static const char *written_name(const sp_call *c, char *buf, size_t n)
{
    const char *name = sp_op_table[c->op].name;
    snprintf(buf, n, "%.*s%s", (int)strcspn(name, "."), name, c->flags & SP_CALL_INPLACE ? "_" : "");
    return buf;
}
#define WRITTEN_NAME(c) written_name(c, (char[64]){0}, 64)

static sp_status check_writable(const sp_call *c, const sp_tensor *t)
{
    if (SP_UNLIKELY(!t->storage))
        return sp_fail(SP_EUNSUPPORTED, "%s: the tensor written belongs to a transform (vmap, jvp or grad) that is not active "
                       "here", WRITTEN_NAME(c));
    if (SP_UNLIKELY(t->storage->flags & SP_S_READONLY))
        return sp_fail(SP_EVALUE, "%s: the tensor's memory is read-only; write to a clone() of it", WRITTEN_NAME(c));
    if (SP_UNLIKELY(sp__overlaps_itself(t)))
        return sp_fail(SP_EVALUE, "%s: several elements of the tensor of shape %s are one in memory (expand), so it cannot be "
                       "written; clone() it first", WRITTEN_NAME(c), SP_SHAPE(t));
    return SP_OK;
}

static sp_status check_fits(const sp_call *c, const sp_tensor *t, const sp_meta *result)
{
    char shape[SP_SHAPE_TEXT];
    bool fits = t->rank == result->rank && memcmp(t->shape, result->shape, sizeof *t->shape * t->rank) == 0;
    if (SP_UNLIKELY(!fits))
        return sp_fail(SP_ESHAPE, "%s: the result has shape %s, the tensor to hold it %s; they must be equal, because tensors "
                       "are not resized", WRITTEN_NAME(c), sp__shape_text(result->rank, result->shape, shape, sizeof shape),
                       SP_SHAPE(t));
    if (SP_UNLIKELY(kind_of(result->dtype) > kind_of(t->dtype)))
        return sp_fail(SP_EDTYPE, "%s: the result is %s, which a tensor of %s cannot hold; cast one of them, or write to a new "
                       "tensor", WRITTEN_NAME(c), sp_dtype_name((sp_dtype)result->dtype), sp_dtype_name((sp_dtype)t->dtype));
    return SP_OK;
}

static bool same_elements(const sp_tensor *a, const sp_tensor *b)
{
    return a->storage == b->storage && a->offset == b->offset && a->dtype == b->dtype && same_shape(a, b)
           && memcmp(a->stride, b->stride, sizeof *a->stride * a->rank) == 0;
}

/* Whether the kernel would overwrite what it has yet to read. Element by element, or as the op's own in-place form, input
 * and output may be one. */
static bool reads_what_it_writes(const sp_call *c, int flags)
{
    for (int i = 0; i < c->n_in; i++) {
        const sp_tensor *in = c->in[i];
        for (int k = 0; in && k < c->n_out; k++) {
            const sp_tensor *out = c->out[k];
            if (in->storage != out->storage && !(in->storage->flags & out->storage->flags & SP_S_FOREIGN)) continue;
            bool allowed = (flags & SP_OPF_POINTWISE) || (i == 0 && k == 0 && (c->flags & SP_CALL_INPLACE));
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
        sp_call copy = {.op = SP_OP_COPY, .n_out = 1, .flags = SP_CALL_INPLACE, .n_in = 2, .in = in, .out = {c->out[i]}};
        SP_TRY(sp__launch(&copy));
        c->out[i]->storage->version++;
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
    for (int i = 0; i < c->n_out; i++) SP_RETURN_IF(check_writable(c, c->out[i]));
    bool views = (info->flags & (SP_OPF_VIEW | SP_OPF_MAY_VIEW)) != 0;
    sp_kernel kernel = kernel_of(device, c->op);
    if (!kernel || !info->infer || views) return run_and_copy(c, info);
    SP_RETURN_IF(infer(c, info, device, meta));
    bool copies = reads_what_it_writes(c, info->flags);
    for (int i = 0; i < c->n_out; i++) {
        SP_RETURN_IF(check_fits(c, c->out[i], &meta[i]));
        copies |= c->out[i]->dtype != meta[i].dtype;
    }
    if (copies) return run_and_copy(c, info);
    if (uniform) learn_rule(c, &meta[0]);
    SP_RETURN_IF(launch_kernel(c, kernel, device));
    for (int i = 0; i < c->n_out; i++) c->out[i]->storage->version++;
    return SP_OK;
}

sp_status sp__run(sp_call *c)
{
    const sp_op_info *info = &sp_op_table[c->op];
    bool uniform = (info->flags & SP_OPF_POINTWISE) && is_uniform(c);
    if (SP_LIKELY(uniform)) {
        _Atomic uint16_t *known = rule_of(c);
        unsigned rule = known ? atomic_load_explicit(known, memory_order_relaxed) : 0;
        sp_kernel kernel = kernel_of(c->in[0]->device, c->op);
        if (SP_LIKELY(rule && kernel && !(c->flags && (rule & 255) - 1 != c->in[0]->dtype)))
            return run_uniform(c, rule, kernel);
    }
    return c->flags ? run_into(c, info, uniform) : run_fresh(c, info, uniform);
}

/* ---- knobs, statistics, synchronising ----- */

sp_knobs sp__knobs = {.quick_numel = -1};

/* Figures in the comment at the head of this file. */
static const double QUEUE_MIN_US = 100;
enum { QUICK_NUMEL = 8192 }; /* some 5 us at most, as two square matrices */

static pthread_once_t knobs_once = PTHREAD_ONCE_INIT;

static void read_knobs(void)
{
    const char *blocking = getenv("SPOOL_LAUNCH_BLOCKING"), *min = getenv("SPOOL_QUEUE_MIN_US");
    sp__knobs.blocking = blocking && *blocking && strcmp(blocking, "0") != 0;
    sp__knobs.queue_min_us = min && *min ? strtod(min, NULL) : QUEUE_MIN_US;
    atomic_store(&sp__knobs.quick_numel, sp__knobs.queue_min_us > 0 || sp__knobs.blocking ? QUICK_NUMEL : -1);
}

void sp__knobs_read(void)
{
    pthread_once(&knobs_once, read_knobs);
}

sp_status sp_synchronize(void)
{
    sp__count(SP_COUNT_SYNC);
    return sp__queue_drain();
}

static int64_t stat_base[SP_COUNT_KINDS]; /* sums at the last reset */

void sp_launch_stats_get(sp_launch_stats *out)
{
    int64_t n[SP_COUNT_KINDS];
    for (int i = 0; i < SP_COUNT_KINDS; i++) n[i] = sp__count_sum((sp_count)i) - stat_base[i];
    out->inline_runs = n[SP_COUNT_INLINE];
    out->queued_runs = n[SP_COUNT_QUEUED];
    out->helped_runs = n[SP_COUNT_HELPED];
    out->synchronizations = n[SP_COUNT_SYNC];
    out->plan_runs = atomic_load(&sp__stat_plan_runs);
    out->eager_launches = out->inline_runs + out->queued_runs + out->helped_runs;
}

void sp_launch_stats_reset(void)
{
    for (int i = 0; i < SP_COUNT_KINDS; i++) stat_base[i] = sp__count_sum((sp_count)i);
    atomic_store(&sp__stat_plan_runs, 0);
}
