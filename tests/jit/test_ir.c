/* Graphs as text and in memory: round trips, errors with line and column, hostile text, what verify
 * finds. */
#include "jit/ir.h"
#include "jit/plan.h"
#include "ops_gen.h"
#include "tensor/memory.h"
#include "tests/check.h"

static sp_graph *parsed(const char *text)
{
    sp_graph *g = NULL;
    OK(sp_graph_parse(text, &g));
    return g;
}

static void same_text(sp_graph *g, const char *expected)
{
    char *text;
    OK(sp_graph_text(g, &text));
    if (strcmp(text, expected)) fprintf(stderr, "\n--- got\n%s--- expected\n%s", text, expected);
    CHECK(strcmp(text, expected) == 0);
    sp_text_free(text);
}

static void round_trip(const char *text)
{
    sp_graph *g = parsed(text), *copy;
    same_text(g, text);
    OK(sp__graph_copy(g, &copy));
    OK(sp__graph_verify(copy));
    same_text(copy, text);
    sp_graph_drop(&g);
    sp_graph_drop(&copy);
}

static const char *const samples[] = {
    "graph \"empty\"() {\n  return\n}\n",
    "graph \"same\"(%0: float32[]) {\n  return %0, %0\n}\n",
    "meta \"producer\" = \"a \\\"b\\\" \\\\ \\x0a\"\n"
    "graph \"mlp\"(%0 \"x\": float32[4,8], %1 \"w 1\": float32[3,8], $0: float = 0.1, $1: int = "
    "-3) {\n"
    "  %2 \"b\": float32[3] = const [1, -2.5, 3.00000011e-07]\n"
    "  %3: float32[8,3]{1,8} = transpose(%1) {dim0=0, dim1=1}\n"
    "  %4: float32[4,3] = matmul(%0, %3)\n"
    "  %5: float32[4,3] = add(%4, %2) @1\n"
    "  %6 \"y\": float32[4,3] = mul.scalar(%5) {y=$0} @1\n"
    "  %7: float32[4,3] = sub.scalar(%6) {y=$1}\n"
    "  return %6, %7\n}\n",
    "graph \"views\"(%0: float64[4,6], %1: int64[2,0]) {\n"
    "  %2: float64[4,2]{6,2}+1 = slice(%0) {dim=1, start=1, end=4, step=2}\n"
    "  %3: float64[2]{2}+13 = select(%2) {dim=0, index=2}\n"
    "  %4: float64[3]{2}+1 = as_strided(%3) {size=[3], stride=[2], storage_offset=1}\n"
    "  %5: float64[4,2] = clone(%2)\n"
    "  return %3, %4, %5, %1\n}\n",
    "graph \"optional\"(%0: float32[2,8], %1: float32[3,8]) {\n"
    "  %2: float32[2,3] = linear(%0, %1, none)\n"
    "  %3: float32[] = sum(%2) {keepdim=false}\n"
    "  %4: float32[2] = sum(%2) {dim=[1], keepdim=false}\n"
    "  return %3, %4\n}\n",
    "graph \"constants\"() {\n"
    "  %0: bool[3] = const [true, false, true]\n"
    "  %1: int64[2] = const [-9223372036854775808, 9223372036854775807]\n"
    "  %2: float32[2] = const base64 \"AADAfwAAgH8=\"\n"
    "  %3: float64[3] = const [0.10000000000000001, -0, inf]\n"
    "  %4: float32[2,2]{1,2} = const [1, 2, 3, 4]\n"
    "  %5: float32[0] = const []\n"
    "  %6: float32[2,2] = add.scalar(%4) {y=bits:7ff8000000000001}\n"
    "  %7: float32[2,2] = add.scalar(%4) {y=nan}\n"
    "  %8: float32[2,2] = add.scalar(%4) {y=-inf}\n"
    "  %9: float32[2,2] = add.scalar(%4) {y=1e+300}\n"
    "  %10: float32[2,2] = add.scalar(%4) {y=2.0}\n"
    "  return %0, %1, %2, %3, %5, %6, %7, %8, %9, %10\n}\n",
};
enum { N_SAMPLES = sizeof samples / sizeof *samples };

static void text_reads_back(void)
{
    for (int i = 0; i < N_SAMPLES; i++) round_trip(samples[i]);
}

static void large_constants_read_back(void)
{
    float data[100];
    for (int i = 0; i < 100; i++) data[i] = (float)i / 7;
    sp_tensor *t;
    sp_vid v;
    sp_graph *g, *again;
    char *text;
    OK(sp_from_data(data, SP_FLOAT32, 2, (int64_t[]){10, 10}, &t));
    OK(sp__graph_new("large", &g));
    OK(sp__graph_const(g, t, &v));
    OK(sp__graph_outputs(g, &v, 1));
    OK(sp_graph_text(g, &text));
    again = parsed(text);
    sp_tensor *got = again->values[again->outputs[0]].constant;
    CHECK(memcmp(sp__data(got), data, sizeof data) == 0);
    same_text(again, text);
    sp_text_free(text);
    sp_drop(&t);
    sp_graph_drop(&g);
    sp_graph_drop(&again);
}

