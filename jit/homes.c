/* Where values live: lifetimes, in-place writes, donation, and the arena.
 *
 * Every root value (one with bytes of its own) gets a home:
 *
 *     OUTPUT k   the first output that is exactly this value's bytes
 *     INPUT i    it is written back to input i, and nobody reads the old value afterwards
 *     ARENA      the rest; a value may take over the home of an operand that dies in its stage
 *
 * Where that cannot be, a copy is appended at the end. Copies come in the order that keeps reads
 * before writes: outputs first, then inputs that are both read and written, saved, then writebacks.
 *
 * Writing over an operand is allowed where every element is read before it is written: pointwise
 * stages and ops that update, whose operand has the result's geometry, and ops that are the
 * functional form of an in-place op, in their first operand.
 */
#include <string.h>

#include "jit/plan_int.h"
#include "ops/attr.h"
#include "ops_gen.h"
#include "tensor/memory.h"

/* ---- values ----- */

static const sp_meta *type_of(const sp_planner *p, sp_vid v)
{
    return &p->g->values[v].type;
}

static int64_t bytes_of(const sp_planner *p, sp_vid v)
{
    return sp__meta_extent(type_of(p, v)) * (int64_t)sp_dtype_size((sp_dtype)type_of(p, v)->dtype);
}

static bool is_made(const sp_planner *p, sp_vid root)
{
    return p->g->values[root].kind == SP_VALUE_NODE;
}

static int32_t made_in(const sp_planner *p, sp_vid root)
{
    return p->stage_of[p->g->values[root].def];
}

/* Whether v is all of its root's bytes. */
static bool covers(const sp_planner *p, sp_vid v, sp_vid root)
{
    return type_of(p, v)->offset == 0 && bytes_of(p, v) == bytes_of(p, root);
}

static bool same_walk(const sp_meta *a, const sp_meta *b)
{
    sp_meta as_a = *b;
    as_a.dtype = a->dtype;
    return sp_dtype_size((sp_dtype)a->dtype) == sp_dtype_size((sp_dtype)b->dtype) &&
           sp__meta_same(a, &as_a);
}

/* Kernels whose result may be their first operand's memory, because x.op_() runs them so. */
static bool updates_first(int op)
{
    return op == SP_OP_AS_STRIDED_SCATTER || op == SP_OP_SLICE_SCATTER ||
           op == SP_OP_SELECT_SCATTER || op == SP_OP_SCATTER_ADD || op == SP_OP_INDEX_ADD;
}

/* Whether `node` may read its input k from memory where `result` is being written. */
static bool reads_in_step(const sp_planner *p, const sp_ir_node *node, int k, sp_vid result)
{
    if (!same_walk(type_of(p, node->in[k]), type_of(p, result))) return false;
    if (sp_op_table[node->op].flags & (SP_OPF_POINTWISE | SP_OPF_UPDATES)) return true;
    return updates_first(node->op) && k == 0 && node->out[0] == result;
}

/* ---- homes ----- */

static void give_home(sp_planner *p, sp_vid root, sp_home_kind kind, int32_t index)
{
    int32_t made = made_in(p, root), last = p->last[root] > made ? p->last[root] : made;
    p->home[root] = p->n_homes;
    p->homes[p->n_homes++] = (sp_home){.kind = (uint8_t)kind,
                                       .index = index,
                                       .first = made,
                                       .last = last,
                                       .bytes = bytes_of(p, root)};
}

static void note_reads(sp_planner *p, int32_t node)
{
    const sp_ir_node *n = &p->g->nodes[node];
    for (int k = 0; k < n->n_in; k++) {
        if (n->in[k] < 0 || p->stage_of[node] < 0) continue;
        int32_t *last = &p->last[sp__graph_root(p->g, n->in[k])];
        if (*last < p->stage_of[node]) *last = p->stage_of[node];
    }
}

/* ---- copies ----- */

static sp__where where_of(const sp_planner *p, sp_vid v)
{
    const sp_value *val = &p->g->values[v];
    return val->kind == SP_VALUE_NODE ? p->g->nodes[val->def].where : (sp__where){NULL, 0};
}

