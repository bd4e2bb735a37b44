/* Plans give the bits of eager: on random graphs, fused or not, queued or not, with results written
 * back, with scalars that change, with memory that runs out. And what planning promises: in-place
 * updates, a small arena, one launch a run.
 *
 * The reference runs a graph node by node through sp__run().
 */
#include <math.h>
#include <pthread.h>
#include <unistd.h>

#include "jit/ir.h"
#include "jit/plan.h"
#include "ops/attr.h"
#include "ops/launch.h"
#include "ops/queue_int.h"
#include "ops_gen.h"
#include "tensor/memory.h"
#include "tests/check.h"

enum { MAX_IO = 16 };

/* ---- random numbers, tensors ----- */

static uint64_t seed = 1;

static uint32_t draw(uint32_t below)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % below;
}

static double draw_float(void)
{
    static const double special[] = {0.0, -0.0, 1.0, -1.0, INFINITY, -INFINITY, NAN, 1e-40, 1e30};
    return draw(16) == 0 ? special[draw(9)] : ((double)draw(2000000) - 1e6) / 3e5;
}

static void fill(const sp_meta *m, char *data, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double f = draw_float();
        if (m->dtype == SP_FLOAT32)
            ((float *)data)[i] = (float)f;
        else if (m->dtype == SP_FLOAT64)
            ((double *)data)[i] = f;
        else if (m->dtype == SP_INT64)
            ((int64_t *)data)[i] = (int64_t)draw(200) - 100;
        else
            ((uint8_t *)data)[i] = (uint8_t)draw(2);
    }
}

static sp_tensor *tensor_of(const sp_meta *m)
{
    sp_storage *s;
    sp_tensor *t = NULL;
    int64_t n = sp__meta_extent(m);
    OK(sp__storage_new((size_t)n * sp_dtype_size((sp_dtype)m->dtype), SP_DEVICE_CPU, &s));
    fill(m, s->data, n);
    OK(sp__handle_new(m, s, &t));
    sp__storage_drop(s);
    return t;
}

static sp_tensor *copy_of(const sp_tensor *t)
{
    sp_meta m;
    sp_storage *s;
    sp_tensor *copy = NULL;
    OK(sp__value_ready(t, "test"));
    sp__meta_of(t, &m);
    m.offset = 0;
    size_t bytes = (size_t)sp__meta_extent(&m) * sp_dtype_size((sp_dtype)m.dtype);
    OK(sp__storage_new(bytes, SP_DEVICE_CPU, &s));
    memcpy(s->data, sp__data(t), bytes);
    OK(sp__handle_new(&m, s, &copy));
    sp__storage_drop(s);
    return copy;
}

static bool same_bits(const sp_tensor *a, const sp_tensor *b)
{
    size_t bytes = (size_t)a->numel * sp_dtype_size((sp_dtype)a->dtype);
    if (a->dtype != b->dtype || a->numel != b->numel) return false;
    char *x = malloc(bytes + 1), *y = malloc(bytes + 1);
    OK(sp_copy_out(a, x, bytes));
    OK(sp_copy_out(b, y, bytes));
    bool same = memcmp(x, y, bytes) == 0;
    free(x);
    free(y);
    return same;
}

/* ---- the reference ----- */

static void run_node(const sp_graph *g, const sp_ir_node *n, const sp_scalar *scalars,
                     sp_tensor **value)
{
    sp_tensor *in[8];
    sp_call c = {.op = n->op, .n_out = n->n_out, .n_attr = n->n_attr, .n_in = n->n_in, .in = in};
    for (int i = 0; i < n->n_in; i++) in[i] = n->in[i] < 0 ? NULL : value[n->in[i]];
    for (int i = 0; i < n->n_attr; i++) {
        c.attr[i] = n->attr[i];
        if (n->attr[i].kind == SP_ATTR_SCALAR && n->attr[i].n)
            c.attr[i] = sp__attr_scalar(scalars[n->attr[i].n - 1]);
    }
    OK(sp__run(&c));
    for (int i = 0; i < n->n_out; i++) value[n->out[i]] = c.out[i];
    (void)g;
}