/* ---- errors ----- */

static void fails_at(const char *text, const char *message)
{
    sp_graph *g;
    FAILS(sp_graph_parse(text, &g), SP_EFORMAT, message);
    CHECK(g == NULL);
}

static void errors_say_where(void)
{
    fails_at("", "graph text:1:1: expected 'graph'");
    fails_at("graph x() {}", "graph text:1:7: expected '\"'");
    fails_at("graph \"a\"(%1: float32[]) { return }",
             "1:12: expected %0: values are numbered in order");
    fails_at("graph \"a\"(%0: float8[]) { return }", "'float8' is no dtype");
    fails_at("graph \"a\"(%0: float32[-1]) { return }", "-1");
    fails_at("graph \"a\"(%0: float32[4611686018427387904,4]) { return }", "too large");
    fails_at("graph \"a\"(%0: float32[99999999999999999999]) { return }", "beyond 64 bits");
    fails_at("graph \"a\"(%0: float32[2]{-1}) { return }", "a negative stride");
    fails_at("graph \"a\"(%0: float32[2]+3) { return }", "an input has no offset");
    fails_at("graph \"a\"($0: int = 1.0) { return }", "said to be int, its value is float");
    fails_at("graph \"a\"(%0: float32[]) {\n return %1\n}",
             "graph text:2:9: %1 is not defined here");
    fails_at("graph \"a\"(%0: float32[]) {\n  %1: float32[] = nope(%0)\n  return %1\n}",
             "2:19: there is no op 'nope'");
    fails_at("graph \"a\"(%0: float32[]) {\n  %1: float32[] = neg(%0) {x=1}\n return\n}",
             "neg has no attribute 'x'");
    fails_at("graph \"a\"(%0: float32[]) {\n  %1: float32[] = neg(%0, %0)\n  return\n}",
             "takes 1 tensors, got 2");
    fails_at("graph \"a\"(%0: float32[]) {\n  %1: float32[] = neg(none)\n  return\n}",
             "neg: input 0 is missing");
    fails_at("graph \"a\"(%0: float32[2]) {\n  %1: float32[] = select(%0) {dim=0}\n  return\n}",
             "select: attribute 'index' is missing");
    fails_at("graph \"a\"(%0: float32[2]) {\n  %1: float64[2] = neg(%0)\n  return\n}",
             "result 0 is float32(2,), the text says float64(2,)");
    fails_at(
        "graph \"a\"(%0: float32[2],%1: float32[3]) {\n  %2: float32[2] = mul(%0, %1)\n  return\n}",
        "2:20: mul");
    fails_at("graph \"a\"() {\n  %0: float32[1000000000] = const [1]\n  return\n}",
             "elements, which are not there");
    fails_at("graph \"a\"() {\n  %0: float32[2]{4611686018427387904} = const [1,2]\n  return\n}",
             "");
    fails_at("graph \"a\"() {\n  %0: float32[2] = const [1]\n  return\n}", "expected ','");
    fails_at("graph \"a\"() {\n  %0: int64[1] = const [1.5]\n  return\n}", "expected an integer");
    fails_at("graph \"a\"() {\n  %0: float32[2] = const base64 \"AA\"\n  return\n}",
             "base64 digits for 8 bytes, found 1");
    fails_at("graph \"a\"() { return } x", "text after the graph");
    fails_at("graph \"a\"(%0: float32[4]) {\n  %1: float32[9]{1} = as_strided(%0) {size=[9], "
             "stride=[1], storage_offset=0}\n"
             "  return %1\n}",
             "as_strided");
    fails_at(
        "graph \"a\"(%0: float32[2]) {\n  %1: float32[2] = sum(%0) {keepdim=false} @1\n return\n}",
        "");
}

static void groups_are_checked(void)
{
    fails_at(
        "graph \"a\"(%0: float32[2,2]) {\n  %1: float32[2,2] = matmul(%0, %0) @1\n  return %1\n}",
        "not pointwise");
    fails_at("graph \"a\"(%0: float32[2,2]) {\n  %1: float32[2,2] = neg(%0) @1\n  %2: float32[2,2] "
             "= neg(%1)\n"
             "  %3: float32[2,2] = neg(%2) @1\n  return %3\n}",
             "away from the others");
}

/* Every prefix of every sample, and every sample with each byte replaced: an error or a graph,
 * never a crash. */
static void hostile_text_is_survived(void)
{
    static const char bytes[] = {'\0', '"', '%', '9', '-', '{', ',', (char)0xff};
    char text[2048];
    for (int i = 0; i < N_SAMPLES; i++) {
        size_t n = strlen(samples[i]);
        for (size_t at = 0; at < n; at++)
            for (size_t k = 0; k < sizeof bytes; k++) {
                sp_graph *g;
                memcpy(text, samples[i], n + 1);
                text[at] = bytes[k];
                if (sp_graph_parse(text, &g) == SP_OK) {
                    CHECK(sp__graph_verify(g) == SP_OK);
                    sp_graph_drop(&g);
                }
            }
    }
}

