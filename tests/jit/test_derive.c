/* Derivatives of graphs as graphs: against closed forms, of each other, and with every allocation
 * failing in turn. */
#include <math.h>

#include "jit/ir.h"
#include "ops_gen.h"
#include "tensor/memory.h"
#include "tests/check.h"

static sp_graph *parsed(const char *text)
{
    sp_graph *g = NULL;
    OK(sp_graph_parse(text, &g));
    return g;
}

/* x, w -> tanh(x w), the places of its largest numbers, sum of x */
static const char layer[] = "graph \"layer\"(%0 \"x\": float64[2,3], %1 \"w\": float64[3]) {\n"
                            "  %2: float64[2] = matmul(%0, %1)\n"
                            "  %3: float64[2] = tanh(%2)\n"
                            "  %4: int64[] = argmax(%3) {keepdim=false}\n"
                            "  %5: float64[] = sum(%0) {keepdim=false}\n"
                            "  return %3, %4, %5\n}\n";
static const double X[6] = {0.5, -1, 2, 0.25, 0.125, -0.5}, W[3] = {0.3, -0.2, 0.1};

static sp_tensor *tensor_of(const double *data, int rank, const int64_t *shape)
{
    sp_tensor *t;
    OK(sp_from_data(data, SP_FLOAT64, rank, shape, &t));
    return t;
}

static void values_of(const sp_tensor *t, double *out, size_t n)
{
    OK(sp_copy_out(t, out, n * sizeof *out));
}

static void close_to(double got, double expected)
{
    CHECK(fabs(got - expected) <= 1e-14 * (1 + fabs(expected)));
}

/* s[i] = 1 - tanh(x w)[i]^2 */
static void slopes(double *s)
{
    for (int i = 0; i < 2; i++) {
        double sum = 0;
        for (int j = 0; j < 3; j++) sum += X[3 * i + j] * W[j];
        s[i] = 1 - tanh(sum) * tanh(sum);
    }
}

static void drop_all(sp_tensor **t, int n)
{
    for (int i = 0; i < n; i++) sp_drop(&t[i]);
}

static void vjp_of_a_graph(void)
{
    sp_graph *g = parsed(layer), *d;
    const double gy[2] = {2, -3}, gs = 10;
    double s[2], gx[6], gw[3];
    OK(sp_graph_vjp(g, NULL, &d));
    OK(sp__graph_verify(d));
    CHECK(sp_graph_num_inputs(d) == 4 && sp_graph_num_outputs(d) == 5);
    CHECK(strcmp(d->values[d->inputs[1]].name, "w") == 0);
    sp_tensor *in[4] = {tensor_of(X, 2, (int64_t[]){2, 3}), tensor_of(W, 1, (int64_t[]){3}),
                        tensor_of(gy, 1, (int64_t[]){2}), tensor_of(&gs, 0, NULL)},
              *out[5];
    OK(sp_graph_run(d, (const sp_tensor *const *)in, 4, out, 5));
    slopes(s);
    values_of(out[3], gx, 6), values_of(out[4], gw, 3);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 3; j++) close_to(gx[3 * i + j], gy[i] * s[i] * W[j] + gs);
    for (int j = 0; j < 3; j++) close_to(gw[j], gy[0] * s[0] * X[j] + gy[1] * s[1] * X[3 + j]);
    drop_all(in, 4), drop_all(out, 5);
    sp_graph_drop(&g), sp_graph_drop(&d);
}

static void jvp_of_a_graph(void)
{
    sp_graph *g = parsed(layer), *d;
    const double tx[6] = {1, 0, 2, 0, -1, 0}, tw[3] = {0, 1, 1};
    double s[2], ty[2], ts;
    OK(sp_graph_jvp(g, NULL, &d));
    CHECK(sp_graph_num_inputs(d) == 4 && sp_graph_num_outputs(d) == 5);
    sp_tensor *in[4] = {tensor_of(X, 2, (int64_t[]){2, 3}), tensor_of(W, 1, (int64_t[]){3}),
                        tensor_of(tx, 2, (int64_t[]){2, 3}), tensor_of(tw, 1, (int64_t[]){3})},
              *out[5];
    OK(sp_graph_run(d, (const sp_tensor *const *)in, 4, out, 5));
    slopes(s);
    values_of(out[3], ty, 2), values_of(out[4], &ts, 1);
    for (int i = 0; i < 2; i++) {
        double sum = 0;
        for (int j = 0; j < 3; j++) sum += tx[3 * i + j] * W[j] + X[3 * i + j] * tw[j];
        close_to(ty[i], s[i] * sum);
    }
    close_to(ts, 2);
    drop_all(in, 4), drop_all(out, 5);
    sp_graph_drop(&g), sp_graph_drop(&d);
}

