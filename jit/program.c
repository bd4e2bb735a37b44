#include "jit/program.h"

#include <string.h>

#include "ops/launch.h"
#include "tensor/memory.h"

enum { SCALARS_A_NODE = 2 };

/* ---- single nodes ----- */

/* Enough of a handle for sp__kargs_fill(). The address stands for none: operands get theirs when a
 * plan runs. */
static void geometry_handle(const sp_meta *m, sp_storage *nowhere, sp_tensor *out)
{
    memset(out, 0, offsetof(sp_tensor, shape));
    out->refs = 1;
    out->dtype = m->dtype, out->device = m->device, out->rank = m->rank;
    out->flags = m->contiguous ? SP_T_CONTIGUOUS : 0;
    out->storage = nowhere;
    out->numel = m->numel;
    memcpy(out->shape, m->shape, m->rank * sizeof *m->shape);
    memcpy(out->stride, m->stride, m->rank * sizeof *m->stride);
}

static void fill_kargs(const sp_graph *g, const sp_ir_node *node, sp_tensor *handle, sp_tensor **in,
                       sp_kargs *out)
{
    static char nothing[64];
    sp_storage nowhere = {.data = nothing};
    sp_call c = {
        .op = node->op, .n_out = node->n_out, .n_attr = node->n_attr, .n_in = node->n_in, .in = in};
    for (int i = 0; i < node->n_out; i++) {
        c.out[i] = &handle[i];
        geometry_handle(&g->values[node->out[i]].type, &nowhere, c.out[i]);
    }
    for (int i = 0; i < node->n_in; i++) {
        in[i] = node->in[i] < 0 ? NULL : &handle[node->n_out + i];
        if (in[i]) geometry_handle(&g->values[node->in[i]].type, &nowhere, in[i]);
    }
    for (int i = 0; i < node->n_attr; i++) c.attr[i] = node->attr[i];
    sp__kargs_fill(&c, out);
    out->attr = node->attr;
}

sp_status sp__program_kargs(const sp_graph *g, const sp_ir_node *node, sp_kargs *out)
{
    sp_tensor room[SP_KARGS_INLINE], *in[SP_KARGS_INLINE];
    size_t n = (size_t)(node->n_out + node->n_in);
    if (n <= SP_KARGS_INLINE) {
        fill_kargs(g, node, room, in, out);
        return SP_OK;
    }
    sp_tensor *handles = sp__alloc(n * sizeof *handles), **many = sp__alloc(n * sizeof *many);
    if (handles && many) fill_kargs(g, node, handles, many, out);
    sp_status status = handles && many
                           ? SP_OK
                           : sp_fail(SP_EMEMORY, "plan: no memory for %zu operands of %s", n,
                                     sp_op_table[node->op].name);
    if (handles) sp__free(handles, n * sizeof *handles);
    if (many) sp__free(many, n * sizeof *many);
    return status;
}

/* Inference decides what dtype an op computes in, and the launcher knows it. */
static sp_dtype compute_dtype(const sp_graph *g, const sp_ir_node *node)
{
    sp_kargs k;
    if (sp__program_kargs(g, node, &k)) return (sp_dtype)g->values[node->out[0]].type.dtype;
    return (sp_dtype)k.compute;
}

bool sp__program_can(const sp_graph *g, const sp_ir_node *node)
{
    const sp_op_info *info = &sp_op_table[node->op];
    if (!(info->flags & SP_OPF_POINTWISE) || node->n_out != 1 || node->n_in < 1 || node->n_in > 3)
        return false;
    const sp_meta *out = &g->values[node->out[0]].type;
    if (out->view_of >= 0 || out->device != SP_DEVICE_CPU) return false;
    int scalars = 0;
    for (int i = 0; i < node->n_attr; i++) scalars += node->attr[i].kind <= SP_ATTR_SCALAR;
    for (int i = 0; i < node->n_in; i++)
        if (node->in[i] < 0) return false;
    return scalars <= SCALARS_A_NODE && sp__tile_can(node->op, compute_dtype(g, node));
}

/* ---- groups ----- */

typedef struct builder {
    const sp_graph *g;
    sp_program *p;
    sp_tile_instr *instr;
    int32_t first, n;
    uint8_t *in_dtype;
    int16_t *out_reg;
} builder;

static sp_status no_memory(int32_t n)
{
    return sp_fail(SP_EMEMORY, "fuse: out of memory for a program of %d nodes", n);
}

static bool inside(const builder *b, sp_vid v)
{
    const sp_value *val = &b->g->values[v];
    return val->kind == SP_VALUE_NODE && val->def >= b->first && val->def < b->first + b->n;
}

