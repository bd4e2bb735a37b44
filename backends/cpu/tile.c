/* Running tile programs, and eager pointwise ops as programs of one instruction.
 *
 *      for each tile of `length` consecutive elements:
 *          strided inputs are gathered into slots; the others are read where they lie
 *          every step is one lane function, to a slot or straight to an output's memory
 *          outputs not written yet are converted, and scattered if strided
 */
#include "backends/cpu/tile.h"

#include <string.h>

#include "backends/cpu/copy.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "backends/cpu/tile_int.h"
#include "ops/attr.h"
#include "ops_gen.h"

enum { CHUNK_ELEMENTS = 16384, SMALL = 512 /* elements of 8 bytes */ };

typedef enum place_kind {
    AT_MEMORY, /* base + position */
    AT_SLOT,
    AT_ONE /* one element for all */
} place_kind;

typedef struct place {
    char *base;
    int16_t slot;
    uint8_t kind, size;
} place;

typedef struct tile_run {
    const sp_tile_prog *prog;
    const sp_kargs *args;
    int64_t length, numel; /* of a tile; of everything */
    int16_t n_slot, staging;
    uint32_t slot_bytes;
    const place *place;       /* one a value */
    const sp_element *number; /* of whatever dtype */
    const bool *direct;       /* one an output: its step has written it already */
} tile_run;

static char *address(const tile_run *r, const place *at, char *scratch, int64_t start)
{
    if (at->kind == AT_SLOT) return scratch + (int64_t)at->slot * r->slot_bytes;
    return at->kind == AT_ONE ? at->base : at->base + start * at->size;
}

static void run_step(const tile_run *r, const sp_tile_step *s, const place *dst, char *scratch,
                     int64_t start, int64_t n)
{
    const void *src[3] = {NULL, NULL, NULL};
    unsigned splat = 0;
    for (int k = 0; k < s->n_src; k++) {
        if (s->src[k] < 0) {
            src[k] = &r->number[-1 - s->src[k]], splat |= 1u << k;
        } else {
            const place *at = &r->place[s->src[k]];
            src[k] = address(r, at, scratch, start);
            if (at->kind == AT_ONE) splat |= 1u << k;
        }
    }
    s->fn(address(r, dst, scratch, start), src[0], src[1], src[2], n, splat);
}

static void store_output(const tile_run *r, int k, char *scratch, int64_t start, int64_t n)
{
    const sp_tile_prog *p = r->prog;
    const sp_operand *out = &r->args->arg[k];
    int value = p->out[k].value;
    int dtype = value < p->n_in ? p->in_dtype[value] : p->step[value - p->n_in].dtype;
    const place *at = &r->place[value];
    bool dense = out->contiguous;
    char *to = dense ? out->data + start * sp__size_of(out->dtype)
                     : scratch + (int64_t)r->staging * r->slot_bytes;
    sp__isa->cast[dtype][out->dtype](to, address(r, at, scratch, start), NULL, NULL, n,
                                     at->kind == AT_ONE);
    if (!dense) sp__scatter(out, to, start, n);
}

static void run_tile(const tile_run *r, char *scratch, int64_t start, int64_t n)
{
    const sp_tile_prog *p = r->prog;
    for (int i = 0; i < p->n_in; i++) {
        const place *at = &r->place[i];
        if (at->kind == AT_SLOT)
            sp__gather(address(r, at, scratch, start), &r->args->arg[p->n_out + i], start, n);
    }
    for (int i = 0; i < p->n_step; i++)
        run_step(r, &p->step[i], &r->place[p->n_in + i], scratch, start, n);
    for (int k = 0; k < p->n_out; k++) {
        if (!r->direct[k]) store_output(r, k, scratch, start, n);
    }
}

static void run_chunk(void *ctx, int64_t chunk)
{
    const tile_run *r = ctx;
    _Alignas(64) char scratch[SP_TILE_SCRATCH];
    int64_t start = chunk * CHUNK_ELEMENTS, end = start + CHUNK_ELEMENTS;
    if (end > r->numel) end = r->numel;
    for (; start < end; start += r->length) {
        run_tile(r, scratch, start, end - start < r->length ? end - start : r->length);
    }
}