static void run_eagerly(const sp_graph *g, sp_tensor *const *inputs, const sp_scalar *scalars,
                        sp_tensor **outputs)
{
    sp_tensor **value = calloc((size_t)g->n_values, sizeof *value);
    for (int i = 0; i < g->n_values; i++)
        if (g->values[i].constant) value[i] = sp_retain(g->values[i].constant);
    for (int i = 0; i < g->n_inputs; i++) value[g->inputs[i]] = sp_retain(inputs[i]);
    for (int i = 0; i < g->n_nodes; i++) run_node(g, &g->nodes[i], scalars, value);
    for (int i = 0; i < g->n_outputs; i++) outputs[i] = copy_of(value[g->outputs[i]]);
    for (int i = 0; i < g->n_values; i++) sp_drop(&value[i]);
    free(value);
}

/* ---- comparing ----- */

static void describe(const sp_graph *g, const char *what)
{
    char *text;
    OK(sp_graph_text(g, &text));
    fprintf(stderr, "\n%s:\n%s", what, text);
    sp_text_free(text);
}

static void drop_all(sp_tensor **t, int n)
{
    for (int i = 0; i < n; i++) sp_drop(&t[i]);
}

/* Runs a plan of g on copies of the inputs twice and compares outputs and writebacks with
 * `expected`. */
static void check_plan(const sp_graph *g, const sp_plan_opt *opt, sp_tensor *const *inputs,
                       const sp_scalar *scalars, sp_tensor *const *expected)
{
    sp_plan *plan;
    OK(sp__plan_new(g, opt, &plan));
    for (int round = 0; round < 2; round++) {
        sp_tensor *in[MAX_IO], *out[MAX_IO];
        for (int i = 0; i < g->n_inputs; i++) in[i] = copy_of(inputs[i]);
        OK(sp__plan_run_handles(plan, in, scalars, out));
        for (int k = 0; k < g->n_outputs; k++) {
            bool same = same_bits(out[k], expected[k]);
            if (!same)
                fprintf(stderr, "\noutput %d differs (%s)\n", k,
                        opt->no_fuse ? "not fused" : "fused");
            CHECK(same);
            if (!same) describe(g, "graph");
        }
        drop_all(in, g->n_inputs);
        drop_all(out, g->n_outputs);
    }
    sp__plan_drop(&plan);
}

/* ---- random graphs ----- */

static sp_meta dense(sp_dtype dtype, int rank, const int64_t *shape)
{
    sp_meta m = {.dtype = (uint8_t)dtype, .rank = (uint8_t)rank, .view_of = -1};
    for (int i = 0; i < rank; i++) m.shape[i] = shape[i];
    OK(sp__meta_dense(&m, "test"));
    return m;
}

static sp_vid any_value(const sp_graph *g)
{
    int32_t n = g->n_values, recent = draw(3) ? 8 : n;
    return n - 1 - (int32_t)draw((uint32_t)(recent < n ? recent : n));
}

static sp_attr any_scalar(sp_graph *g)
{
    sp_attr a = sp__attr_scalar(draw(3) ? SP_FLOAT(draw_float()) : SP_INT((int64_t)draw(5) - 2));
    int32_t k;
    if (draw(2) == 0 || g->n_scalars >= MAX_IO) return a;
    OK(sp__graph_scalar(g, sp__attr_to_scalar(&a), &k));
    a.n = k + 1;
    return a;
}

static const int pointwise[] = {SP_OP_ADD,     SP_OP_SUB, SP_OP_MUL, SP_OP_DIV,
                                SP_OP_MAXIMUM, SP_OP_LT,  SP_OP_EQ};
static const int unary[] = {SP_OP_NEG, SP_OP_RELU, SP_OP_EXP, SP_OP_TANH, SP_OP_SQRT, SP_OP_CLONE};
static const int with_scalar[] = {SP_OP_ADD_SCALAR, SP_OP_SUB_SCALAR, SP_OP_SUB_RSCALAR,
                                  SP_OP_MUL_SCALAR, SP_OP_DIV_SCALAR, SP_OP_GT_SCALAR,
                                  SP_OP_FILL_SCALAR};