/* Inputs are numbered before instructions, so all are collected first. */
static void collect_inputs(builder *b)
{
    sp_program *p = b->p;
    for (int32_t i = b->first; i < b->first + b->n; i++) {
        const sp_ir_node *node = &b->g->nodes[i];
        for (int k = 0; k < node->n_in; k++) {
            int32_t at = 0;
            if (inside(b, node->in[k])) continue;
            while (at < p->n_in && p->in[at] != node->in[k]) at++;
            if (at < p->n_in) continue;
            b->in_dtype[p->n_in] = b->g->values[node->in[k]].type.dtype;
            p->in[p->n_in++] = node->in[k];
        }
    }
}

static int16_t reg_of(const builder *b, sp_vid v)
{
    if (inside(b, v)) return (int16_t)(b->p->n_in + b->g->values[v].def - b->first);
    int16_t at = 0;
    while (b->p->in[at] != v) at++;
    return at;
}

static void instruction(builder *b, int32_t i, const uint8_t *leaves)
{
    sp_program *p = b->p;
    const sp_ir_node *node = &b->g->nodes[b->first + i];
    sp_tile_instr *to = &b->instr[i];
    int scalars = 0;
    *to = (sp_tile_instr){.op = node->op,
                          .compute = (uint8_t)compute_dtype(b->g, node),
                          .result = b->g->values[node->out[0]].type.dtype};
    for (int k = 0; k < node->n_in; k++) to->src[k] = reg_of(b, node->in[k]);
    for (int k = 0; k < node->n_attr; k++) {
        if (node->attr[k].kind > SP_ATTR_SCALAR) continue;
        to->scalar[scalars++] = (int16_t)p->n_scalar;
        p->scalar[p->n_scalar++] = (sp_program_scalar){.node = b->first + i, .attr = k};
    }
    if (!leaves[node->out[0]]) return;
    b->out_reg[p->n_out] = (int16_t)(p->n_in + i);
    p->out[p->n_out++] = node->out[0];
}

static sp_status rooms(sp_program *p, int32_t n)
{
    p->room_in = 3 * n, p->room_out = n, p->room_scalar = SCALARS_A_NODE * n;
    p->in = sp__alloc((size_t)p->room_in * sizeof *p->in);
    p->out = sp__alloc((size_t)p->room_out * sizeof *p->out);
    p->scalar = sp__alloc((size_t)p->room_scalar * sizeof *p->scalar);
    return p->in && p->out && p->scalar ? SP_OK : no_memory(n);
}

sp_status sp__program_build(const sp_graph *g, int32_t first, int32_t n, const uint8_t *leaves,
                            sp_program *out)
{
    sp_status status = SP_OK;
    *out = (sp_program){.tile = NULL};
    builder b = {.g = g, .p = out, .first = first, .n = n};
    size_t count = (size_t)n;
    b.instr = sp__alloc(count * sizeof *b.instr);
    b.in_dtype = sp__alloc(3 * count);
    b.out_reg = sp__alloc(count * sizeof *b.out_reg);
    if (!b.instr || !b.in_dtype || !b.out_reg) SP_TRY(no_memory(n));
    SP_TRY(rooms(out, n));
    collect_inputs(&b);
    for (int32_t i = 0; i < n; i++) instruction(&b, i, leaves);
    SP_TRY(sp__tile_build(b.instr, n, b.in_dtype, out->n_in, b.out_reg, out->n_out, &out->tile));
out:
    if (b.instr) sp__free(b.instr, count * sizeof *b.instr);
    if (b.in_dtype) sp__free(b.in_dtype, 3 * count);
    if (b.out_reg) sp__free(b.out_reg, count * sizeof *b.out_reg);
    if (status) sp__program_free(out);
    return status;
}

void sp__program_free(sp_program *p)
{
    sp__tile_drop(&p->tile);
    if (p->in) sp__free(p->in, (size_t)p->room_in * sizeof *p->in);
    if (p->out) sp__free(p->out, (size_t)p->room_out * sizeof *p->out);
    if (p->scalar) sp__free(p->scalar, (size_t)p->room_scalar * sizeof *p->scalar);
    *p = (sp_program){.tile = NULL};
}

/* Missing leading dimensions and sizes of 1 are walked with stride 0. */
void sp__program_operand(const sp_meta *v, const sp_meta *space, sp_operand *out)
{
    int lead = space->rank - v->rank;
    *out = (sp_operand){.dtype = v->dtype, .rank = space->rank, .numel = space->numel};
    memcpy(out->shape, space->shape, space->rank * sizeof *space->shape);
    for (int i = 0; i < space->rank; i++)
        out->stride[i] =
            i < lead || v->shape[i - lead] != space->shape[i] ? 0 : v->stride[i - lead];
}