/* ---- setting a run up ----- */

static int64_t span_bytes(const sp_operand *x)
{
    int64_t last = 0;
    for (int d = 0; d < x->rank; d++) last += (x->shape[d] - 1) * x->stride[d];
    return (last + 1) * sp__size_of(x->dtype);
}

static bool touches_an_input(const sp_tile_prog *p, const sp_kargs *args, const sp_operand *out)
{
    const char *begin = out->data, *end = begin + span_bytes(out);
    for (int i = 0; i < p->n_in; i++) {
        const sp_operand *in = &args->arg[p->n_out + i];
        if (in->data < end && begin < in->data + span_bytes(in)) return true;
    }
    return false;
}

static void place_values(tile_run *r, place *place, bool *direct)
{
    const sp_tile_prog *p = r->prog;
    const sp_kargs *args = r->args;
    int slot = p->n_slot;
    for (int i = 0; i < p->n_in; i++) {
        const sp_operand *in = &args->arg[p->n_out + i];
        place[i].base = in->data, place[i].size = (uint8_t)sp__size_of(in->dtype);
        if (sp__is_splat(in) || !p->in_used[i])
            place[i].kind = AT_ONE;
        else if (in->contiguous)
            place[i].kind = AT_MEMORY;
        else
            place[i].kind = AT_SLOT, place[i].slot = (int16_t)slot++;
    }
    for (int i = 0; i < p->n_step; i++) {
        place[p->n_in + i].kind = AT_SLOT, place[p->n_in + i].slot = p->step[i].slot;
    }
    bool staging = false;
    for (int k = 0; k < p->n_out; k++) {
        const sp_tile_output *out = &p->out[k];
        const sp_operand *to = &args->arg[k];
        direct[k] = out->first && to->contiguous &&
                    p->step[out->value - p->n_in].dtype == to->dtype &&
                    !(out->inputs_after && touches_an_input(p, args, to));
        staging = staging || !to->contiguous;
        if (!direct[k]) continue;
        place[out->value].kind = AT_MEMORY, place[out->value].base = to->data;
        place[out->value].size = (uint8_t)sp__size_of(to->dtype);
    }
    r->staging = (int16_t)slot, r->n_slot = (int16_t)(slot + staging);
}

static void choose_length(tile_run *r, const sp_kargs *args)
{
    int64_t width = r->prog->width;
    for (int k = 0; k < r->prog->n_out; k++) {
        if (sp__size_of(args->arg[k].dtype) > width) width = sp__size_of(args->arg[k].dtype);
    }
    int64_t slots = r->n_slot > 0 ? r->n_slot : 1,
            least = width > 8 ? SP_TILE_MIN / 2 : SP_TILE_MIN;
    r->length = SP_TILE_HOT / (slots * width) / least * least;
    if (r->length < least) r->length = least;
    if (r->length > SP_TILE_MAX) r->length = SP_TILE_MAX;
    r->slot_bytes = (uint32_t)(r->length * width);
}

double sp__tile_predict_us(const sp_tile_prog *prog, int64_t numel)
{
    return 0.05 + (double)numel * (prog->ns + 0.1 * (prog->n_in + prog->n_out)) * 1e-3;
}

/* args: coalesced. */
static void run_prepared(const sp_tile_prog *p, const sp_kargs *args, const sp_scalar *scalars)
{
    place place[SP_TILE_MAX_VALUES];
    sp_element number[SP_TILE_MAX_NUMBERS];
    bool direct[SP_TILE_MAX_VALUES];
    tile_run r = {.prog = p,
                  .args = args,
                  .numel = args->arg[0].numel,
                  .place = place,
                  .number = number,
                  .direct = direct};
    for (int i = 0; i < p->n_number; i++)
        sp__scalar_to(scalars[p->number[i].scalar], p->number[i].dtype, &number[i]);
    place_values(&r, place, direct);
    choose_length(&r, args);
    sp__pool_for((r.numel + CHUNK_ELEMENTS - 1) / CHUNK_ELEMENTS, sp__tile_predict_us(p, r.numel),
                 run_chunk, &r);
}

