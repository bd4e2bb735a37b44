/* Each pass, from the text of a graph to the text it must become. */
#include "jit/ir.h"
#include "tensor/memory.h"
#include "tests/check.h"

typedef sp_status (*pass)(sp_graph *g);

static void becomes(pass run, const char *before, const char *after)
{
    sp_graph *g = NULL;
    char *text;
    OK(sp_graph_parse(before, &g));
    OK(run(g));
    OK(sp__graph_verify(g));
    if (run != sp__pass_fuse) OK(sp__pass_dce(g)); /* what was replaced goes */
    OK(sp__graph_verify(g));
    OK(sp_graph_text(g, &text));
    if (strcmp(text, after)) fprintf(stderr, "\n--- got\n%s--- expected\n%s", text, after);
    CHECK(strcmp(text, after) == 0);
    sp_text_free(text);
    sp_graph_drop(&g);
}

static void stays(pass run, const char *text)
{
    becomes(run, text, text);
}

/* ---- fold ----- */

static void constants_are_computed(void)
{
    becomes(sp__pass_fold,
            "graph \"g\"(%0: float32[2]) {\n"
            "  %1: float32[2] = const [1, 2]\n"
            "  %2: float32[2] = mul.scalar(%1) {y=3.0}\n"
            "  %3: float32[2,2]{0,1} = expand(%2) {size=[2,2]}\n"
            "  %4: float32[2] = sum(%3) {dim=[0], keepdim=false}\n"
            "  %5: float32[2] = add(%0, %4)\n"
            "  return %5\n}\n",
            "graph \"g\"(%0: float32[2]) {\n"
            "  %1: float32[2] = const [6, 12]\n"
            "  %2: float32[2] = add(%0, %1)\n"
            "  return %2\n}\n");
    stays(sp__pass_fold, "graph \"lifted\"($0: float = 3.0) {\n"
                         "  %0: float32[2] = const [1, 2]\n"
                         "  %1: float32[2] = mul.scalar(%0) {y=$0}\n"
                         "  return %1\n}\n");
    stays(sp__pass_fold, "graph \"large\"() {\n"
                         "  %0: float32[100000] = full() {size=[100000], fill_value=1.0}\n"
                         "  return %0\n}\n");
}

static void identities_keep_bits(void)
{
    becomes(sp__pass_fold,
            "graph \"g\"(%0: float32[2]) {\n"
            "  %1: float32[2] = mul.scalar(%0) {y=1}\n"
            "  %2: float32[2] = div.scalar(%1) {y=1.0}\n"
            "  %3: float32[2] = sub.scalar(%2) {y=0.0}\n"
            "  %4: float32[2] = add.scalar(%3) {y=-0.0}\n"
            "  %5: float32[2] = clone(%4)\n"
            "  %6: float32[2] = cast(%5) {dtype=float32}\n"
            "  %7: float32[2] = neg(%6)\n"
            "  %8: float32[2] = neg(%7)\n"
            "  %9: float32[2] = relu(%8)\n"
            "  %10: float32[2] = relu(%9)\n"
            "  return %10\n}\n",
            "graph \"g\"(%0: float32[2]) {\n"
            "  %1: float32[2] = relu(%0)\n"
            "  return %1\n}\n");
    stays(sp__pass_fold, "graph \"minus zero\"(%0: float32[2], $0: float = 1.0) {\n"
                         "  %1: float32[2] = add.scalar(%0) {y=0.0}\n"
                         "  %2: float32[2] = sub.scalar(%0) {y=-0.0}\n"
                         "  %3: float32[2] = mul.scalar(%0) {y=$0}\n"
                         "  return %1, %2, %3\n}\n");
    stays(sp__pass_fold, "graph \"types\"(%0: int64[2], %1: float32[2,2]{1,2}) {\n"
                         "  %2: float32[2] = div.scalar(%0) {y=1}\n"
                         "  %3: float32[2] = mul.scalar(%0) {y=1.0}\n"
                         "  %4: float64[2] = cast(%0) {dtype=float64}\n"
                         "  %5: float32[2,2]{1,2} = transpose(%1) {dim0=0, dim1=0}\n"
                         "  %6: float32[2,2] = clone(%5)\n"
                         "  return %2, %3, %4, %6\n}\n");
}

/* ---- canonicalize ----- */

