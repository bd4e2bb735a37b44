/* Running plans.
 *
 *     caller     gather addresses --> one launch                 (sp__plan_run)
 *     executor   take a frame and the arena, fill in addresses, run, give both back     (execute)
 *
 * The executor is the caller itself, or the queue's worker; it touches no handle.
 *
 * The arena. All plans share one block, kept for the next run: on the CPU one plan runs at a time
 * but for callers that run inline on several threads, who take a block of their own. A plan whose
 * frame last pointed into the same block has no inner address to fill in. When the last plan goes,
 * the block goes.
 */
#include <string.h>

#include "jit/plan_int.h"
#include "ops/launch.h"
#include "tensor/memory.h"

enum { STACK_BYTES = 2048 };

typedef struct run_args { /* a launch owns a copy */
    sp_plan *plan;
    bool started;
    char *address[]; /* inputs, outputs (NULL: not wanted); then the scalars */
} run_args;

typedef struct arena {
    size_t bytes; /* of the block, this header included */
    char *data;
} arena;

static _Atomic(arena *) spare;
static _Atomic int64_t live_plans;

/* ---- the arena ----- */

static arena *arena_take(size_t bytes)
{
    size_t room = bytes + sizeof(arena) + SP_ARENA_ALIGN;
    arena *a = atomic_exchange(&spare, NULL);
    if (a && a->bytes >= room) return a;
    if (a) sp__free(a, a->bytes);
    sp_memory_trim(); /* of what the steps needed that the plan now stands for */
    a = sp__alloc(room);
    if (!a) return NULL;
    a->bytes = room;
    uintptr_t first = (uintptr_t)(a + 1);
    a->data = (char *)(a + 1) + (-first & (SP_ARENA_ALIGN - 1));
    return a;
}

static void arena_give(arena *a)
{
    arena *none = NULL;
    if (a && !atomic_compare_exchange_strong(&spare, &none, a)) sp__free(a, a->bytes);
}

static void arena_trim(void)
{
    arena *a = atomic_exchange(&spare, NULL);
    if (a) sp__free(a, a->bytes);
}

/* ---- executing ----- */

static sp_frame *frame_take(sp_plan *plan)
{
    sp_frame *f = atomic_exchange(&plan->idle, NULL);
    return f ? f : sp__frame_copy(plan);
}

static void frame_give(sp_plan *plan, sp_frame *f)
{
    sp_frame *none = NULL;
    if (f && !atomic_compare_exchange_strong(&plan->idle, &none, f)) sp__frame_free(f);
}

/* Where intermediates without elements lie when no others need an arena: kernels may add 0 to it.
 */
static char nothing[1];

static void set_address(sp_frame *f, uint32_t at, char *address)
{
    memcpy((char *)f + at, &address, sizeof address);
}

static void fill_addresses(const sp_plan *plan, sp_frame *f, char *const *address, char *arena_data)
{
    for (int32_t i = 0; i < plan->n_io; i++)
        set_address(f, plan->io[i].at, address[plan->io[i].source] + plan->io[i].offset);
    if (f->arena == arena_data) return;
    f->arena = arena_data;
    for (int32_t i = 0; i < plan->n_inner; i++)
        set_address(f, plan->inner[i].at, arena_data + plan->inner[i].offset);
}

static void fill_attr(sp_attr *a, int kind, sp_scalar s)
{
    if (kind == SP_ATTR_SCALAR) a->tag = (uint8_t)s.kind;
    if (kind == SP_ATTR_FLOAT)
        a->v.f = s.kind == SP_FLOAT64 ? s.v.f : (double)s.v.i;
    else if (s.kind == SP_FLOAT64)
        a->v.f = s.v.f;
    else
        a->v.i = s.v.i;
}

static void fill_scalars(const sp_plan *plan, sp_frame *f, const sp_scalar *scalars)
{
    for (int32_t i = 0; i < plan->n_scalar; i++) {
        const sp_scalar_patch *to = &plan->scalar[i];
        void *at = (char *)f + to->at;
        if (to->attr_kind < 0)
            *(sp_scalar *)at = scalars[to->scalar];
        else
            fill_attr(at, to->attr_kind, scalars[to->scalar]);
    }
}