/* x^3: the vjp's jvp has 6 x among its outputs. */
static void derived_graphs_are_derived_again(void)
{
    sp_graph *g = parsed("graph \"cube\"(%0: float64[]) {\n"
                         "  %1: float64[] = mul(%0, %0)\n"
                         "  %2: float64[] = mul(%1, %0)\n"
                         "  return %2\n}\n"),
             *first, *second;
    const double x = 1.5, one = 1, zero = 0;
    double slope, curvature;
    OK(sp_graph_vjp(g, NULL, &first));
    OK(sp_graph_jvp(first, NULL, &second));
    CHECK(sp_graph_num_inputs(second) == 4 && sp_graph_num_outputs(second) == 4);
    sp_tensor *in[4] = {tensor_of(&x, 0, NULL), tensor_of(&one, 0, NULL), tensor_of(&one, 0, NULL),
                        tensor_of(&zero, 0, NULL)},
              *out[4];
    OK(sp_graph_run(second, (const sp_tensor *const *)in, 4, out, 4));
    values_of(out[1], &slope, 1), values_of(out[3], &curvature, 1);
    close_to(slope, 3 * x * x);
    close_to(curvature, 6 * x);
    drop_all(in, 4), drop_all(out, 4);
    sp_graph_drop(&g), sp_graph_drop(&first), sp_graph_drop(&second);
}

/* What does not depend on an input has a gradient of zeros; whole numbers have none. */
static void constants_and_whole_numbers(void)
{
    sp_graph *g = parsed("graph \"pick\"(%0: float64[3], %1: int64[], %2: float64[2]) {\n"
                         "  %3: float64[] = sum(%2) {keepdim=false}\n"
                         "  return %1, %3\n}\n"),
             *d;
    double gx[3];
    const double data[3] = {1, 2, 3}, one = 1;
    const int64_t k = 1;
    OK(sp_graph_vjp(g, NULL, &d));
    CHECK(sp_graph_num_inputs(d) == 4 && sp_graph_num_outputs(d) == 4);
    sp_tensor *in[4] = {tensor_of(data, 1, (int64_t[]){3}), NULL,
                        tensor_of(data, 1, (int64_t[]){2}), tensor_of(&one, 0, NULL)},
              *out[4];
    OK(sp_from_data(&k, SP_INT64, 0, NULL, &in[1]));
    OK(sp_graph_run(d, (const sp_tensor *const *)in, 4, out, 4));
    values_of(out[2], gx, 3);
    for (int i = 0; i < 3; i++) CHECK(gx[i] == 0);
    values_of(out[3], gx, 2);
    CHECK(gx[0] == 1 && gx[1] == 1);
    drop_all(in, 4), drop_all(out, 4);
    sp_graph_drop(&g), sp_graph_drop(&d);
}

static void bad_examples_are_named(void)
{
    sp_graph *g = parsed(layer), *d;
    sp_tensor *x = tensor_of(X, 1, (int64_t[]){6}), *w = tensor_of(W, 1, (int64_t[]){3});
    FAILS(sp_graph_vjp(g, (const sp_tensor *const[]){x, w}, &d), SP_ESHAPE, "example 0");
    CHECK(d == NULL);
    sp_drop(&x), sp_drop(&w);
    sp_graph_drop(&g);
}

/* Whether it failed for want of memory when request n did; then nothing is left over. */
static bool fails_at(sp_graph *g, bool forward, int64_t n)
{
    sp_graph *d = NULL;
    sp_memory_fail_nth(n, false);
    sp_status status = forward ? sp_graph_jvp(g, NULL, &d) : sp_graph_vjp(g, NULL, &d);
    bool reached = sp_memory_requests() >= n;
    sp_memory_fail_nth(0, false);
    if (reached) CHECK(status == SP_OK || (status == SP_EMEMORY && d == NULL));
    if (!reached) CHECK(status == SP_OK);
    sp_graph_drop(&d);
    return reached;
}

static void every_allocation_may_fail(void)
{
    sp_graph *g = parsed(layer);
    sp_memory_stats before, after;
    for (int forward = 0; forward < 2; forward++) {
        CHECK(fails_at(g, forward, 1));
        sp_memory_stats_get(&before);
        for (int64_t n = 1; fails_at(g, forward, n); n++) {
            sp_memory_stats_get(&after);
            CHECK(after.live_blocks == before.live_blocks);
        }
    }
    sp_graph_drop(&g);
}

SUITE("jit/derive", TEST(vjp_of_a_graph), TEST(jvp_of_a_graph),
      TEST(derived_graphs_are_derived_again), TEST(constants_and_whole_numbers),
      TEST(bad_examples_are_named), TEST(every_allocation_may_fail))