void sp__kargs_coalesce(sp_kargs *args)
{
    sp_operand *a = args->arg;
    int rank = 0, n = args->n_arg;
    for (int d = 0; d < a[0].rank; d++) {
        int64_t size = a[0].shape[d];
        if (size == 1) continue;
        bool merges = rank > 0;
        for (int i = 0; i < n && merges; i++) {
            merges = a[i].rank == 0 || a[i].stride[rank - 1] == size * a[i].stride[d];
        }
        int to = merges ? rank - 1 : rank++;
        for (int i = 0; i < n; i++) {
            if (a[i].rank == 0) continue;
            a[i].shape[to] = merges ? a[i].shape[to] * size : size,
            a[i].stride[to] = a[i].stride[d];
        }
    }
    args->dense = true;
    for (int i = 0; i < n; i++) {
        if (a[i].rank > 0) a[i].rank = (uint8_t)rank;
        a[i].contiguous = (a[i].rank > 0 || rank == 0) && sp__is_dense(&a[i]);
        args->dense = args->dense && (a[i].contiguous || a[i].rank == 0);
    }
}

/* Whether every operand either is dense over the iteration space or has one element: nothing to
 * merge. */
static bool is_flat(const sp_kargs *args)
{
    for (int i = 0; i < args->n_arg; i++) {
        const sp_operand *x = &args->arg[i];
        if (!(x->contiguous && x->numel == args->arg[0].numel) && x->rank != 0) return false;
    }
    return true;
}

/* Copies the arguments, so that the caller's stay, and merges dimensions. */
static void run_coalesced(const sp_tile_prog *p, const sp_kargs *args, const sp_scalar *scalars,
                          sp_operand *room)
{
    sp_kargs flat = {.op = args->op, .n_out = args->n_out, .n_arg = args->n_arg, .arg = room};
    for (int i = 0; i < args->n_arg; i++) room[i] = args->arg[i];
    sp__kargs_coalesce(&flat);
    run_prepared(p, &flat, scalars);
}

sp_status sp__tile_run(const sp_tile_prog *prog, const sp_kargs *args, const sp_scalar *scalars)
{
    if (args->n_arg != prog->n_in + prog->n_out) {
        return sp_fail(SP_EINTERNAL, "tile program: %d operands instead of %d", args->n_arg,
                       prog->n_in + prog->n_out);
    }
    if (args->arg[0].numel == 0) return SP_OK;
    if (is_flat(args)) {
        run_prepared(prog, args, scalars);
    } else {
        sp_operand room[SP_TILE_MAX_SLOTS * 2];
        if (args->n_arg > SP_TILE_MAX_SLOTS * 2) {
            return sp_fail(SP_EUNSUPPORTED, "tile program: %d operands are too many", args->n_arg);
        }
        run_coalesced(prog, args, scalars, room);
    }
    return SP_OK;
}

/* ---- eager: one instruction ----- */

/* A scalar attribute in the dtype computed in. */
static inline void number_to(const sp_attr *a, int dtype, sp_element *out)
{
    if (SP_LIKELY(dtype == SP_FLOAT32 && a->kind == SP_ATTR_SCALAR)) {
        float f = a->tag == SP_FLOAT64 ? (float)a->v.f : (float)a->v.i;
        memcpy(out, &f, sizeof f);
    } else {
        sp__scalar_to(sp__attr_to_scalar(a), dtype, out);
    }
}

static inline int operand_dtype(const sp_lanes *l, int k, const sp_kargs *args)
{
    return sp__lanes_take(l, k, args->compute);
}

/* Operands as they lie in memory, numbers in `number`. False: some dtype would have to be
 * converted. */