static sp_status add_view(sp_graph *g, sp_vid x, sp_vid *out)
{
    const sp_meta *m = &g->values[x].type;
    int64_t shape[SP_MAX_RANK] = {m->numel};
    sp_attr a[4] = {sp__attr_int(0), sp__attr_int(m->rank - 1)};
    switch (draw(5)) {
    case 0: return sp__graph_node(g, SP_OP_TRANSPOSE, &x, 1, a, 2, NULL, NULL, out);
    case 1:
        a[0] = sp__attr_ints(shape, 1);
        return sp__graph_node(g, SP_OP_RESHAPE, &x, 1, a, 1, NULL, NULL, out);
    case 2:
        a[1] = sp__attr_int(draw(2)), a[2] = sp__attr_int(3), a[3] = sp__attr_int(1 + draw(2));
        return sp__graph_node(g, SP_OP_SLICE, &x, 1, a, 4, NULL, NULL, out);
    case 3:
        a[1] = sp__attr_int(draw(2));
        return sp__graph_node(g, SP_OP_SELECT, &x, 1, a, 2, NULL, NULL, out);
    default:
        for (int i = 0; i < m->rank; i++) shape[i + 1] = m->shape[i];
        shape[0] = 2;
        a[0] = sp__attr_ints(shape, m->rank + 1);
        return sp__graph_node(g, SP_OP_EXPAND, &x, 1, a, 1, NULL, NULL, out);
    }
}

static sp_status add_scatter(sp_graph *g, sp_vid x, sp_vid src, sp_vid *out)
{
    const sp_meta *m = &g->values[src].type;
    sp_vid in[] = {x, src};
    sp_attr a[] = {sp__attr_ints(m->shape, m->rank), sp__attr_ints(m->stride, m->rank),
                   sp__attr_int(draw(3))};
    return sp__graph_node(g, SP_OP_AS_STRIDED_SCATTER, in, 2, a, 3, NULL, NULL, out);
}

/* Many of these do not fit; inference says so. */
static sp_status add_node(sp_graph *g, sp_vid *out)
{
    sp_vid in[] = {any_value(g), any_value(g), any_value(g)};
    sp_attr a[3] = {any_scalar(g)};
    int64_t dim = draw(2);
    if (g->values[in[0]].type.numel > 4000) return SP_EVALUE;
    switch (draw(10)) {
    case 0:
    case 1:
    case 2: return sp__graph_node(g, pointwise[draw(7)], in, 2, NULL, 0, NULL, NULL, out);
    case 3: return sp__graph_node(g, unary[draw(6)], in, 1, NULL, 0, NULL, NULL, out);
    case 4: return sp__graph_node(g, with_scalar[draw(7)], in, 1, a, 1, NULL, NULL, out);
    case 5: return sp__graph_node(g, SP_OP_WHERE, in, 3, NULL, 0, NULL, NULL, out);
    case 6:
        a[0] = sp__attr_dtype((sp_dtype)draw(4));
        return sp__graph_node(g, SP_OP_CAST, in, 1, a, 1, NULL, NULL, out);
    case 7: return add_view(g, in[0], out);
    case 8:
        if (draw(2)) return add_scatter(g, in[0], in[1], out);
        a[0] = sp__attr_ints(&dim, 1), a[1] = sp__attr_bool(draw(2)),
        a[2] = sp__attr_absent(SP_ATTR_DTYPE);
        return sp__graph_node(g, SP_OP_SUM, in, 1, a, 3, NULL, NULL, out);
    default:
        return draw(2) ? sp__graph_node(g, SP_OP_MATMUL, in, 2, NULL, 0, NULL, NULL, out)
                       : sp__graph_node(g, SP_OP_COPY, in, 2, NULL, 0, NULL, NULL, out);
    }
}

static sp_graph *random_graph(int n_nodes)
{
    static const int64_t shapes[][2] = {{4, 4}, {4, 4}, {4, 1}, {1, 4}, {3, 5}, {0, 4}, {33, 33}};
    sp_graph *g;
    sp_vid v, outputs[MAX_IO];
    OK(sp__graph_new("random", &g));
    int n_in = 2 + (int)draw(4), n_out = 1 + (int)draw(6);
    const int64_t *shape = shapes[draw(7)];
    for (int i = 0; i < n_in; i++) {
        sp_meta m = dense(draw(4) ? SP_FLOAT32 : (sp_dtype)draw(4), (int)draw(3),
                          draw(3) ? shape : shapes[draw(7)]);
        OK(sp__graph_input(g, &m, &v));
    }
    for (int tries = 0; g->n_nodes < n_nodes && tries < 20 * n_nodes; tries++)
        (void)!add_node(g, &v);
    for (int i = 0; i < n_out; i++) outputs[i] = any_value(g);
    OK(sp__graph_outputs(g, outputs, n_out));
    OK(sp__graph_verify(g));
    return g;
}

