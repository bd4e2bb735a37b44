/* The launch: from a call whose results exist to a finished or queued kernel.
 *
 *     quick?  few elements and nothing pending anywhere: the kernel, at once        (launch_int.h)
 *     else    predict, look at tickets: inline, queue, or wait and inline
 *
 * What it costs, Zen 3 at some 3.4 GHz, float32 8x8, result dropped again, kernels that do nothing:
 *
 *     add, same shapes    50 ns   dispatch 5, checks and arguments 15, result made 18, freed 12
 *     add, broadcast     115 ns   inference 15, arguments 25 more
 *     slice               55 ns   (a view is not launched; the tape's note of it comes on top)
 *
 * A cache of signatures (opcode, dtypes, shapes, strides) would have to hash and compare what
 * inference and arguments take 40 ns to compute, so there is none but run.c's table of result
 * dtypes.
 *
 * What queueing costs, matmul of 54 to 390 us, time until the result is read against
 * SPOOL_LAUNCH_BLOCKING=1: 1.004 when it is read at once (the reader runs the kernel: no thread is
 * woken), 0.67 when the caller does 100 us of something else first; 8 dependent ops and a read 1.00
 * to 1.01. An op queued costs 0.3 us, most of it the clock and a cold slot; at QUEUE_MIN_US that is
 * below 0.5 %.
 */
#include "ops/launch_int.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/memory.h"

/* Releasing and taking the interpreter lock costs some 100 ns. */
static const double RELEASE_US = 10;

_Atomic int64_t sp__stat_plan_runs;

/* ---- kernels ----- */

_Atomic(sp_kernel) sp__kernels[SP_MAX_DEVICES][SP_OP_COUNT];

sp_kernel sp__kernel_find(int device, int op)
{
    sp_kernel k = sp__backends[device] ? sp__backends[device]->kernel(op) : NULL;
    atomic_store_explicit(&sp__kernels[device][op], k, memory_order_relaxed);
    return k;
}

void sp__launch_forget_kernels(void)
{
    for (int device = 0; device < SP_MAX_DEVICES; device++)
        for (int op = 0; op < SP_OP_COUNT; op++) atomic_store(&sp__kernels[device][op], NULL);
}

sp_status sp__kernel_missing(const sp_call *c, int device)
{
    const sp_backend *b = sp__backends[device];
    return sp_fail(SP_EUNSUPPORTED, "%s: device %s has no kernel for it", sp_op_table[c->op].name,
                   b ? b->name : "cpu");
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

/* Of c, or of the n > 1 calls that it stands for (sp__launch_each). */
static inline const sp_tensor *operand_of(const sp_call *c, int n, int i)
{
    if (i >= n * c->n_out) return c->in[i - n * c->n_out];
    return n == 1 ? c->out[i] : c->in[i / c->n_out * c->n_in + i % c->n_out];
}

static void fill_plain(const sp_call *c, sp_kargs *k)
{
    for (int i = 0; i < k->n_arg; i++) {
        const sp_tensor *t = operand_of(c, k->n_tuples, i);
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
        for (; !sorted && at > 0 && out->stride[dims[at - 1]] < out->stride[d]; at--)
            dims[at] = dims[at - 1];
        dims[at] = d;
    }
    return n;
}

/* Adds the output's dimension d of `size` to the m merged ones: it joins the last if all
 * operands walk the two as one. `lead` is how many dimensions an operand has less than the
 * output. Returns the new count. */
static inline int merge_dim(sp_operand *arg, const sp_tensor *const *t, const int *lead, int n,
                            int d, int64_t size, int m)
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
        t[i] = operand_of(c, 1, i);
        lead[i] = out->rank - t[i]->rank;
    }
    int n_dims = iteration_order(out, dims);
    for (int i = 0; i < n_dims; i++)
        m = merge_dim(arg, t, lead, n, dims[i], out->shape[dims[i]], m);
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

void sp__kargs_fill(const sp_call *c, sp_kargs *k)
{
    sp__kargs_header(c, k);
    if (!(sp_op_table[c->op].flags & SP_OPF_POINTWISE)) {
        fill_plain(c, k);
        return;
    }
    k->compute = (uint8_t)sp__pointwise_compute(c);
    fill_pointwise(c, k);
}

/* ---- launching ----- */

/* What a launch reads and writes, each storage with a reference: whenever the interpreter lock
 * is let go of, other threads may drop or re-point the call's handles. */
typedef struct footprint {
    int device, n_reads, n_writes;
    bool foreign, pending;
    sp_storage **reads, **writes; /* in `room`, or in a block */
    size_t block_bytes;
    sp_storage *room[SP_KARGS_INLINE];
} footprint;