static inline bool operands_in_place(const sp_kargs *args, const sp_lanes *l, const void **src,
                                     unsigned *numbers, sp_element *number)
{
    const sp_operand *out = &args->arg[0];
    if (l->fn[args->compute] == NULL || out->dtype != sp__lanes_yield(l, args->compute))
        return false;
    for (int k = 0; k < l->n_operands; k++) {
        int from = l->order[k], dtype = operand_dtype(l, k, args);
        if (from >= SP_LANE_SCALAR0) {
            number_to(&args->attr[from - SP_LANE_SCALAR0], dtype, &number[k]);
            src[k] = &number[k], *numbers |= 1u << k;
        } else {
            if (args->arg[1 + from].dtype != dtype) return false;
            src[k] = args->arg[1 + from].data;
        }
    }
    return true;
}

typedef struct eager { /* one lane function on rows of n elements, or on one row in chunks */
    sp_lane_fn fn;
    char *dst;
    const char *src[3];
    int64_t step[3], out_step; /* in bytes: from element to element, or row to row of a plane */
    int64_t n, rows, rows_a_chunk, rows_a_plane;
    const sp_kargs *args; /* of rows: where planes lie, by all dimensions but the last two */
    const int8_t *order;  /* which input is which source, or none */
    unsigned splat;
} eager;

static void eager_chunk(void *ctx, int64_t chunk)
{
    const eager *e = ctx;
    int64_t start = chunk * CHUNK_ELEMENTS,
            n = e->n - start < CHUNK_ELEMENTS ? e->n - start : CHUNK_ELEMENTS;
    e->fn(e->dst + start * e->out_step, e->src[0] + start * e->step[0],
          e->src[1] + start * e->step[1], e->src[2] + start * e->step[2], n, e->splat);
}

/* Bytes from an operand's first plane to another. */
static inline int64_t plane_offset(const sp_kargs *args, int i, int64_t plane)
{
    const sp_operand *x = &args->arg[i], *out = &args->arg[0];
    int64_t at = 0;
    if (SP_LIKELY(plane == 0) || x->rank == 0) return 0;
    for (int d = out->rank - 3; plane > 0; plane /= out->shape[d--])
        at += plane % out->shape[d] * x->stride[d];
    return at * sp__size_of(x->dtype);
}

/* Rows from..end of one plane. */
static void eager_plane(const eager *e, int64_t plane, int64_t from, int64_t end)
{
    char *dst = e->dst + plane_offset(e->args, 0, plane);
    const char *src[3];
    for (int k = 0; k < 3; k++) {
        bool input = e->order[k] >= 0;
        src[k] = e->src[k] + (input ? plane_offset(e->args, 1 + e->order[k], plane) : 0);
    }
    for (int64_t i = from; i < end; i++)
        e->fn(dst + i * e->out_step, src[0] + i * e->step[0], src[1] + i * e->step[1],
              src[2] + i * e->step[2], e->n, e->splat);
}

static void eager_rows(void *ctx, int64_t chunk)
{
    const eager *e = ctx;
    int64_t i = chunk * e->rows_a_chunk,
            end = i + e->rows_a_chunk < e->rows ? i + e->rows_a_chunk : e->rows;
    while (i < end) {
        int64_t plane = i / e->rows_a_plane, first = plane * e->rows_a_plane,
                last = first + e->rows_a_plane < end ? first + e->rows_a_plane : end;
        eager_plane(e, plane, i - first, last - first);
        i = last;
    }
}

static double eager_us(const sp_kargs *args, const sp_lanes *l, int64_t n)
{
    double ns = l->ns * (sp__size_of(args->compute) > 4 ? 2 : 1) + 0.1 * args->n_arg;
    return (double)n * ns * 1e-3;
}