/* One index an element: dimensions of stride 0 become size 1, so that nothing is written twice. */
static sp_status unexpanded(sp_planner *p, sp_vid *v)
{
    sp_meta m = *type_of(p, *v);
    bool expanded = false;
    for (int i = 0; i < m.rank; i++)
        if (m.stride[i] == 0 && m.shape[i] > 1) m.shape[i] = 1, expanded = true;
    if (!expanded) return SP_OK;
    sp_vid root = sp__graph_root(p->g, *v);
    sp_attr attr[] = {sp__attr_ints(m.shape, m.rank), sp__attr_ints(m.stride, m.rank),
                      sp__attr_int(m.offset)};
    sp__where where = where_of(p, *v);
    return sp__graph_node(p->g, SP_OP_AS_STRIDED, &root, 1, attr, 3, NULL, &where, v);
}

/* Appends a copy of v with v's own strides (or those of `as`), in a stage of its own. */
static sp_status append_copy(sp_planner *p, sp_vid v, const sp_meta *as, sp_vid *out)
{
    sp__where where = where_of(p, v);
    if (!as) SP_RETURN_IF(unexpanded(p, &v));
    sp_meta type = as ? *as : *type_of(p, v);
    type.offset = 0, type.view_of = -1;
    SP_RETURN_IF(sp__graph_node(p->g, SP_OP_CLONE, &v, 1, NULL, 0, &type, &where, out));
    SP_RETURN_IF(sp__plan_stage(p, p->g->n_nodes - 1, 1));
    note_reads(p, p->g->n_nodes - 1);
    return SP_OK;
}

/* ---- outputs ----- */

static int32_t written_input(const sp_planner *p, int32_t output)
{
    for (int32_t i = 0; i < p->opt->n_writebacks; i++)
        if (p->opt->writebacks[i].output == output) return p->opt->writebacks[i].input;
    return -1;
}

static sp_status place_outputs(sp_planner *p)
{
    for (int32_t k = 0; k < p->g->n_outputs; k++) {
        sp_vid v = p->g->outputs[k], root = sp__graph_root(p->g, v);
        if (written_input(p, k) >= 0) continue;
        if (!is_made(p, root) || p->home[root] >= 0 || !covers(p, v, root)) {
            SP_RETURN_IF(append_copy(p, v, NULL, &v));
            root = v;
        }
        give_home(p, root, SP_HOME_OUTPUT, k);
    }
    return SP_OK;
}

/* ---- writebacks ----- */

static bool is_written_input(const sp_planner *p, sp_vid root)
{
    const sp_value *val = &p->g->values[root];
    if (val->kind != SP_VALUE_INPUT) return false;
    for (int32_t i = 0; i < p->opt->n_writebacks; i++)
        if (p->opt->writebacks[i].input == val->def) return true;
    return false;
}

/* Whether v is what the input holds anyway. */
static bool nothing_to_do(const sp_planner *p, sp_vid v, sp_vid input)
{
    return sp__graph_root(p->g, v) == input && sp__meta_same(type_of(p, v), type_of(p, input));
}

/* Old values of inputs that are about to be overwritten, saved if they are written back elsewhere
 * (x, y = y, x). */
static sp_status save_inputs(sp_planner *p)
{
    for (int32_t i = 0; i < p->opt->n_writebacks; i++) {
        sp_vid *v = &p->g->outputs[p->opt->writebacks[i].output],
               input = p->g->inputs[p->opt->writebacks[i].input];
        if (nothing_to_do(p, *v, input) || !is_written_input(p, sp__graph_root(p->g, *v))) continue;
        SP_RETURN_IF(append_copy(p, *v, type_of(p, input), v));
    }
    return SP_OK;
}

/* No read of the input's old value once `root` is written, and in that very stage only in step. */
static bool safe_to_overwrite(const sp_planner *p, sp_vid root, sp_vid input)
{
    int32_t stage = made_in(p, root);
    for (int32_t i = 0; i < p->g->n_nodes; i++) {
        const sp_ir_node *node = &p->g->nodes[i];
        if (p->stage_of[i] < stage) continue;
        for (int k = 0; k < node->n_in; k++) {
            if (node->in[k] < 0 || sp__graph_root(p->g, node->in[k]) != input) continue;
            if (p->stage_of[i] > stage || !reads_in_step(p, node, k, root)) return false;
        }
    }
    return true;
}

