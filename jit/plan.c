/* From a graph to a plan: passes on a private copy, then stages, homes and a frame. See plan_int.h
 * for the files. */
#include "jit/plan.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/plan_int.h"
#include "ops_gen.h"
#include "tensor/memory.h"

static sp_status no_memory(int32_t n)
{
    return sp_fail(SP_EMEMORY, "plan: out of memory for %d nodes", n);
}

/* ---- passes ----- */

/* SPOOL_IR_DUMP=dir: the graph after each pass as dir/<name>.<plan>.<n>-<pass>.txt. What cannot be
 * written is not. */
static void dump(const sp_graph *g, int64_t plan, int n, const char *pass)
{
    const char *dir = getenv("SPOOL_IR_DUMP");
    char path[512], name[64], *text;
    if (!dir || !*dir || sp_graph_text(g, &text)) return;
    snprintf(name, sizeof name, "%s", *g->name ? g->name : "graph");
    for (char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c)) *c = '_';
    snprintf(path, sizeof path, "%s/%s.%lld.%d-%s.txt", dir, name, (long long)plan, n, pass);
    FILE *file = fopen(path, "w");
    if (file) {
        fputs(text, file);
        fclose(file);
    }
    sp_text_free(text);
}

static sp_status check(const sp_graph *g, const char *pass)
{
#ifdef NDEBUG
    (void)g, (void)pass;
    return SP_OK;
#else
    sp_status status = sp__graph_verify(g);
    if (status) sp__fail_prefix(pass);
    return status;
#endif
}

static sp_status optimise(sp_graph *g, bool fuse)
{
    static const struct {
        const char *name;
        sp_status (*run)(sp_graph *g);
    } passes[] = {{"fold", sp__pass_fold},
                  {"canonicalize", sp__pass_canonicalize},
                  {"cse", sp__pass_cse},
                  {"dce", sp__pass_dce},
                  {"fuse", sp__pass_fuse}};
    static _Atomic int64_t plans;
    int64_t nr = atomic_fetch_add(&plans, 1);
    int n = (int)(sizeof passes / sizeof *passes) - !fuse;
    dump(g, nr, 0, "traced");
    SP_RETURN_IF(check(g, "traced"));
    for (int i = 0; i < n; i++) {
        SP_RETURN_IF(passes[i].run(g));
        dump(g, nr, i + 1, passes[i].name);
        SP_RETURN_IF(check(g, passes[i].name));
    }
    return SP_OK;
}

/* ---- stages ----- */

sp_status sp__plan_stage(sp_planner *p, int32_t first, int32_t n)
{
    if (p->n_stage == p->cap_stage) {
        int32_t cap = p->cap_stage ? 2 * p->cap_stage : 16;
        size_t old = (size_t)p->cap_stage * sizeof *p->stage,
               bytes = (size_t)cap * sizeof *p->stage;
        sp_stage *grown = p->stage ? sp__realloc(p->stage, old, bytes) : sp__alloc(bytes);
        if (!grown) return no_memory(cap);
        p->stage = grown, p->cap_stage = cap;
    }
    for (int32_t i = first; i < first + n; i++) p->stage_of[i] = p->n_stage;
    p->stage[p->n_stage++] = (sp_stage){.first = first, .n = n};
    return SP_OK;
}

/* Which values a group's program must yield: those that someone outside of it reads. */
static void mark_leaves(const sp_graph *g, uint8_t *leaves)
{
    for (int i = 0; i < g->n_outputs; i++) leaves[g->outputs[i]] = 1;
    for (int32_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++) {
            sp_vid v = g->nodes[i].in[k];
            if (v < 0 || g->values[v].kind != SP_VALUE_NODE) continue;
            int32_t group = g->nodes[g->values[v].def].group;
            if (group == 0 || group != g->nodes[i].group) leaves[v] = 1;
        }
}

/* A group too large for one program is run node by node. */
static sp_status group_stage(sp_planner *p, int32_t first, int32_t n, const uint8_t *leaves)
{
    sp_program program;
    sp_status status = sp__program_build(p->g, first, n, leaves, &program);
    if (status == SP_EUNSUPPORTED) {
        for (int32_t i = 0; i < n; i++) SP_RETURN_IF(sp__plan_stage(p, first + i, 1));
        return SP_OK;
    }
    if (status) return status;
    status = sp__plan_stage(p, first, n);
    if (status) {
        sp__program_free(&program);
        return status;
    }
    p->stage[p->n_stage - 1].program = program;
    p->info->programs++, p->info->fused_nodes += n;
    return SP_OK;
}

