/* The blueprint: kernel arguments for every stage, and where addresses and scalars go.
 */
#include <stdio.h>
#include <string.h>

#include "jit/plan_int.h"
#include "ops/attr.h"
#include "tensor/memory.h"

typedef struct sizes {
    int32_t steps, operands, attrs, scalars;
} sizes;

/* ---- stages and their operands ----- */

static const sp_vid *operand_values(const sp_graph *g, const sp_stage *stage, sp_vid *room)
{
    const sp_ir_node *node = &g->nodes[stage->first];
    if (stage->program.tile) {
        memcpy(room, stage->program.out, (size_t)stage->program.n_out * sizeof *room);
        memcpy(room + stage->program.n_out, stage->program.in,
               (size_t)stage->program.n_in * sizeof *room);
    } else {
        memcpy(room, node->out, node->n_out * sizeof *room);
        if (node->n_in) memcpy(room + node->n_out, node->in, (size_t)node->n_in * sizeof *room);
    }
    return room;
}

static int32_t operand_count(const sp_graph *g, const sp_stage *stage)
{
    const sp_ir_node *node = &g->nodes[stage->first];
    return stage->program.tile ? stage->program.n_out + stage->program.n_in
                               : node->n_out + node->n_in;
}

/* A stage without elements is none: kernels are not made for that, and eager runs none either. */
static bool is_empty(const sp_graph *g, const sp_stage *stage)
{
    const sp_ir_node *node = &g->nodes[stage->first];
    if (node->n_out != 1 || sp_op_table[node->op].flags & SP_OPF_CHECKS_DATA) return false;
    return g->values[node->out[0]].type.numel == 0;
}

static sizes measure(const sp_planner *p)
{
    sizes n = {0};
    for (int32_t s = 0; s < p->n_stage; s++) {
        const sp_stage *stage = &p->stage[s];
        int32_t operands = operand_count(p->g, stage);
        if (is_empty(p->g, stage)) continue;
        n.steps++;
        if (operands > SP_KARGS_INLINE) n.operands += operands;
        if (stage->program.tile)
            n.scalars += stage->program.n_scalar;
        else
            n.attrs += p->g->nodes[stage->first].n_attr;
    }
    return n;
}

/* ---- frames ----- */

static sp_frame *frame_new(sizes n)
{
    size_t kargs_at = (sizeof(sp_frame) + 63) / 64 * 64;
    size_t operand_at = kargs_at + (size_t)n.steps * sizeof(sp_kargs);
    size_t attr_at = operand_at + (size_t)n.operands * sizeof(sp_operand);
    size_t scalar_at = attr_at + (size_t)n.attrs * sizeof(sp_attr);
    size_t bytes = scalar_at + (size_t)n.scalars * sizeof(sp_scalar);
    char *block = sp__alloc_zero(bytes);
    if (!block) return NULL;
    sp_frame *f = (sp_frame *)block;
    f->bytes = bytes;
    f->kargs = (sp_kargs *)(block + kargs_at);
    f->operand = (sp_operand *)(block + operand_at);
    f->attr = (sp_attr *)(block + attr_at);
    f->scalar = (sp_scalar *)(block + scalar_at);
    return f;
}

void sp__frame_free(sp_frame *f)
{
    if (f) sp__free(f, f->bytes);
}

/* A pointer into one block as a pointer into another. */
static void *moved(const void *at, const void *from, void *to)
{
    return (char *)to + ((const char *)at - (const char *)from);
}

sp_frame *sp__frame_copy(const sp_plan *plan)
{
    const sp_frame *b = plan->blueprint;
    sp_frame *f = sp__dup(b, b->bytes);
    if (!f) return NULL;
    f->kargs = moved(b->kargs, b, f), f->operand = moved(b->operand, b, f);
    f->attr = moved(b->attr, b, f), f->scalar = moved(b->scalar, b, f);
    for (int32_t i = 0; i < plan->n_step; i++) {
        f->kargs[i].arg = moved(b->kargs[i].arg, b, f);
        if (f->kargs[i].attr) f->kargs[i].attr = moved(b->kargs[i].attr, b, f);
    }
    return f;
}

/* ---- lists that grow ----- */

static sp_status room_for(void *block_at, int32_t n, int32_t *cap, size_t item)
{
    if (n < *cap) return SP_OK;
    int32_t bigger = *cap ? 2 * *cap : 16;
    void *old, *grown;
    memcpy(&old, block_at, sizeof old);
    grown = old ? sp__realloc(old, (size_t)*cap * item, (size_t)bigger * item)
                : sp__alloc((size_t)bigger * item);
    if (!grown) return sp_fail(SP_EMEMORY, "plan: out of memory for %d addresses", bigger);
    memcpy(block_at, &grown, sizeof grown);
    *cap = bigger;
    return SP_OK;
}

