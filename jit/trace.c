/* Steps and exits: making, linking and freeing the tree. */
#include "jit/trace.h"

#include <string.h>

#include "ops_gen.h"
#include "tensor/memory.h"

static int32_t room(const sp_call *c)
{
    return c->n_in + c->n_out;
}

static int32_t step_room(const sp_step *s)
{
    return s->n_in + s->n_out;
}

sp_status sp__step_root(sp_step **out)
{
    *out = sp__alloc_zero(sizeof **out);
    return *out ? SP_OK : sp_fail(SP_EMEMORY, "jit: no memory for a region");
}

/* Attributes that the graph takes as inputs: weakly typed numbers and what random numbers start
 * from. Those that decide geometry (arange) or whether the call fails (integers to a power) are
 * part of the step. */
static uint32_t lifted(const sp_call *c)
{
    const sp_op_info *info = &sp_op_table[c->op];
    uint32_t mask = 0;
    if (c->op == SP_OP_ARANGE) return 0;
    if (c->op == SP_OP_POW_SCALAR && !sp__dtype_is_floating(c->in[0]->dtype)) return 0;
    for (int i = 0; i < c->n_attr; i++)
        if (c->attr[i].kind == SP_ATTR_SCALAR && !c->attr[i].absent) mask |= 1u << i;
    if (info->flags & SP_OPF_RANDOM) mask |= 3u << (c->n_attr - 2);
    return mask;
}

static sp_status step_arrays(sp_step *s, const sp_call *c)
{
    size_t n = (size_t)room(c);
    s->n_in = c->n_in, s->n_out = c->n_out;
    s->in = sp__alloc((size_t)c->n_in * sizeof *s->in);
    s->views = sp__alloc(n * sizeof *s->views);
    s->slots = sp__alloc(n * sizeof *s->slots);
    s->attr = sp__alloc_zero(c->n_attr * sizeof *s->attr);
    if (s->attr) s->n_attr = c->n_attr;
    if (!s->in || !s->views || !s->slots || !s->attr)
        return sp_fail(SP_EMEMORY, "jit: no memory for a step");
    sp_status status = sp__attrs_copy(c->attr, c->n_attr, s->attr);
    if (status != SP_OK && c->n_attr) memset(s->attr, 0, c->n_attr * sizeof *s->attr);
    return status;
}

sp_status sp__step_new(sp_step *parent, const sp_call *c, sp__where *where, sp_step **out)
{
    sp_step *s = sp__alloc_zero(sizeof *s);
    *out = NULL;
    if (!s) return sp_fail(SP_EMEMORY, "jit: no memory for a step");
    sp_status status = step_arrays(s, c);
    if (status != SP_OK) {
        sp__step_free(s);
        return status;
    }
    s->parent = parent, s->depth = parent->depth + 1;
    s->op = c->op, s->flags = c->flags;
    s->lifted = lifted(c);
    s->first_view = s->end_view = parent->end_view;
    s->first_slot = s->end_slot = parent->end_slot;
    s->first_scalar = parent->end_scalar;
    s->end_scalar = s->first_scalar + __builtin_popcount(s->lifted);
    for (int i = 0; i < SP_MAX_OUT; i++) s->same[i] = -1;
    s->where = *where, where->code = NULL;
    *out = s;
    return SP_OK;
}

void sp__step_link(sp_step *s)
{
    s->sibling = s->parent->child;
    s->parent->child = s;
    s->parent->n_children++;
}

static void exit_free(sp_exit *e)
{
    size_t n = (size_t)e->step->end_slot;
    sp__plan_drop(&e->plan);
    sp_graph_drop(&e->graph);
    sp__binding_drop(&e->binding);
    sp__free(e->wanted, n);
    sp__free(e->ever, n);
    sp__free(e, sizeof *e);
}

/* A root has no arrays: `in` is NULL there. */
void sp__step_free(sp_step *s)
{
    if (!s) return;
    size_t n = (size_t)step_room(s);
    if (s->exit) exit_free(s->exit);
    if (s->in) sp__free(s->in, (size_t)s->n_in * sizeof *s->in);
    if (s->views) sp__free(s->views, n * sizeof *s->views);
    if (s->slots) sp__free(s->slots, n * sizeof *s->slots);
    if (s->attr) {
        sp__attrs_free(s->attr, s->n_attr);
        sp__free(s->attr, s->n_attr * sizeof *s->attr);
    }
    if (s->where.code && sp__where_hooks.drop) sp__where_hooks.drop(&s->where);
    sp__free(s, sizeof *s);
}

/* Trees are as deep as programs are long: a list of what is left to do instead of recursion,
 * threaded through `parent`. */
void sp__step_free_tree(sp_step *root)
{
    sp_step *todo = root;
    if (root) root->parent = NULL;
    while (todo) {
        sp_step *s = todo;
        todo = s->parent;
        for (sp_step *c = s->child, *next; c; c = next) {
            next = c->sibling;
            c->parent = todo, todo = c;
        }
        if (s->exit && s->exit->next) s->exit->next->parent = todo, todo = s->exit->next;
        sp__step_free(s);
    }
}

sp_status sp__step_exit(sp_step *step, sp_exit **chain, sp_exit **out)
{
    size_t n = (size_t)step->end_slot;
    sp_exit *e = sp__alloc_zero(sizeof *e);
    *out = NULL;
    if (!e) return sp_fail(SP_EMEMORY, "jit: no memory for a region's exit");
    e->step = step;
    e->wanted = sp__alloc_zero(n);
    e->ever = sp__alloc_zero(n);
    if (!e->wanted || !e->ever || sp__step_root(&e->next) != SP_OK) {
        if (e->wanted) sp__free(e->wanted, n);
        if (e->ever) sp__free(e->ever, n);
        sp__free(e, sizeof *e);
        return sp_fail(SP_EMEMORY, "jit: no memory for a region's exit");
    }
    e->older = *chain, *chain = e;
    step->exit = *out = e;
    return SP_OK;
}