static void chains_of_views_become_one(void)
{
    becomes(sp__pass_canonicalize,
            "graph \"g\"(%0: float32[4,6]) {\n"
            "  %1: float32[6,4]{1,6} = transpose(%0) {dim0=0, dim1=1}\n"
            "  %2: float32[4,6] = transpose(%1) {dim0=0, dim1=1}\n"
            "  %3: float32[24] = reshape(%2) {shape=[24]}\n"
            "  %4: float32[4]{6}+1 = select(%1) {dim=0, index=1}\n"
            "  %5: float32[4,6] = neg(%2)\n"
            "  return %5, %3, %4\n}\n",
            "graph \"g\"(%0: float32[4,6]) {\n"
            "  %1: float32[24] = reshape(%0) {shape=[24]}\n"
            "  %2: float32[4]{6}+1 = as_strided(%0) {size=[4], stride=[6], storage_offset=1}\n"
            "  %3: float32[4,6] = neg(%0)\n"
            "  return %3, %1, %2\n}\n");
    stays(sp__pass_canonicalize, "graph \"copy\"(%0: float32[4,6]) {\n"
                                 "  %1: float32[6,4]{1,6} = transpose(%0) {dim0=0, dim1=1}\n"
                                 "  %2: float32[24] = reshape(%1) {shape=[24]}\n"
                                 "  return %2\n}\n");
}

/* ---- cse ----- */

static void equal_nodes_become_one(void)
{
    becomes(sp__pass_cse,
            "graph \"g\"(%0: float32[2], %1: float32[2], $0: float = 1.0, $1: float = 1.0) {\n"
            "  %2: float32[2] = add(%0, %1)\n"
            "  %3: float32[2] = add(%0, %1)\n"
            "  %4: float32[2] = add(%1, %0)\n"
            "  %5: float32[2] = mul.scalar(%2) {y=$0}\n"
            "  %6: float32[2] = mul.scalar(%3) {y=$0}\n"
            "  %7: float32[2] = mul.scalar(%3) {y=$1}\n"
            "  %8: float32[2] = mul.scalar(%3) {y=0.0}\n"
            "  %9: float32[2] = mul.scalar(%3) {y=-0.0}\n"
            "  %10: float32[2] = mul.scalar(%3) {y=0}\n"
            "  return %4, %5, %6, %7, %8, %9, %10\n}\n",
            "graph \"g\"(%0: float32[2], %1: float32[2], $0: float = 1.0, $1: float = 1.0) {\n"
            "  %2: float32[2] = add(%0, %1)\n"
            "  %3: float32[2] = add(%1, %0)\n"
            "  %4: float32[2] = mul.scalar(%2) {y=$0}\n"
            "  %5: float32[2] = mul.scalar(%2) {y=$1}\n"
            "  %6: float32[2] = mul.scalar(%2) {y=0.0}\n"
            "  %7: float32[2] = mul.scalar(%2) {y=-0.0}\n"
            "  %8: float32[2] = mul.scalar(%2) {y=0}\n"
            "  return %3, %4, %4, %5, %6, %7, %8\n}\n");
    becomes(sp__pass_cse,
            "graph \"lists\"(%0: float32[2,2]) {\n"
            "  %1: float32[2] = sum(%0) {dim=[0], keepdim=false}\n"
            "  %2: float32[2] = sum(%0) {dim=[1], keepdim=false}\n"
            "  %3: float32[2] = sum(%0) {dim=[0], keepdim=false}\n"
            "  return %1, %2, %3\n}\n",
            "graph \"lists\"(%0: float32[2,2]) {\n"
            "  %1: float32[2] = sum(%0) {dim=[0], keepdim=false}\n"
            "  %2: float32[2] = sum(%0) {dim=[1], keepdim=false}\n"
            "  return %1, %2, %1\n}\n");
}

/* ---- dce ----- */

static void unread_nodes_go(void)
{
    becomes(sp__pass_dce,
            "graph \"g\"(%0: float32[2], %1: float32[2]) {\n"
            "  %2: float32[2] = const [1, 2]\n"
            "  %3: float32[2] = const [3, 4]\n"
            "  %4: float32[2] = add(%0, %2)\n"
            "  %5: float32[2] = neg(%4)\n"
            "  %6: float32[2] = mul(%0, %3)\n"
            "  return %6\n}\n",
            "graph \"g\"(%0: float32[2], %1: float32[2]) {\n"
            "  %2: float32[2] = const [3, 4]\n"
            "  %3: float32[2] = mul(%0, %2)\n"
            "  return %3\n}\n");
}

/* ---- fuse ----- */

static void chains_fuse(void)
{
    becomes(sp__pass_fuse,
            "graph \"chain\"(%0: float32[4,4], %1: float32[4], $0: float = 2.0) {\n"
            "  %2: float32[4,4] = add(%0, %1)\n"
            "  %3: float32[4,4] = relu(%2)\n"
            "  %4: float32[4,4] = matmul(%0, %0)\n"
            "  %5: bool[4,4] = gt.scalar(%3) {y=$0}\n"
            "  %6: float64[4,4] = cast(%3) {dtype=float64}\n"
            "  %7: float64[4,4] = where(%5, %6, %4)\n"
            "  return %7, %3\n}\n",
            "graph \"chain\"(%0: float32[4,4], %1: float32[4], $0: float = 2.0) {\n"
            "  %2: float32[4,4] = matmul(%0, %0)\n"
            "  %3: float32[4,4] = add(%0, %1) @1\n"
            "  %4: float32[4,4] = relu(%3) @1\n"
            "  %5: bool[4,4] = gt.scalar(%4) {y=$0} @1\n"
            "  %6: float64[4,4] = cast(%4) {dtype=float64} @1\n"
            "  %7: float64[4,4] = where(%5, %6, %2) @1\n"
            "  return %7, %4\n}\n");
}