/* Outputs that could be written back to some input. */
static int random_writebacks(const sp_graph *g, sp_writeback *w)
{
    int n = 0;
    bool taken[MAX_IO] = {false};
    for (int k = 0; k < g->n_outputs; k++)
        for (int i = 0; i < g->n_inputs; i++) {
            const sp_meta *o = &g->values[g->outputs[k]].type, *t = &g->values[g->inputs[i]].type;
            if (taken[i] || draw(3) == 0 || o->dtype != t->dtype || o->rank != t->rank ||
                memcmp(o->shape, t->shape, o->rank * sizeof *o->shape))
                continue;
            taken[i] = true;
            w[n++] = (sp_writeback){.output = k, .input = i};
            break;
        }
    return n;
}

static void check_random(int n_nodes)
{
    sp_graph *g = random_graph(n_nodes);
    sp_writeback writebacks[MAX_IO];
    sp_tensor *in[MAX_IO], *expected[MAX_IO];
    sp_scalar scalars[MAX_IO];
    for (int i = 0; i < g->n_scalars; i++)
        scalars[i] = g->scalars[i].kind == SP_FLOAT64 ? SP_FLOAT(draw_float())
                                                      : SP_INT((int64_t)draw(9) - 4);
    for (int i = 0; i < g->n_inputs; i++) in[i] = tensor_of(&g->values[g->inputs[i]].type);
    run_eagerly(g, in, scalars, expected);
    sp_plan_opt opt = {.n_writebacks = 0};
    check_plan(g, &opt, in, scalars, expected);
    opt.no_fuse = true;
    check_plan(g, &opt, in, scalars, expected);
    opt = (sp_plan_opt){.writebacks = writebacks, .n_writebacks = random_writebacks(g, writebacks)};
    if (opt.n_writebacks) check_plan(g, &opt, in, scalars, expected);
    drop_all(in, g->n_inputs);
    drop_all(expected, g->n_outputs);
    sp_graph_drop(&g);
}

static int rounds(int quick)
{
    const char *full = getenv("SPOOL_TEST_FULL");
    return full && *full == '1' ? 20 * quick : quick;
}

static void random_graphs_equal_eager(void)
{
    for (int i = 0; i < rounds(150); i++) {
        seed = 1000 + (uint64_t)i;
        check_random(3 + (int)draw(40));
    }
}

static void large_random_graphs_equal_eager(void)
{
    for (int i = 0; i < rounds(3); i++) {
        seed = 77 + (uint64_t)i;
        check_random(400);
    }
}

static void queued_plans_equal_eager(void)
{
    sp__knobs_read();
    sp_knobs before = sp__knobs;
    sp__knobs.queue_min_us = 0, sp__knobs.quick_numel = -1;
    for (int i = 0; i < rounds(40); i++) {
        seed = 5000 + (uint64_t)i;
        check_random(3 + (int)draw(30));
    }
    OK(sp_synchronize());
    sp__knobs = before;
}

/* ---- single graphs ----- */

static sp_graph *parsed(const char *text)
{
    sp_graph *g = NULL;
    OK(sp_graph_parse(text, &g));
    return g;
}

/* Plans g, checks it against eager, and returns what planning says. */
static sp_plan_info planned(const char *text, const sp_writeback *w, int n)
{
    sp_graph *g = parsed(text);
    sp_plan_opt opt = {.writebacks = w, .n_writebacks = n};
    sp_tensor *in[MAX_IO], *expected[MAX_IO];
    sp_plan *plan;
    for (int i = 0; i < g->n_inputs; i++) in[i] = tensor_of(&g->values[g->inputs[i]].type);
    run_eagerly(g, in, g->scalars, expected);
    check_plan(g, &opt, in, NULL, expected);
    OK(sp__plan_new(g, &opt, &plan));
    sp_plan_info info = *sp__plan_info(plan);
    sp__plan_drop(&plan);
    drop_all(in, g->n_inputs);
    drop_all(expected, g->n_outputs);
    sp_graph_drop(&g);
    return info;
}

static void a_chain_is_one_step(void)
{
    sp_plan_info i =
        planned("graph \"chain\"(%0: float32[64,64], %1: float32[64], $0: float = 0.5) {\n"
                "  %2: float32[64,64] = add(%0, %1)\n"
                "  %3: float32[64,64] = relu(%2)\n"
                "  %4: float32[64,64] = mul.scalar(%3) {y=$0}\n"
                "  %5: bool[64,64] = gt.scalar(%4) {y=0}\n"
                "  %6: float32[64,64] = where(%5, %4, %0)\n"
                "  return %6\n}\n",
                NULL, 0);
    CHECK(i.steps == 1 && i.programs == 1 && i.fused_nodes == 5 && i.arena_bytes == 0);
}