static sp_status place_writebacks(sp_planner *p)
{
    int32_t n = p->opt->n_writebacks;
    for (int32_t i = 0; i < n; i++) { /* where it is safe; all are judged before copies come */
        const sp_writeback *w = &p->opt->writebacks[i];
        sp_vid v = p->g->outputs[w->output], input = p->g->inputs[w->input],
               root = sp__graph_root(p->g, v);
        if (!is_made(p, root) || p->home[root] >= 0 || !covers(p, v, root)) continue;
        if (!sp__meta_same(type_of(p, v), type_of(p, input)) || !safe_to_overwrite(p, root, input))
            continue;
        give_home(p, root, SP_HOME_INPUT, w->input);
        p->info->in_place++;
    }
    for (int32_t i = 0; i < n; i++) {
        const sp_writeback *w = &p->opt->writebacks[i];
        sp_vid v = p->g->outputs[w->output], input = p->g->inputs[w->input],
               root = sp__graph_root(p->g, v);
        if (nothing_to_do(p, v, input)) continue;
        if (p->home[root] >= 0 && p->homes[p->home[root]].kind == SP_HOME_INPUT &&
            p->homes[p->home[root]].index == w->input)
            continue;
        SP_RETURN_IF(append_copy(p, v, type_of(p, input), &v));
        give_home(p, v, SP_HOME_INPUT, w->input);
    }
    return SP_OK;
}

/* ---- donation ----- */

/* Whether `root` dies in this stage, and is read there only in step with `result`. */
static bool dies_into(const sp_planner *p, sp_vid root, const sp_stage *stage, int32_t nr,
                      sp_vid result)
{
    if (!is_made(p, root) || p->home[root] >= 0 || p->last[root] != nr ||
        bytes_of(p, root) != bytes_of(p, result))
        return false;
    for (int32_t i = stage->first; i < stage->first + stage->n; i++) {
        const sp_ir_node *node = &p->g->nodes[i];
        for (int k = 0; k < node->n_in; k++)
            if (node->in[k] >= 0 && sp__graph_root(p->g, node->in[k]) == root &&
                !reads_in_step(p, node, k, result))
                return false;
    }
    return made_in(p, root) < nr;
}

/* The first operand of the stage that can live where `result` will. */
static void take_over(sp_planner *p, const sp_stage *stage, int32_t nr, sp_vid result)
{
    sp_home *home = &p->homes[p->home[result]];
    if (home->kind == SP_HOME_INPUT || bytes_of(p, result) == 0) return;
    for (int32_t i = stage->first; i < stage->first + stage->n; i++) {
        const sp_ir_node *node = &p->g->nodes[i];
        for (int k = 0; k < node->n_in; k++) {
            sp_vid root = node->in[k] < 0 ? -1 : sp__graph_root(p->g, node->in[k]);
            if (root < 0 || !dies_into(p, root, stage, nr, result)) continue;
            p->home[root] = p->home[result];
            home->first = made_in(p, root);
            p->info->in_place++;
            return;
        }
    }
}

/* Results inside a program that nobody outside reads have no bytes at all. */
static bool has_bytes(const sp_stage *stage, sp_vid v)
{
    if (!stage->program.tile) return true;
    for (int32_t i = 0; i < stage->program.n_out; i++)
        if (stage->program.out[i] == v) return true;
    return false;
}

/* From the last stage to the first, so that a chain of updates ends up in one home: the one of its
 * last value. */
static void place_rest(sp_planner *p)
{
    for (int32_t s = p->n_stage - 1; s >= 0; s--) {
        const sp_stage *stage = &p->stage[s];
        for (int32_t i = stage->first; i < stage->first + stage->n; i++)
            for (int k = 0; k < p->g->nodes[i].n_out; k++) {
                sp_vid v = p->g->nodes[i].out[k];
                if (type_of(p, v)->view_of >= 0 || !has_bytes(stage, v)) continue;
                if (p->home[v] < 0) give_home(p, v, SP_HOME_ARENA, 0);
                take_over(p, stage, s, v);
            }
    }
}