static sp_status run_steps(const sp_plan *plan, const sp_frame *f)
{
    for (int32_t i = 0; i < plan->n_step; i++) {
        const sp_plan_step *step = &plan->step[i];
        sp_status status = step->kernel
                               ? step->kernel(&f->kargs[i])
                               : sp__tile_run(step->tile, &f->kargs[i], f->scalar + step->scalar);
        if (SP_LIKELY(status == SP_OK)) continue;
        sp__fail_prefix(step->what);
        return status;
    }
    return SP_OK;
}

/* Outputs that nobody wants this time still need bytes. */
typedef struct scratch {
    char *block;
    size_t bytes;
} scratch;

static size_t padded(int64_t bytes)
{
    return ((size_t)bytes + SP_ARENA_ALIGN - 1) / SP_ARENA_ALIGN * SP_ARENA_ALIGN;
}

static sp_status scratch_take(const sp_plan *plan, char **out, scratch *s)
{
    *s = (scratch){NULL, 0};
    for (int32_t k = 0; k < plan->n_out; k++)
        if (!out[k]) s->bytes += padded(plan->out_bytes[k]) + SP_ARENA_ALIGN;
    if (SP_LIKELY(s->bytes == 0)) return SP_OK;
    char *at = s->block = sp__alloc(s->bytes);
    if (!at)
        return sp_fail(SP_EMEMORY,
                       "plan: out of memory for %zu bytes of results that are not wanted",
                       s->bytes);
    for (int32_t k = 0; k < plan->n_out; k++) {
        if (out[k]) continue;
        out[k] = at;
        at += padded(plan->out_bytes[k]) + SP_ARENA_ALIGN;
    }
    return SP_OK;
}

static sp_status execute(void *args)
{
    run_args *a = args;
    sp_plan *plan = a->plan;
    sp_status status = SP_OK;
    scratch unwanted = {NULL, 0};
    arena *inner = NULL;
    a->started = true;
    sp_frame *f = frame_take(plan);
    if (plan->info.arena_bytes) inner = arena_take((size_t)plan->info.arena_bytes);
    if (!f || (!inner && plan->info.arena_bytes))
        SP_TRY(sp_fail(SP_EMEMORY, "out of memory: %lld bytes of intermediate results",
                       (long long)plan->info.arena_bytes));
    SP_TRY(scratch_take(plan, a->address + plan->n_in, &unwanted));
    fill_addresses(plan, f, a->address, inner ? inner->data : nothing);
    fill_scalars(plan, f, (const sp_scalar *)(a->address + plan->n_in + plan->n_out));
    status = run_steps(plan, f);
out:
    if (unwanted.block) sp__free(unwanted.block, unwanted.bytes);
    arena_give(inner);
    frame_give(plan, f);
    atomic_fetch_add_explicit(&plan->executed, 1,
                              memory_order_release); /* the last touch: see sp__plan_drop() */
    return status;
}

/* ---- issuing ----- */

static size_t args_bytes(const sp_plan *plan)
{
    return sizeof(run_args) + (size_t)(plan->n_in + plan->n_out) * sizeof(char *) +
           (size_t)plan->n_scalars * sizeof(sp_scalar);
}

/* Addresses of everything; the storages written go to `writes`. */
static sp_status gather(const sp_plan *plan, sp_storage *const *in, const int64_t *in_offset,
                        sp_storage *const *out, char **address, sp_storage **writes, int *n_writes)
{
    for (int32_t i = 0; i < plan->n_in; i++)
        address[i] = in[i]->data + in_offset[i] * plan->in_size[i];
    address += plan->n_in;
    *n_writes = 0;
    for (int32_t k = 0; k < plan->n_out; k++) {
        int32_t written = plan->written_input[k];
        sp_storage *s = written >= 0 ? in[written] : out ? out[k] : NULL;
        address[k] = NULL;
        if (!s) continue;
        if (!s->data) SP_RETURN_IF(sp__storage_materialize(s));
        address[k] = s->data;
        writes[(*n_writes)++] = s;
    }
    return SP_OK;
}

static sp_status issue(sp_plan *plan, run_args *args, size_t bytes, sp_storage *const *in,
                       sp_storage *const *writes, int n_writes)
{
    plan->issued++;
    sp_status status = sp__launch_raw(execute, args, bytes, plan->info.predicted_us, in, plan->n_in,
                                      writes, n_writes);
    if (SP_UNLIKELY(status && !args->started)) {
        plan->issued--;
        return status;
    }
    atomic_fetch_add_explicit(&sp__stat_plan_runs, 1, memory_order_relaxed);
    return status;
}