static bool is_view(const sp_graph *g, const sp_ir_node *node)
{
    for (int i = 0; i < node->n_out; i++)
        if (g->values[node->out[i]].type.view_of < 0) return false;
    return node->n_out > 0;
}

static sp_status make_stages(sp_planner *p, const uint8_t *leaves)
{
    const sp_graph *g = p->g;
    for (int32_t i = 0, n; i < g->n_nodes; i += n) {
        int32_t group = g->nodes[i].group;
        n = 1;
        p->stage_of[i] = -1;
        while (group && i + n < g->n_nodes && g->nodes[i + n].group == group) n++;
        if (n > 1)
            SP_RETURN_IF(group_stage(p, i, n, leaves));
        else if (!is_view(g, &g->nodes[i]))
            SP_RETURN_IF(sp__plan_stage(p, i, 1));
    }
    return SP_OK;
}

/* ---- the planner ----- */

/* Room for what homes.c appends: at most four nodes of one result an output. */
static sp_status planner_start(sp_planner *p)
{
    p->cap_nodes = p->g->n_nodes + 4 * p->g->n_outputs;
    p->cap_values = p->g->n_values + 4 * p->g->n_outputs;
    p->stage_of = sp__alloc((size_t)p->cap_nodes * sizeof *p->stage_of);
    p->last = sp__alloc((size_t)p->cap_values * sizeof *p->last);
    p->home = sp__alloc((size_t)p->cap_values * sizeof *p->home);
    p->cap_homes = p->cap_values;
    p->homes = sp__alloc((size_t)p->cap_homes * sizeof *p->homes);
    if (!p->stage_of || !p->last || !p->home || !p->homes) return no_memory(p->g->n_nodes);
    for (int32_t i = 0; i < p->cap_nodes; i++) p->stage_of[i] = -1;
    for (int32_t i = 0; i < p->cap_values; i++) p->last[i] = p->home[i] = -1;
    return SP_OK;
}

static void planner_end(sp_planner *p)
{
    if (p->stage_of) sp__free(p->stage_of, (size_t)p->cap_nodes * sizeof *p->stage_of);
    if (p->last) sp__free(p->last, (size_t)p->cap_values * sizeof *p->last);
    if (p->home) sp__free(p->home, (size_t)p->cap_values * sizeof *p->home);
    if (p->homes) sp__free(p->homes, (size_t)p->cap_homes * sizeof *p->homes);
}

static sp_status stages(sp_planner *p)
{
    size_t n = (size_t)p->g->n_values;
    uint8_t *leaves = sp__alloc_zero(n);
    if (!leaves) return no_memory(p->g->n_nodes);
    mark_leaves(p->g, leaves);
    sp_status status = make_stages(p, leaves);
    sp__free(leaves, n);
    return status;
}

static sp_status constants_ready(const sp_graph *g)
{
    for (int32_t i = 0; i < g->n_values; i++)
        if (g->values[i].constant) SP_RETURN_IF(sp__value_ready(g->values[i].constant, "plan"));
    return SP_OK;
}

static sp_status build(sp_plan *plan, const sp_plan_opt *opt)
{
    sp_status status = SP_OK;
    sp_planner p = {.g = plan->g, .opt = opt, .info = &plan->info};
    SP_TRY(optimise(plan->g, !opt->no_fuse));
    SP_TRY(constants_ready(plan->g));
    SP_TRY(planner_start(&p));
    SP_TRY(stages(&p));
    SP_TRY(sp__plan_homes(&p));
    plan->stage = p.stage, plan->n_stage = p.n_stage, plan->cap_stage = p.cap_stage;
    SP_TRY(sp__plan_frame(plan, &p));
out:
    plan->stage = p.stage, plan->n_stage = p.n_stage, plan->cap_stage = p.cap_stage;
    planner_end(&p);
    return status;
}

/* ---- plans ----- */