static void updates_happen_in_place(void)
{
    const sp_writeback w = {.output = 0, .input = 0};
    sp_plan_info i = planned("graph \"sgd\"(%0: float32[8,8], %1: float32[8,8]) {\n"
                             "  %2: float32[8,8] = mul.scalar(%1) {y=0.1}\n"
                             "  %3: float32[8,8] = sub(%0, %2)\n"
                             "  return %3\n}\n",
                             &w, 1);
    CHECK(i.steps == 1 && i.in_place == 1 && i.arena_bytes == 0);
    i = planned(
        "graph \"part\"(%0: float32[8,8], %1: float32[8]) {\n"
        "  %2: float32[8,8] = as_strided_scatter(%0, %1) {size=[8], stride=[9], storage_offset=0}\n"
        "  return %2\n}\n",
        &w, 1);
    CHECK(i.steps == 1 && i.in_place == 1 && i.arena_bytes == 0);
}

static void old_values_are_read_before_they_go(void)
{
    const sp_writeback swap[] = {{.output = 0, .input = 1}, {.output = 1, .input = 0}},
                       one = {.output = 0, .input = 0};
    planned("graph \"swap\"(%0: float32[5], %1: float32[5]) {\n  return %0, %1\n}\n", swap, 2);
    planned("graph \"turn\"(%0: float32[4,4]) {\n"
            "  %1: float32[4,4]{1,4} = transpose(%0) {dim0=0, dim1=1}\n"
            "  return %1\n}\n",
            &one, 1);
    planned(
        "graph \"both\"(%0: float32[4,4]) {\n" /* the old value goes out too, and is read across */
        "  %1: float32[4,4] = add.scalar(%0) {y=1.0}\n"
        "  %2: float32[4,4]{1,4} = transpose(%0) {dim0=0, dim1=1}\n"
        "  %3: float32[4,4] = matmul(%0, %2)\n"
        "  return %1, %0, %3\n}\n",
        &one, 1);
    planned(
        "graph \"wide\"(%0: float32[4,4]) {\n" /* a broadcast read in the very step that writes */
        "  %1: float32[4]{1} = select(%0) {dim=0, index=0}\n"
        "  %2: float32[4,4] = add(%0, %1)\n"
        "  return %2\n}\n",
        &one, 1);
    planned("graph \"same\"(%0: float32[4]) {\n  return %0\n}\n", &one, 1);
}

static void outputs_do_not_share(void)
{
    sp_graph *g = parsed("graph \"share\"(%0: float32[2,2]) {\n"
                         "  %1: float32[2,2]{1,2} = transpose(%0) {dim0=0, dim1=1}\n"
                         "  %2: float32[2,2] = mul.scalar(%0) {y=1.0}\n"
                         "  %3: float32[3,2,2]{0,2,1} = expand(%0) {size=[3,2,2]}\n"
                         "  return %0, %0, %1, %2, %3\n}\n");
    sp_tensor *x = tensor_of(&g->values[0].type), *out[5], *expected[5];
    const sp_plan_opt opt = {.no_fuse = false};
    run_eagerly(g, &x, NULL, expected);
    check_plan(g, &opt, &x, NULL, expected);
    OK(sp_graph_run(g, (const sp_tensor *const *)&x, 1, out, 5));
    for (int i = 0; i < 5; i++)
        for (int k = 0; k <= i; k++)
            CHECK(out[i]->storage != (k == i ? x->storage : out[k]->storage));
    drop_all(out, 5);
    drop_all(expected, 5);
    sp_drop(&x);
    sp_graph_drop(&g);
}

static const char *const mlp = "graph \"mlp\"(%0: float32[64,784], %1: float32[256,784], %2: "
                               "float32[256], %3: float32[10,256]) {\n"
                               "  %4: float32[784,256]{1,784} = transpose(%1) {dim0=0, dim1=1}\n"
                               "  %5: float32[64,256] = matmul(%0, %4)\n"
                               "  %6: float32[64,256] = add(%5, %2)\n"
                               "  %7: float32[64,256] = relu(%6)\n"
                               "  %8: float32[256,10]{1,256} = transpose(%3) {dim0=0, dim1=1}\n"
                               "  %9: float32[64,10] = matmul(%7, %8)\n"
                               "  %10: float32[64,10] = mul(%9, %9)\n"
                               "  %11: float32[] = sum(%10) {keepdim=false}\n"
                               "  return %11\n}\n";