static sp_status patch(sp_plan *plan, bool inner, uint32_t at, int32_t source, int64_t offset)
{
    sp_patch entry = {.at = at, .source = source, .offset = offset};
    if (inner) {
        SP_RETURN_IF(room_for(&plan->inner, plan->n_inner, &plan->cap_inner, sizeof entry));
        plan->inner[plan->n_inner++] = entry;
    } else {
        SP_RETURN_IF(room_for(&plan->io, plan->n_io, &plan->cap_io, sizeof entry));
        plan->io[plan->n_io++] = entry;
    }
    return SP_OK;
}

static sp_status patch_scalar(sp_plan *plan, const void *at, const sp_attr *attr, bool is_attr)
{
    SP_RETURN_IF(room_for(&plan->scalar, plan->n_scalar, &plan->cap_scalar, sizeof *plan->scalar));
    plan->scalar[plan->n_scalar++] =
        (sp_scalar_patch){.at = (uint32_t)((const char *)at - (char *)plan->blueprint),
                          .scalar = attr->n - 1,
                          .attr_kind = (int8_t)(is_attr ? attr->kind : -1)};
    return SP_OK;
}

/* ---- filling in ----- */

static sp_status address(sp_plan *plan, const sp_planner *p, sp_vid v, sp_operand *operand)
{
    sp_vid root = sp__graph_root(p->g, v);
    const sp_value *r = &p->g->values[root];
    int64_t offset = p->g->values[v].type.offset * (int64_t)sp_dtype_size((sp_dtype)r->type.dtype);
    uint32_t at = (uint32_t)((char *)&operand->data - (char *)plan->blueprint);
    operand->data = NULL;
    if (r->kind == SP_VALUE_CONST) {
        operand->data = sp__data(r->constant) + offset;
        return SP_OK;
    }
    if (r->kind == SP_VALUE_INPUT) return patch(plan, false, at, r->def, offset);
    const sp_home *home = &p->homes[p->home[root]];
    switch (home->kind) {
    case SP_HOME_INPUT: return patch(plan, false, at, home->index, offset);
    case SP_HOME_OUTPUT: return patch(plan, false, at, plan->n_in + home->index, offset);
    default: return patch(plan, true, at, 0, home->offset + offset);
    }
}

static sp_status addresses(sp_plan *plan, const sp_planner *p, const sp_stage *stage, sp_kargs *k)
{
    sp_status status = SP_OK;
    size_t n = (size_t)operand_count(p->g, stage);
    sp_vid *room = sp__alloc(n * sizeof *room);
    if (!room) return sp_fail(SP_EMEMORY, "plan: out of memory for %zu operands", n);
    const sp_vid *values = operand_values(p->g, stage, room);
    for (size_t i = 0; i < n; i++) {
        k->arg[i].data = NULL;
        if (values[i] >= 0) SP_TRY(address(plan, p, values[i], &k->arg[i]));
    }
out:
    sp__free(room, n * sizeof *room);
    return status;
}

static sp_status kernel_args(sp_plan *plan, const sp_planner *p, const sp_stage *stage,
                             sp_operand *many, sp_attr *attr, sp_kargs *k)
{
    const sp_ir_node *node = &p->g->nodes[stage->first];
    k->arg = node->n_out + node->n_in > SP_KARGS_INLINE ? many : k->room;
    SP_RETURN_IF(sp__program_kargs(p->g, node, k));
    k->attr = attr;
    for (int i = 0; i < node->n_attr; i++) {
        attr[i] = node->attr[i];
        if (attr[i].kind == SP_ATTR_INTS || attr[i].n == 0) continue;
        attr[i].n = 0;
        SP_RETURN_IF(patch_scalar(plan, &attr[i], &node->attr[i], true));
    }
    return SP_OK;
}

static void tile_args(const sp_graph *g, const sp_stage *stage, sp_operand *many, sp_kargs *k)
{
    const sp_program *t = &stage->program;
    const sp_meta *space = &g->values[t->out[0]].type;
    *k = (sp_kargs){
        .op = g->nodes[stage->first].op, .n_out = (uint8_t)t->n_out, .n_arg = t->n_out + t->n_in};
    k->arg = k->n_arg > SP_KARGS_INLINE ? many : k->room;
    for (int32_t i = 0; i < t->n_out; i++)
        sp__program_operand(&g->values[t->out[i]].type, space, &k->arg[i]);
    for (int32_t i = 0; i < t->n_in; i++)
        sp__program_operand(&g->values[t->in[i]].type, space, &k->arg[t->n_out + i]);
    sp__kargs_coalesce(k);
}