static void groups_do_not_wait_for_themselves(void)
{
    stays(sp__pass_fuse, "graph \"through\"(%0: float32[4,4]) {\n"
                         "  %1: float32[4,4] = neg(%0)\n"
                         "  %2: float32[4,4] = matmul(%1, %1)\n"
                         "  %3: float32[4,4] = add(%1, %2)\n"
                         "  return %3\n}\n");
    stays(sp__pass_fuse, "graph \"views\"(%0: float32[4,4]) {\n"
                         "  %1: float32[4,4] = neg(%0)\n"
                         "  %2: float32[4,4]{1,4} = transpose(%1) {dim0=0, dim1=1}\n"
                         "  %3: float32[4,4] = add(%1, %2)\n"
                         "  return %3\n}\n");
    /* a and c may not meet through b's group, which reads the matmul of a */
    becomes(sp__pass_fuse,
            "graph \"crossed\"(%0: float32[4,4]) {\n"
            "  %1: float32[4,4] = neg(%0)\n"
            "  %2: float32[4,4] = exp(%0)\n"
            "  %3: float32[4,4] = matmul(%1, %1)\n"
            "  %4: float32[4,4] = add(%2, %3)\n"
            "  %5: float32[4,4] = mul(%1, %4)\n"
            "  return %5\n}\n",
            "graph \"crossed\"(%0: float32[4,4]) {\n"
            "  %1: float32[4,4] = neg(%0)\n"
            "  %2: float32[4,4] = matmul(%1, %1)\n"
            "  %3: float32[4,4] = exp(%0) @1\n"
            "  %4: float32[4,4] = add(%3, %2) @1\n"
            "  %5: float32[4,4] = mul(%1, %4) @1\n"
            "  return %5\n}\n");
}

static void spaces_do_not_mix(void)
{
    stays(sp__pass_fuse, "graph \"spaces\"(%0: float32[4], %1: float32[3,4]) {\n"
                         "  %2: float32[4] = neg(%0)\n"
                         "  %3: float32[3,4] = add(%1, %2)\n"
                         "  %4: float32[] = sum(%3) {keepdim=false}\n"
                         "  %5: float32[] = neg(%4)\n"
                         "  return %5\n}\n");
}

static void groups_have_a_size(void)
{
    char text[16384], *at = text;
    sp_graph *g;
    int32_t members[200] = {0}, largest = 0;
    at += sprintf(at, "graph \"long\"(%%0: float32[4]) {\n");
    for (int i = 1; i <= 150; i++) at += sprintf(at, "  %%%d: float32[4] = neg(%%%d)\n", i, i - 1);
    sprintf(at, "  return %%150\n}\n");
    OK(sp_graph_parse(text, &g));
    OK(sp__pass_fuse(g));
    OK(sp__graph_verify(g));
    for (int i = 0; i < g->n_nodes; i++)
        if (++members[g->nodes[i].group] > largest) largest = members[g->nodes[i].group];
    CHECK(members[0] == 0 && largest > 8 && largest <= 64);
    sp_graph_drop(&g);
}

/* ---- memory ----- */

static void passes_survive_lack_of_memory(void)
{
    static const pass passes[] = {sp__pass_fold, sp__pass_canonicalize, sp__pass_cse, sp__pass_dce,
                                  sp__pass_fuse};
    for (int i = 0; i < 5; i++)
        for (int64_t n = 1, again = 1; again; n++) {
            sp_graph *g;
            OK(sp_graph_parse("graph \"g\"(%0: float32[4,4]) {\n"
                              "  %1: float32[2] = const [1, 2]\n"
                              "  %2: float32[2] = mul.scalar(%1) {y=3.0}\n"
                              "  %3: float32[4,4]{1,4} = transpose(%0) {dim0=0, dim1=1}\n"
                              "  %4: float32[4]{4}+1 = select(%3) {dim=0, index=1}\n"
                              "  %5: float32[4] = neg(%4)\n"
                              "  %6: float32[4] = exp(%5)\n"
                              "  return %6, %2\n}\n",
                              &g));
            sp_memory_fail_nth(n, false);
            sp_status status = passes[i](g);
            again = sp_memory_requests() >= n;
            sp_memory_fail_nth(0, false);
            CHECK(status == (again ? SP_EMEMORY : SP_OK));
            sp_graph_drop(&g);
        }
}

SUITE("jit/passes", TEST(constants_are_computed), TEST(identities_keep_bits),
      TEST(chains_of_views_become_one), TEST(equal_nodes_become_one), TEST(unread_nodes_go),
      TEST(chains_fuse), TEST(groups_do_not_wait_for_themselves), TEST(spaces_do_not_mix),
      TEST(groups_have_a_size), TEST(passes_survive_lack_of_memory))