static void the_arena_is_small(void)
{
    sp_plan_info i = planned(mlp, NULL, 0);
    CHECK(i.steps == 5 && i.programs == 1);
    CHECK(i.in_place >= 2); /* relu(add) over the matmul's result, mul over its operand */
    CHECK(i.arena_bytes == i.lower_bound);
    CHECK(i.lower_bound == 64 * 256 * 4 + 64 * 10 * 4);
}

static int64_t launches(void)
{
    sp_launch_stats s;
    sp_launch_stats_get(&s);
    return s.eager_launches;
}

static void a_run_is_one_launch(void)
{
    sp_graph *g = parsed(mlp);
    sp_plan *plan;
    sp_tensor *in[4], *out[1];
    sp_launch_stats s;
    for (int i = 0; i < 4; i++) in[i] = tensor_of(&g->values[i].type);
    OK(sp__plan_new(g, NULL, &plan));
    int64_t before = launches();
    sp_launch_stats_get(&s);
    for (int i = 0; i < 3; i++) {
        OK(sp__plan_run_handles(plan, in, NULL, out));
        sp_drop(&out[0]);
    }
    OK(sp_synchronize());
    int64_t plans = s.plan_runs;
    sp_launch_stats_get(&s);
    CHECK(launches() == before && s.plan_runs == plans + 3);
    sp__plan_drop(&plan);
    drop_all(in, 4);
    sp_graph_drop(&g);
}

static void unwanted_outputs_may_be_left_out(void)
{
    sp_graph *g = parsed("graph \"two\"(%0: float32[9]) {\n"
                         "  %1: float32[9] = neg(%0)\n"
                         "  %2: float32[] = sum(%1) {keepdim=false}\n"
                         "  return %1, %2\n}\n");
    sp_plan *plan;
    sp_storage *out[2] = {NULL, NULL};
    sp_tensor *x = tensor_of(&g->values[0].type), *expected[2];
    int64_t zero = 0;
    run_eagerly(g, &x, NULL, expected);
    OK(sp__plan_new(g, NULL, &plan));
    for (int k = 0; k < 2; k++) {
        OK(sp__storage_new_deferred(sizeof(float) * (k ? 1 : 9), SP_DEVICE_CPU, &out[k]));
        OK(sp__plan_run(plan, &x->storage, &zero, NULL, out));
        OK(sp__storage_wait(out[k], false));
        CHECK(memcmp(out[k]->data, sp__data(expected[k]), out[k]->nbytes) == 0);
        sp__storage_drop(out[k]);
        out[k] = NULL;
    }
    sp__plan_drop(&plan);
    drop_all(expected, 2);
    sp_drop(&x);
    sp_graph_drop(&g);
}

/* ---- failing ----- */

static const char *const mixed =
    "graph \"mixed\"(%0: float32[4,4], %1: float32[4], $0: float = 2.0) {\n"
    "  %2: float32[2] = const [1, 2]\n"
    "  %3: float32[2] = mul.scalar(%2) {y=3.0}\n"
    "  %4: float32[4,4] = matmul(%0, %0)\n"
    "  %5: float32[4,4] = add(%4, %1)\n"
    "  %6: float32[4,4] = mul.scalar(%5) {y=$0}\n"
    "  %7: float32[4,4]{1,4} = transpose(%6) {dim0=0, dim1=1}\n"
    "  %8: float32[4] = sum(%7) {dim=[0], keepdim=false}\n"
    "  return %7, %8, %3, %0\n}\n";

static bool fails_at(const sp_graph *g, sp_tensor *const *in, int64_t n)
{
    sp_plan *plan = NULL;
    sp_tensor *out[4] = {NULL};
    sp_memory_fail_nth(n, false);
    sp_status status = sp__plan_new(g, NULL, &plan);
    if (!status) status = sp__plan_run_handles(plan, in, NULL, out);
    bool reached = sp_memory_requests() >= n;
    sp_memory_fail_nth(0, false);
    CHECK(status == SP_OK || status == SP_EMEMORY);
    drop_all(out, 4);
    sp__plan_drop(&plan);
    return reached;
}