static sp_status tile_scalars(sp_plan *plan, const sp_graph *g, const sp_program *t,
                              sp_scalar *scalar)
{
    for (int32_t i = 0; i < t->n_scalar; i++) {
        const sp_attr *a = &g->nodes[t->scalar[i].node].attr[t->scalar[i].attr];
        scalar[i] = sp__attr_to_scalar(a);
        if (a->n) SP_RETURN_IF(patch_scalar(plan, &scalar[i], a, false));
    }
    return SP_OK;
}

/* ---- steps ----- */

/* For messages; text now, because lines may be asked for only by a thread that holds the
 * interpreter. */
static sp_status describe(const sp_graph *g, const sp_stage *stage, char **out)
{
    char where[160], text[320];
    const sp_ir_node *first = &g->nodes[stage->first], *last = first + stage->n - 1;
    sp__where_text(&last->where, where, sizeof where);
    const char *open = *where ? " (" : "", *close = *where ? ")" : "";
    if (stage->n > 1)
        snprintf(text, sizeof text, "%s ... %s, %d ops fused%s%s%s", sp_op_table[first->op].name,
                 sp_op_table[last->op].name, stage->n, open, where, close);
    else
        snprintf(text, sizeof text, "%s%s%s%s", sp_op_table[first->op].name, open, where, close);
    *out = sp__dup(text, strlen(text) + 1);
    return *out ? SP_OK : sp_fail(SP_EMEMORY, "plan: out of memory for a step's name");
}

static sp_status find_kernel(const sp_ir_node *node, sp_kernel *out)
{
    const sp_backend *cpu = sp__backends[SP_DEVICE_CPU];
    *out = cpu ? cpu->kernel(node->op) : NULL;
    return *out ? SP_OK
                : sp_fail(SP_EUNSUPPORTED, "plan: %s has no kernel on the CPU",
                          sp_op_table[node->op].name);
}

typedef struct cursor { /* the next free entry in each part of the frame */
    sp_operand *operand;
    sp_attr *attr;
    sp_scalar *scalar;
} cursor;

static sp_status make_step(sp_plan *plan, const sp_planner *p, const sp_stage *stage, cursor *c)
{
    sp_plan_step *step = &plan->step[plan->n_step];
    sp_kargs *k = &plan->blueprint->kargs[plan->n_step];
    const sp_ir_node *node = &p->g->nodes[stage->first];
    *step = (sp_plan_step){.tile = stage->program.tile, .n_nodes = stage->n};
    plan->n_step++;
    SP_RETURN_IF(describe(p->g, stage, &step->what));
    if (step->tile) {
        tile_args(p->g, stage, c->operand, k);
        if (k->arg == c->operand) c->operand += k->n_arg;
        step->scalar = (int32_t)(c->scalar - plan->blueprint->scalar);
        SP_RETURN_IF(tile_scalars(plan, p->g, &stage->program, c->scalar));
        c->scalar += stage->program.n_scalar;
        plan->info.predicted_us += sp__tile_predict_us(step->tile, k->arg[0].numel);
    } else {
        SP_RETURN_IF(find_kernel(node, &step->kernel));
        SP_RETURN_IF(kernel_args(plan, p, stage, c->operand, c->attr, k));
        if (k->arg == c->operand) c->operand += k->n_arg;
        c->attr += node->n_attr;
        plan->info.predicted_us += sp__backends[SP_DEVICE_CPU]->predict_us(k);
    }
    return addresses(plan, p, stage, k);
}

sp_status sp__plan_frame(sp_plan *plan, sp_planner *p)
{
    sizes n = measure(p);
    plan->cap_step = n.steps ? n.steps : 1;
    plan->step = sp__alloc((size_t)plan->cap_step * sizeof *plan->step);
    plan->blueprint = frame_new(n);
    if (!plan->step || !plan->blueprint)
        return sp_fail(SP_EMEMORY, "plan: out of memory for %d steps", n.steps);
    cursor c = {plan->blueprint->operand, plan->blueprint->attr, plan->blueprint->scalar};
    for (int32_t s = 0; s < p->n_stage; s++)
        if (!is_empty(p->g, &p->stage[s])) SP_RETURN_IF(make_step(plan, p, &p->stage[s], &c));
    plan->info.steps = plan->n_step;
    return SP_OK;
}