sp_status sp__plan_run(sp_plan *plan, sp_storage *const *in, const int64_t *in_offset,
                       const sp_scalar *scalars, sp_storage *const *out)
{
    _Alignas(16) char stack[STACK_BYTES];
    size_t args_size = args_bytes(plan),
           bytes = args_size + (size_t)plan->n_out * sizeof(sp_storage *);
    char *block = bytes <= sizeof stack ? stack : sp__alloc(bytes);
    if (!block)
        return sp_fail(SP_EMEMORY, "out of memory: %zu bytes of arguments of a compiled region",
                       bytes);
    run_args *args = (run_args *)block;
    sp_storage **writes = (sp_storage **)(block + args_size);
    sp_status status = SP_OK;
    int n_writes;
    args->plan = plan, args->started = false;
    if (!scalars) scalars = plan->g->scalars;
    if (plan->n_scalars)
        memcpy(args->address + plan->n_in + plan->n_out, scalars,
               (size_t)plan->n_scalars * sizeof *scalars);
    SP_TRY(gather(plan, in, in_offset, out, args->address, writes, &n_writes));
    SP_TRY(issue(plan, args, args_size, in, writes, n_writes));
out:
    if (block != stack) sp__free(block, bytes);
    return status;
}

/* ---- handles ----- */

static sp_status new_output(const sp_plan *plan, int32_t k, sp_tensor *const *inputs,
                            sp_tensor **out)
{
    sp_storage *s;
    if (plan->written_input[k] >= 0) return sp__handle_alias(inputs[plan->written_input[k]], out);
    SP_RETURN_IF(sp__storage_new_deferred((size_t)plan->out_bytes[k], SP_DEVICE_CPU, &s));
    sp_status status = sp__handle_new(&plan->out_type[k], s, out);
    sp__storage_drop(s);
    return status;
}

/* Ops that can fail on values are to fail at this call. */
static sp_status wait_if_checked(const sp_plan *plan, sp_tensor *const *outputs)
{
    if (!plan->checks_data) return SP_OK;
    for (int32_t k = 0; k < plan->n_out; k++)
        SP_RETURN_IF(sp__storage_wait(outputs[k]->storage, false));
    return SP_OK;
}

sp_status sp__plan_run_handles(sp_plan *plan, sp_tensor *const *inputs, const sp_scalar *scalars,
                               sp_tensor **outputs)
{
    sp_status status = SP_OK;
    size_t n_in = (size_t)plan->n_in, n_out = (size_t)plan->n_out;
    sp_storage **in = sp__alloc((n_in + n_out) * sizeof *in), **out = in ? in + n_in : NULL;
    int64_t *offset = sp__alloc(n_in * sizeof *offset);
    for (size_t k = 0; k < n_out; k++) outputs[k] = NULL;
    if (!in || !offset)
        SP_TRY(sp_fail(SP_EMEMORY, "out of memory: %d inputs of a graph", plan->n_in));
    for (size_t i = 0; i < n_in; i++) in[i] = inputs[i]->storage, offset[i] = inputs[i]->offset;
    for (size_t k = 0; k < n_out; k++) {
        SP_TRY(new_output(plan, (int32_t)k, inputs, &outputs[k]));
        out[k] = outputs[k]->storage;
    }
    SP_TRY(sp__plan_run(plan, in, offset, scalars, out));
    SP_TRY(wait_if_checked(plan, outputs));
out:
    for (size_t k = 0; status && k < n_out; k++) sp_drop(&outputs[k]);
    if (in) sp__free(in, (n_in + n_out) * sizeof *in);
    if (offset) sp__free(offset, n_in * sizeof *offset);
    return status;
}

/* ---- the end ----- */

void sp__plan_born(void)
{
    atomic_fetch_add(&live_plans, 1);
}

/* Waiting must not take the queue's sticky error away from whoever should see it, nor let other
 * threads of an interpreter at what the caller is about to free. */
void sp__plan_drop(sp_plan **plan)
{
    sp_plan *p = *plan;
    *plan = NULL;
    if (!p) return;
    if (atomic_load_explicit(&p->executed, memory_order_acquire) != p->issued) sp__queue_settle();
    sp__plan_free(p);
    if (atomic_fetch_sub(&live_plans, 1) == 1) arena_trim();
}