static sp_status flush_regions(const sp_call *c)
{
    for (int i = 0; i < c->n_out + c->n_in; i++) {
        const sp_tensor *t = operand_of(c, 1, i);
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

static sp_status footprint_room(footprint *f, const sp_call *c, int n_arg)
{
    f->writes = f->room, f->block_bytes = 0;
    if (SP_LIKELY(n_arg <= SP_KARGS_INLINE)) return SP_OK;
    f->block_bytes = (size_t)n_arg * sizeof *f->writes;
    f->writes = sp__alloc(f->block_bytes);
    return f->writes ? SP_OK
                     : sp_fail(SP_EMEMORY, "%s: out of memory for %d operands",
                               sp_op_table[c->op].name, n_arg);
}

static sp_status take_footprint(footprint *f, const sp_call *c, int n, int device)
{
    int n_out = n * c->n_out, n_arg = n_out + n * c->n_in;
    SP_RETURN_IF(footprint_room(f, c, n_arg));
    f->device = device;
    f->foreign = f->pending = false;
    f->n_writes = n_out, f->n_reads = 0, f->reads = f->writes + n_out;
    for (int i = 0; i < n_out; i++) f->writes[i] = sp__storage_retain(operand_of(c, n, i)->storage);
    for (int i = n_out; i < n_arg; i++) {
        const sp_tensor *t = operand_of(c, n, i);
        bool written = n > 1 && (i - n_out) % c->n_in < c->n_out;
        if (t && !written) f->reads[f->n_reads++] = sp__storage_retain(t->storage);
    }
    for (int i = 0; i < f->n_writes; i++) note_storage(f, f->writes[i], true);
    for (int i = 0; i < f->n_reads; i++) note_storage(f, f->reads[i], false);
    return SP_OK;
}

static void drop_footprint(footprint *f)
{
    for (int i = 0; i < f->n_writes; i++) sp__storage_drop(f->writes[i]);
    for (int i = 0; i < f->n_reads; i++) sp__storage_drop(f->reads[i]);
    if (f->block_bytes) sp__free(f->writes, f->block_bytes);
}

static sp_status wait_footprint(const footprint *f)
{
    for (int i = 0; i < f->n_writes; i++) wait_for(f->writes[i], true);
    for (int i = 0; i < f->n_reads; i++) wait_for(f->reads[i], false);
    return sp__queue_error(f->device);
}

static sp_status run_inline(sp_kernel kernel, const sp_kargs *k, double us)
{
    void *left = us > RELEASE_US && sp__blocking_hooks.leave ? sp__blocking_hooks.leave() : NULL;
    sp_status status = sp__kernel_run(kernel, k);
    if (left) sp__blocking_hooks.enter(left);
    return status;
}

static double predict(int device, const sp_kargs *k)
{
    const sp_backend *b = sp__backends[device];
    return b && b->predict_us ? b->predict_us(k) : 1e-3 * (double)k->arg[0].numel;
}

/* Whether a call whose index must be looked at first may be put off. To look at one number an
 * element takes about as long as the kernel: that is done only where the call would have to wait.
 */
static bool checked_first(const sp_call *c, const sp_kargs *k, bool pending)
{
    const sp_op_info *info = &sp_op_table[c->op];
    if (!(info->flags & SP_OPF_CHECKS_DATA)) return true;
    const sp_tensor *index = c->in[info->n_in < 0 ? 0 : info->index_in];
    return (pending || index->numel < k->arg[0].numel / 4) && sp__index_fits(c);
}

sp_status sp__launch_slow(const sp_call *c, const sp_kargs *k, sp_kernel kernel, int device)
{
    footprint f;
    sp_status status = SP_OK;
    sp__knobs_read();
    double us = predict(device, k);
    SP_RETURN_IF(take_footprint(&f, c, k->n_tuples, device));
    bool wanted = !f.foreign && !sp__knobs.blocking && (f.pending || us >= sp__knobs.queue_min_us);
    bool queued = wanted && checked_first(c, k, f.pending) &&
                  sp__queue_op(device, kernel, k, f.reads, f.n_reads, f.writes, f.n_writes);
    if (!queued) {
        if (f.pending) SP_TRY(wait_footprint(&f));
        SP_TRY(run_inline(kernel, k, us));
    }
out:
    drop_footprint(&f);
    return status;
}

static sp_status launch_operands(const sp_call *c, const sp_kargs *k, sp_kernel kernel, int device)
{
    int64_t work = 0;
    for (int i = 0; i < k->n_arg; i++) work += k->arg[i].numel;
    return sp__launch_filled(c, k, kernel, device, work);
}

/* More tensors than sp_kargs has room for. */
static sp_status launch_many(const sp_call *c, int n, sp_kernel kernel, int device)
{
    sp_kargs k;
    size_t bytes = sizeof(sp_operand) * (size_t)(n * (c->n_out + c->n_in));
    sp__kargs_header(c, &k);
    k.n_tuples = n, k.n_out *= n, k.n_arg *= n;
    k.arg = sp__alloc(bytes);
    if (!k.arg)
        return sp_fail(SP_EMEMORY, "%s: out of memory: %zu bytes of arguments",
                       sp_op_table[c->op].name, bytes);
    fill_plain(c, &k);
    sp_status status = launch_operands(c, &k, kernel, device);
    sp__free(k.arg, bytes);
    return status;
}

sp_status sp__launch_kernel(const sp_call *c, sp_kernel kernel, int device)
{
    sp_kargs k;
    SP_RETURN_IF(flush_regions(c));
    if (c->out[0]->numel == 0 && c->n_out == 1 && !(sp_op_table[c->op].flags & SP_OPF_CHECKS_DATA))
        return SP_OK;
    if (SP_UNLIKELY(c->n_out + c->n_in > SP_KARGS_INLINE)) return launch_many(c, 1, kernel, device);
    sp__kargs_fill(c, &k);
    return launch_operands(c, &k, kernel, device);
}

sp_status sp__launch_each(const sp_call *c, int n, sp_kernel kernel, int device)
{
    return launch_many(c, n, kernel, device);
}

sp_status sp__launch(const sp_call *c)
{
    int device = c->out[0]->device;
    sp_kernel kernel = sp__kernel_of(device, c->op);
    return SP_LIKELY(kernel != NULL) ? sp__launch_kernel(c, kernel, device)
                                     : sp__kernel_missing(c, device);
}

sp_status sp__launch_raw(sp_status (*run)(void *args), const void *args, size_t arg_bytes,
                         double predicted_us, sp_storage *const *reads, int n_reads,
                         sp_storage *const *writes, int n_writes)
{
    footprint f = {.device = n_writes  ? writes[0]->device
                             : n_reads ? reads[0]->device
                                       : SP_DEVICE_CPU};
    sp__knobs_read();
    for (int i = 0; i < n_writes; i++) note_storage(&f, writes[i], true);
    for (int i = 0; i < n_reads; i++) note_storage(&f, reads[i], false);
    bool wanted =
        !f.foreign && !sp__knobs.blocking && (f.pending || predicted_us >= sp__knobs.queue_min_us);
    if (wanted && sp__queue_raw(f.device, run, args, arg_bytes, reads, n_reads, writes, n_writes))
        return SP_OK;
    for (int i = 0; f.pending && i < n_writes; i++) wait_for(writes[i], true);
    for (int i = 0; f.pending && i < n_reads; i++) wait_for(reads[i], false);
    if (f.pending) SP_RETURN_IF(sp__queue_error(f.device));
    void *left =
        predicted_us > RELEASE_US && sp__blocking_hooks.leave ? sp__blocking_hooks.leave() : NULL;
    sp_status status = run((void *)args);
    if (left) sp__blocking_hooks.enter(left);
    return status;
}

/* ---- knobs, statistics, synchronising ----- */

sp_knobs sp__knobs = {.quick_numel = -1};

/* See the figures at the head of this file. */
static const double QUEUE_MIN_US = 100;
enum { QUICK_NUMEL = 8192 }; /* some 5 us at most, as two square matrices */

static pthread_once_t knobs_once = PTHREAD_ONCE_INIT;

/* Queueing gains nothing where there is one processor for caller and worker. */
static double default_queue_min_us(void)
{
    cpu_set_t mine;
    bool one = sched_getaffinity(0, sizeof mine, &mine) == 0 && CPU_COUNT(&mine) == 1;
    return one ? HUGE_VAL : QUEUE_MIN_US;
}

static void read_knobs(void)
{
    const char *blocking = getenv("SPOOL_LAUNCH_BLOCKING"), *min = getenv("SPOOL_QUEUE_MIN_US");
    sp__knobs.blocking = blocking && *blocking && strcmp(blocking, "0") != 0;
    sp__knobs.queue_min_us = min && *min ? strtod(min, NULL) : default_queue_min_us();
    atomic_store(&sp__knobs.quick_numel,
                 sp__knobs.queue_min_us > 0 || sp__knobs.blocking ? QUICK_NUMEL : -1);
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

static _Atomic int64_t stat_base[SP_COUNT_KINDS]; /* sums at the last reset */

void sp_launch_stats_get(sp_launch_stats *out)
{
    int64_t n[SP_COUNT_KINDS];
    for (int i = 0; i < SP_COUNT_KINDS; i++) n[i] = sp__count_sum((sp_count)i) - stat_base[i];
    out->inline_runs = n[SP_COUNT_INLINE];
    out->queued_runs = n[SP_COUNT_QUEUED];
    out->helped_runs = n[SP_COUNT_HELPED];
    out->synchronizations = n[SP_COUNT_SYNC];
    out->plan_runs = atomic_load(&sp__stat_plan_runs);
    out->eager_launches = out->inline_runs + n[SP_COUNT_ISSUED];
}

void sp_launch_stats_reset(void)
{
    for (int i = 0; i < SP_COUNT_KINDS; i++) stat_base[i] = sp__count_sum((sp_count)i);
    atomic_store(&sp__stat_plan_runs, 0);
}