static void every_allocation_may_fail(void)
{
    sp_graph *g = parsed(mixed);
    sp_tensor *in[2] = {tensor_of(&g->values[0].type), tensor_of(&g->values[1].type)};
    sp_memory_stats before, after;
    CHECK(fails_at(g, in, 1));
    sp_memory_stats_get(&before);
    for (int64_t n = 1; fails_at(g, in, n); n++) {
        sp_memory_stats_get(&after);
        CHECK(after.live_blocks == before.live_blocks);
    }
    drop_all(in, 2);
    sp_graph_drop(&g);
}

static void bad_arguments_are_named(void)
{
    sp_graph *g = parsed(mixed);
    sp_meta wrong = dense(SP_FLOAT32, 2, (int64_t[]){4, 5}),
            vector = dense(SP_FLOAT32, 1, (int64_t[]){4});
    sp_tensor *in[2] = {tensor_of(&wrong), tensor_of(&vector)}, *out[4];
    FAILS(sp_graph_run(g, (const sp_tensor *const *)in, 2, out, 4), SP_ESHAPE,
          "input 0 is float32(4, 5); the graph was made for");
    FAILS(sp_graph_run(g, (const sp_tensor *const *)in, 1, out, 4), SP_EVALUE, "takes 2 inputs");
    drop_all(in, 2);
    sp_graph_drop(&g);
}

static void values_are_checked_at_the_call(void)
{
    sp_graph *g = parsed("graph \"gather\"(%0: float32[4], %1: int64[1]) {\n"
                         "  %2: float32[1] = gather(%0, %1) {dim=0}\n"
                         "  return %2\n}\n");
    int64_t index = 7;
    sp_tensor *in[2] = {tensor_of(&g->values[0].type), NULL}, *out[1];
    OK(sp_from_data(&index, SP_INT64, 1, (int64_t[]){1}, &in[1]));
    FAILS(sp_graph_run(g, (const sp_tensor *const *)in, 2, out, 1), SP_EINDEX, "gather");
    CHECK(out[0] == NULL);
    drop_all(in, 2);
    sp_graph_drop(&g);
}

/* ---- threads ----- */

typedef struct shared {
    sp_plan *plan;
    sp_tensor *in[4], *expected;
    bool same;
} shared;

static pthread_mutex_t interpreter =
    PTHREAD_MUTEX_INITIALIZER; /* handles and plan->issued are guarded by such a lock */

static void *run_often(void *arg)
{
    shared *s = arg;
    for (int i = 0; i < 50; i++) {
        sp_tensor *out[1];
        pthread_mutex_lock(&interpreter);
        sp_status status = sp__plan_run_handles(s->plan, s->in, NULL, out);
        if (status || !same_bits(out[0], s->expected)) s->same = false;
        sp_drop(&out[0]);
        pthread_mutex_unlock(&interpreter);
    }
    return NULL;
}

static void threads_share_a_plan(void)
{
    sp_graph *g = parsed(mlp);
    shared s = {.same = true};
    pthread_t thread[3];
    for (int i = 0; i < 4; i++) s.in[i] = tensor_of(&g->values[i].type);
    run_eagerly(g, s.in, NULL, &s.expected);
    OK(sp__plan_new(g, NULL, &s.plan));
    for (int i = 0; i < 3; i++) pthread_create(&thread[i], NULL, run_often, &s);
    for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
    CHECK(s.same);
    sp__plan_drop(&s.plan);
    drop_all(s.in, 4);
    sp_drop(&s.expected);
    sp_graph_drop(&g);
}

/* ---- capturing ----- */