/* Everything dense and in the dtype computed in: no tiles. False: it is not so. */
static inline bool run_dense(const sp_kargs *args, const sp_lanes *l)
{
    const void *src[3] = {args, args, args}; /* unused ones: any address */
    unsigned splat = 0;
    sp_element number[3];
    int64_t n = args->arg[0].numel;
    if (!args->dense || !operands_in_place(args, l, src, &splat, number)) return false;
    for (int k = 0; k < l->n_operands; k++) {
        if (l->order[k] >= SP_LANE_SCALAR0) continue;
        const sp_operand *x = &args->arg[1 + l->order[k]];
        if (x->rank == 0 || x->stride[0] == 0) splat |= 1u << k;
    }
    if (SP_LIKELY(n < CHUNK_ELEMENTS)) {
        if (n > 0) l->fn[args->compute](args->arg[0].data, src[0], src[1], src[2], n, splat);
        return true;
    }
    eager e = {.fn = l->fn[args->compute], .dst = args->arg[0].data, .n = n, .splat = splat};
    for (int k = 0; k < 3; k++) {
        e.src[k] = src[k];
        if (k < l->n_operands && !(splat & (1u << k)))
            e.step[k] = sp__size_of(operand_dtype(l, k, args));
    }
    e.out_step = sp__size_of(args->arg[0].dtype);
    sp__pool_for((n + CHUNK_ELEMENTS - 1) / CHUNK_ELEMENTS, eager_us(args, l, n), eager_chunk, &e);
    return true;
}

/* Two dimensions or more, the inner one dense, or one element for all, in every operand: a call a
 * row. Broadcasting a row or a column, and slices of columns, are of this kind. */
static bool run_rows(const sp_kargs *args, const sp_lanes *l)
{
    enum { SHORT = 8 };
    const sp_operand *out = &args->arg[0];
    const void *src[3] = {args, args, args};
    int8_t order[3] = {-1, -1, -1};
    sp_element number[3];
    int row = out->rank - 2, column = out->rank - 1;
    if (row < 0 || out->shape[column] < SHORT || out->stride[column] != 1) return false;
    eager e = {.fn = l->fn[args->compute],
               .dst = out->data,
               .rows = out->numel / out->shape[column],
               .rows_a_plane = out->shape[row],
               .n = out->shape[column],
               .args = args,
               .order = order};
    if (!operands_in_place(args, l, src, &e.splat, number)) return false;
    for (int k = 0; k < 3; k++) {
        e.src[k] = src[k];
        if (k >= l->n_operands || l->order[k] >= SP_LANE_SCALAR0) continue;
        const sp_operand *x = &args->arg[1 + l->order[k]];
        order[k] = (int8_t)l->order[k];
        if (x->rank == 0 || x->stride[column] == 0)
            e.splat |= 1u << k;
        else if (x->stride[column] != 1)
            return false;
        e.step[k] = x->rank == 0 ? 0 : x->stride[row] * sp__size_of(x->dtype);
    }
    e.out_step = out->stride[row] * sp__size_of(out->dtype);
    e.rows_a_chunk = CHUNK_ELEMENTS / e.n + 1;
    sp__pool_for((e.rows + e.rows_a_chunk - 1) / e.rows_a_chunk, eager_us(args, l, out->numel),
                 eager_rows, &e);
    return true;
}

static bool is_small(const sp_kargs *args)
{
    int64_t n = args->arg[0].numel;
    int widest = sp__size_of(args->compute);
    for (int i = 0; i < args->n_arg; i++)
        if (sp__size_of(args->arg[i].dtype) > widest) widest = sp__size_of(args->arg[i].dtype);
    return n <= (widest > 8 ? SMALL / 2 : SMALL);
}

/* A small strided or mixed call: operands gathered and converted on the stack, one call, result
 * scattered. */