static sp_status note_outputs(sp_plan *plan, const sp_graph *g, const sp_plan_opt *opt)
{
    plan->n_in = g->n_inputs, plan->n_out = g->n_outputs, plan->n_scalars = g->n_scalars;
    plan->written_input = sp__alloc((size_t)plan->n_out * sizeof *plan->written_input);
    plan->out_type = sp__alloc((size_t)plan->n_out * sizeof *plan->out_type);
    plan->out_bytes = sp__alloc((size_t)plan->n_out * sizeof *plan->out_bytes);
    plan->in_size = sp__alloc((size_t)plan->n_in);
    if (!plan->written_input || !plan->out_type || !plan->out_bytes || !plan->in_size)
        return no_memory(g->n_nodes);
    for (int32_t i = 0; i < plan->n_in; i++)
        plan->in_size[i] = (uint8_t)sp_dtype_size((sp_dtype)g->values[g->inputs[i]].type.dtype);
    for (int32_t k = 0; k < plan->n_out; k++) {
        sp_meta *m = &plan->out_type[k];
        *m = g->values[g->outputs[k]].type;
        m->offset = 0, m->view_of = -1;
        plan->out_bytes[k] = sp__meta_extent(m) * (int64_t)sp_dtype_size((sp_dtype)m->dtype);
        plan->written_input[k] = -1;
    }
    for (int32_t i = 0; i < opt->n_writebacks; i++) {
        const sp_writeback *w = &opt->writebacks[i];
        if (w->output < 0 || w->output >= plan->n_out || w->input < 0 || w->input >= plan->n_in)
            return sp_fail(SP_EINTERNAL, "plan: no output %d or no input %d to write back",
                           w->output, w->input);
        plan->written_input[w->output] = w->input;
    }
    return SP_OK;
}

static void note_checks(sp_plan *plan, const sp_graph *g)
{
    plan->info.nodes = g->n_nodes;
    for (int32_t i = 0; i < g->n_nodes; i++)
        if (sp_op_table[g->nodes[i].op].flags & SP_OPF_CHECKS_DATA) plan->checks_data = true;
}

sp_status sp__plan_new(const sp_graph *g, const sp_plan_opt *opt, sp_plan **out)
{
    static const sp_plan_opt defaults;
    sp_status status = SP_OK;
    sp_plan *plan = *out = sp__alloc_zero(sizeof *plan);
    if (!plan) return no_memory(g->n_nodes);
    sp__plan_born();
    if (!opt) opt = &defaults;
    note_checks(plan, g);
    SP_TRY(note_outputs(plan, g, opt));
    SP_TRY(sp__graph_copy(g, &plan->g));
    SP_TRY(build(plan, opt));
    return SP_OK;
out:
    sp__plan_drop(out);
    return status;
}

static void free_steps(sp_plan *plan)
{
    for (int32_t i = 0; i < plan->n_step; i++)
        if (plan->step[i].what) sp__free(plan->step[i].what, strlen(plan->step[i].what) + 1);
    if (plan->step) sp__free(plan->step, (size_t)plan->cap_step * sizeof *plan->step);
    for (int32_t i = 0; i < plan->n_stage; i++) sp__program_free(&plan->stage[i].program);
    if (plan->stage) sp__free(plan->stage, (size_t)plan->cap_stage * sizeof *plan->stage);
    if (plan->io) sp__free(plan->io, (size_t)plan->cap_io * sizeof *plan->io);
    if (plan->inner) sp__free(plan->inner, (size_t)plan->cap_inner * sizeof *plan->inner);
    if (plan->scalar) sp__free(plan->scalar, (size_t)plan->cap_scalar * sizeof *plan->scalar);
}

void sp__plan_free(sp_plan *plan)
{
    free_steps(plan);
    sp__frame_free(plan->blueprint);
    sp__frame_free(atomic_load(&plan->idle));
    if (plan->written_input)
        sp__free(plan->written_input, (size_t)plan->n_out * sizeof *plan->written_input);
    if (plan->out_type) sp__free(plan->out_type, (size_t)plan->n_out * sizeof *plan->out_type);
    if (plan->in_size) sp__free(plan->in_size, (size_t)plan->n_in);
    if (plan->out_bytes) sp__free(plan->out_bytes, (size_t)plan->n_out * sizeof *plan->out_bytes);
    sp_graph_drop(&plan->g);
    sp__free(plan, sizeof *plan);
}

const sp_plan_info *sp__plan_info(const sp_plan *plan)
{
    return &plan->info;
}