static void captured_graphs_equal_eager(void)
{
    sp_meta m = dense(SP_FLOAT32, 2, (int64_t[]){3, 4}),
            wm = dense(SP_FLOAT32, 2, (int64_t[]){4, 4});
    sp_tensor *x = tensor_of(&m), *w = tensor_of(&wm), *y, *row, *z, *other = tensor_of(&m), *out,
              *expected[2];
    sp_graph *g;
    for (int run = 0; run < 2; run++) {
        sp_tensor *in = run ? other : x;
        if (!run) OK(sp_capture_begin((const sp_tensor *const *)&x, 1));
        OK(sp_matmul(in, w, &y));
        OK(sp_select(y, 0, 1, &row));
        OK(sp_mul_scalar_(row, SP_FLOAT(3)));
        OK(sp_add(y, in, &z));
        if (!run) {
            float value[12];
            FAILS(sp_copy_out(z, value, sizeof value), SP_EUNSUPPORTED,
                  "while a graph is captured");
            FAILS(sp_neg_(in), SP_EUNSUPPORTED, "clone()");
            OK(sp_capture_end((const sp_tensor *const[]){z, y}, 2, &g));
        }
        if (run) expected[0] = sp_retain(z), expected[1] = sp_retain(y);
        sp_drop(&y), sp_drop(&row), sp_drop(&z);
    }
    OK(sp__graph_verify(g));
    CHECK(sp_graph_num_inputs(g) == 1 && sp_graph_num_outputs(g) == 2);
    sp_tensor *got[2];
    OK(sp_graph_run(g, (const sp_tensor *const *)&other, 1, got, 2));
    for (int i = 0; i < 2; i++) CHECK(same_bits(got[i], expected[i]));
    OK(sp_transpose(other, 0, 1,
                    &out)); /* another layout of the same shape is copied into the graph's */
    sp_tensor *dense_t, *back;
    OK(sp_clone(out, &dense_t));
    OK(sp_transpose(dense_t, 0, 1, &back));
    drop_all(got, 2);
    OK(sp_graph_run(g, (const sp_tensor *const *)&back, 1, got, 2));
    for (int i = 0; i < 2; i++) CHECK(same_bits(got[i], expected[i]));
    drop_all(got, 2), drop_all(expected, 2);
    sp_drop(&out), sp_drop(&dense_t), sp_drop(&back), sp_drop(&x), sp_drop(&w), sp_drop(&other);
    sp_graph_drop(&g);
}

/* A graph that is run under a tape is differentiated; inside a capture it becomes part of the new
 * graph. */
static void graphs_are_ops_too(void)
{
    sp_graph *g = parsed(
                 "graph \"square\"(%0: float32[3]) {\n"
                 "  %1: float32[3]{1} = as_strided(%0) {size=[3], stride=[1], storage_offset=0}\n"
                 "  %2: float32[3] = mul(%0, %1)\n"
                 "  %3: float32[] = sum(%2) {keepdim=false}\n"
                 "  return %3\n}\n"),
             *outer;
    float data[5] = {9, 1, 2, 3, 9}, slope[3], value;
    sp_tensor *base, *x, *y, *grad;
    OK(sp_from_data(data, SP_FLOAT32, 1, (int64_t[]){5}, &base));
    OK(sp_slice(base, 0, 1, 4, NULL, &x));
    OK(sp_set_requires_grad(x, true));
    OK(sp_graph_run(g, (const sp_tensor *const *)&x, 1, &y, 1));
    OK(sp_backward(y, NULL));
    OK(sp_grad_get(x, &grad));
    OK(sp_copy_out(grad, slope, sizeof slope));
    for (int i = 0; i < 3; i++) CHECK(slope[i] == 2 * data[i + 1]);
    sp_drop(&y), sp_drop(&grad), sp_drop(&x);
    OK(sp_slice(base, 0, 1, 4, NULL, &x));
    OK(sp_capture_begin((const sp_tensor *const *)&x, 1));
    OK(sp_graph_run(g, (const sp_tensor *const *)&x, 1, &y, 1));
    OK(sp_capture_end((const sp_tensor *const *)&y, 1, &outer));
    CHECK(outer->n_nodes >= 2);
    sp_drop(&y);
    OK(sp_graph_run(outer, (const sp_tensor *const *)&x, 1, &y, 1));
    OK(sp_copy_out(y, &value, sizeof value));
    CHECK(value == 14);
    sp_drop(&y), sp_drop(&x), sp_drop(&base);
    sp_graph_drop(&g), sp_graph_drop(&outer);
}

SUITE("jit/plan", TEST(graphs_are_ops_too), TEST(a_chain_is_one_step),
      TEST(updates_happen_in_place), TEST(old_values_are_read_before_they_go),
      TEST(outputs_do_not_share), TEST(the_arena_is_small), TEST(a_run_is_one_launch),
      TEST(unwanted_outputs_may_be_left_out), TEST(every_allocation_may_fail),
      TEST(bad_arguments_are_named), TEST(values_are_checked_at_the_call),
      TEST(threads_share_a_plan), TEST(captured_graphs_equal_eager),
      TEST(random_graphs_equal_eager), TEST(large_random_graphs_equal_eager),
      TEST(queued_plans_equal_eager))