/* ---- memory ----- */

static bool out_of_memory_at(int64_t n, const char *text)
{
    sp_graph *g = NULL, *copy = NULL;
    char *printed = NULL;
    sp_memory_fail_nth(n, false);
    sp_status status = sp_graph_parse(text, &g);
    if (!status) status = sp__graph_copy(g, &copy);
    if (!status) status = sp_graph_text(copy, &printed);
    bool reached = sp_memory_requests() >= n;
    sp_memory_fail_nth(0, false);
    CHECK(status == SP_OK || status == SP_EMEMORY);
    CHECK(reached == (status == SP_EMEMORY));
    sp_text_free(printed);
    sp_graph_drop(&g);
    sp_graph_drop(&copy);
    return reached;
}

static int64_t live_blocks(void)
{
    sp_memory_stats s;
    sp_memory_stats_get(&s);
    return s.live_blocks;
}

static void every_allocation_may_fail(void)
{
    int64_t before = live_blocks();
    for (int i = 0; i < N_SAMPLES; i++)
        for (int64_t n = 1; out_of_memory_at(n, samples[i]); n++) CHECK(live_blocks() == before);
    CHECK(live_blocks() == before);
}

/* ---- verify ----- */

static sp_graph *chain(void)
{
    return parsed("graph \"chain\"(%0: float32[2,3]) {\n"
                  "  %1: float32[3,2]{1,3} = transpose(%0) {dim0=0, dim1=1}\n"
                  "  %2: float32[3,2] = neg(%1)\n"
                  "  %3: float32[3,2] = add(%2, %1)\n"
                  "  return %3\n}\n");
}

static void breaks(sp_graph *g, const char *message)
{
    FAILS(sp__graph_verify(g), SP_EINTERNAL, message);
    sp_graph_drop(&g);
}

static void verify_finds(void)
{
    sp_graph *g = chain();
    g->nodes[1].in[0] = 3;
    breaks(g, "node 1 (neg): input 0 is defined later");
    g = chain();
    g->nodes[1].in[0] = 77;
    breaks(g, "input 0 is no value");
    g = chain();
    g->nodes[2].op = 9999;
    breaks(g, "no op has the number 9999");
    g = chain();
    g->values[2].type.dtype = SP_FLOAT64;
    breaks(g, "output 0 is float64(3, 2) here and float32(3, 2) by inference");
    g = chain();
    g->values[2].type.stride[0] = 1, g->values[2].type.stride[1] = 3;
    breaks(g, "strides");
    g = chain();
    g->values[1].type.view_of = -1;
    breaks(g, "node 0 (transpose)");
    g = chain();
    g->values[2].def = 2;
    breaks(g, "value 2 is not output 0 of node 2");
    g = chain();
    g->nodes[0].attr[1].n = 1;
    breaks(g, "attribute dim1 reads scalar 0 of 0");
    g = chain();
    g->nodes[0].attr[0].kind = SP_ATTR_FLOAT;
    breaks(g, "attribute dim0 is of kind");
    g = chain();
    g->outputs[0] = -1;
    breaks(g, "output 0 is no value");
    g = chain();
    g->values[0].type.shape[0] = 5;
    breaks(g, "value 0 says 6 elements, its shape 15");
}

/* ---- building ----- */

static void builder_infers(void)
{
    sp_graph *g;
    sp_vid x, y;
    int32_t k;
    sp_meta m = {.dtype = SP_FLOAT32, .rank = 2, .shape = {2, 3}};
    OK(sp__meta_dense(&m, "test"));
    OK(sp__graph_new("built", &g));
    OK(sp__graph_input(g, &m, &x));
    OK(sp__graph_scalar(g, SP_FLOAT(0.5), &k));
    sp_attr a = {.kind = SP_ATTR_SCALAR, .tag = SP_FLOAT64, .v.f = 0.5, .n = k + 1};
    OK(sp__graph_node(g, SP_OP_MUL_SCALAR, &x, 1, &a, 1, NULL, NULL, &y));
    OK(sp__graph_name_value(g, y, "half"));
    OK(sp__graph_outputs(g, &y, 1));
    OK(sp__graph_verify(g));
    same_text(g, "graph \"built\"(%0: float32[2,3], $0: float = 0.5) {\n"
                 "  %1 \"half\": float32[2,3] = mul.scalar(%0) {y=$0}\n"
                 "  return %1\n}\n");
    FAILS(sp__graph_node(g, SP_OP_MUL_SCALAR, &x, 1, NULL, 0, NULL, NULL, &y), SP_ETYPE,
          "takes 1 attributes, got 0");
    sp_graph_drop(&g);
}

SUITE("jit/ir", TEST(text_reads_back), TEST(large_constants_read_back), TEST(errors_say_where),
      TEST(groups_are_checked), TEST(hostile_text_is_survived), TEST(every_allocation_may_fail),
      TEST(verify_finds), TEST(builder_infers))