static void run_small(const sp_kargs *args, const sp_lanes *l)
{
    _Alignas(64) char room[4][SMALL * 8], raw[SMALL * 8];
    const sp_operand *out = &args->arg[0];
    const void *src[3] = {NULL, NULL, NULL};
    unsigned splat = 0;
    int64_t n = out->numel;
    for (int k = 0; k < l->n_operands; k++) {
        int from = l->order[k], dtype = operand_dtype(l, k, args);
        src[k] = room[k];
        if (from >= SP_LANE_SCALAR0) {
            sp__scalar_to(sp__attr_to_scalar(&args->attr[from - SP_LANE_SCALAR0]), dtype, room[k]),
                splat |= 1u << k;
            continue;
        }
        const sp_operand *x = &args->arg[1 + from];
        bool one = sp__is_splat(x), in_place = one || (x->contiguous && x->numel == n);
        if (one) splat |= 1u << k;
        if (in_place && x->dtype == dtype) {
            src[k] = x->data;
            continue;
        }
        if (!in_place) sp__gather(x->dtype == dtype ? room[k] : raw, x, 0, n);
        if (x->dtype == dtype) continue;
        sp__isa->cast[x->dtype][dtype](room[k], in_place ? x->data : raw, NULL, NULL, one ? 1 : n,
                                       0);
    }
    int yields = sp__lanes_yield(l, args->compute);
    bool same = out->dtype == yields;
    char *to = out->contiguous && same ? out->data : room[3];
    l->fn[args->compute](to, src[0], src[1], src[2], n, splat);
    if (to == out->data) return;
    char *converted = same ? room[3] : out->contiguous ? out->data : raw;
    if (!same) sp__isa->cast[yields][out->dtype](converted, room[3], NULL, NULL, n, 0);
    if (!out->contiguous) sp__scatter(out, converted, 0, n);
}

static sp_status run_general(const sp_kargs *args)
{
    sp_tile_step step[SP_TILE_STEPS_AN_INSTR];
    sp_tile_number number[3];
    sp_tile_output out[1];
    uint8_t in_dtype[3];
    bool in_used[3];
    int n_in = args->n_arg - 1;
    int16_t result = (int16_t)n_in;
    sp_tile_instr instr = {args->op, args->compute, args->arg[0].dtype, {0, 1, 2}, {0, 1}};
    sp_scalar scalars[2];
    for (int i = 0; i < n_in; i++) in_dtype[i] = args->arg[1 + i].dtype;
    for (int i = 0; i < 2 && i < args->n_attr; i++) {
        if (args->attr[i].kind <= SP_ATTR_SCALAR) scalars[i] = sp__attr_to_scalar(&args->attr[i]);
    }
    sp_tile_prog prog = {
        .step = step, .number = number, .out = out, .in_dtype = in_dtype, .in_used = in_used};
    sp_tile_source source = {&instr, in_dtype, &result, 1, n_in, 1};
    SP_RETURN_IF(sp__tile_compile(&source, &prog));
    return sp__tile_run(&prog, args, scalars);
}

/* A conversion of dense elements: no program. */
static bool run_dense_cast(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0], *x = &args->arg[1];
    if (args->op != SP_OP_CAST || !out->contiguous || !x->contiguous || x->numel != out->numel)
        return false;
    eager e = {.fn = sp__isa->cast[x->dtype][out->dtype],
               .dst = out->data,
               .src = {x->data, x->data, x->data},
               .step = {sp__size_of(x->dtype)},
               .out_step = sp__size_of(out->dtype),
               .n = out->numel};
    double us = (double)e.n * 0.25e-3;
    sp__pool_for((e.n + CHUNK_ELEMENTS - 1) / CHUNK_ELEMENTS, us, eager_chunk, &e);
    return true;
}

sp_status sp__cpu_pointwise(const sp_kargs *args)
{
    const sp_lanes *l = sp__lanes_of(args->op, args->compute);
    if (SP_LIKELY(run_dense(args, l))) return SP_OK;
    if (run_dense_cast(args)) return SP_OK;
    if (args->arg[0].numel == 0 || run_rows(args, l)) return SP_OK;
    const sp_operand *from = &args->arg[args->op == SP_OP_COPY ? 2 : 1], *out = &args->arg[0];
    if ((args->op == SP_OP_CLONE || args->op == SP_OP_COPY) && from->dtype == out->dtype) {
        if (out->contiguous && out->numel <= SMALL)
            sp__gather(out->data, from, 0, out->numel);
        else
            sp__copy_strided(out, from);
        return SP_OK;
    }
    if (l->fn[args->compute] != NULL && is_small(args)) {
        run_small(args, l);
        return SP_OK;
    }
    return run_general(args);
}