/* ---- the arena ----- */

static bool meet(const sp_home *a, const sp_home *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* Into the lowest gap between those placed before that live at the same time; `placed` is sorted by
 * offset. */
static void place_in_arena(sp_home **placed, int32_t n, sp_home *home)
{
    int64_t at = 0;
    int32_t i = 0;
    for (; i < n; i++) {
        if (!meet(placed[i], home)) continue;
        if (placed[i]->offset - at >= home->bytes) break;
        if (placed[i]->offset + placed[i]->bytes > at) at = placed[i]->offset + placed[i]->bytes;
    }
    home->offset = at;
    for (i = n; i > 0 && placed[i - 1]->offset > at; i--) placed[i] = placed[i - 1];
    placed[i] = home;
}

static int64_t lower_bound(const sp_planner *p, int64_t *delta)
{
    int64_t alive = 0, most = 0;
    for (int32_t i = 0; i < p->n_homes; i++) {
        if (p->homes[i].kind != SP_HOME_ARENA) continue;
        delta[p->homes[i].first] += p->homes[i].bytes;
        delta[p->homes[i].last + 1] -= p->homes[i].bytes;
    }
    for (int32_t s = 0; s <= p->n_stage; s++) {
        alive += delta[s];
        if (alive > most) most = alive;
    }
    return most;
}

static void sift(sp_home **heap, int32_t n, int32_t i)
{
    sp_home *moved = heap[i];
    for (int32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1]->bytes < heap[child]->bytes) child++;
        if (heap[child]->bytes >= moved->bytes) break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

/* Heap sort, largest first: the large ones shape the arena, the small ones fill its gaps. */
static void sort_by_size(sp_home **list, int32_t n)
{
    for (int32_t i = n / 2 - 1; i >= 0; i--) sift(list, n, i);
    while (n > 1) {
        sp_home *smallest = list[0];
        list[0] = list[--n];
        list[n] = smallest;
        sift(list, n, 0);
    }
}

static sp_status fill_arena(sp_planner *p)
{
    sp_status status = SP_OK;
    size_t homes = (size_t)p->n_homes, stages = (size_t)p->n_stage + 1;
    sp_home **list = sp__alloc(homes * sizeof *list), **placed = sp__alloc(homes * sizeof *placed);
    int64_t *delta = sp__alloc_zero(stages * sizeof *delta);
    int32_t n = 0;
    if (!list || !placed || !delta)
        SP_TRY(sp_fail(SP_EMEMORY, "plan: out of memory for %d values", p->n_homes));
    for (int32_t i = 0; i < p->n_homes; i++) {
        sp_home *home = &p->homes[i];
        if (home->kind != SP_HOME_ARENA) continue;
        home->bytes = (home->bytes + SP_ARENA_ALIGN - 1) / SP_ARENA_ALIGN * SP_ARENA_ALIGN;
        list[n++] = home;
    }
    sort_by_size(list, n);
    for (int32_t i = 0; i < n; i++) {
        place_in_arena(placed, i, list[i]);
        if (list[i]->offset + list[i]->bytes > p->info->arena_bytes)
            p->info->arena_bytes = list[i]->offset + list[i]->bytes;
    }
    p->info->lower_bound = lower_bound(p, delta);
out:
    if (list) sp__free(list, homes * sizeof *list);
    if (placed) sp__free(placed, homes * sizeof *placed);
    if (delta) sp__free(delta, stages * sizeof *delta);
    return status;
}

sp_status sp__plan_homes(sp_planner *p)
{
    for (int32_t i = 0; i < p->g->n_nodes; i++) note_reads(p, i);
    SP_RETURN_IF(place_outputs(p));
    SP_RETURN_IF(save_inputs(p));
    SP_RETURN_IF(place_writebacks(p));
    place_rest(p);
    return fill_arena(p);
}
