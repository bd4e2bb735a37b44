/* What became of a jit function, for programs (sp_explanation) and for people (text). */
#include <string.h>

#include "jit/jit.h"
#include "tensor/memory.h"
#include "tensor/text.h"

static int32_t count_plans(const sp_jit *j)
{
    int32_t n = 0;
    for (const sp_exit *e = j->exits; e; e = e->older) n += e->plan != NULL;
    return n;
}

void sp__jit_explain(const sp_jit *j, sp_explanation *out)
{
    *out = (sp_explanation){.graphs = count_plans(j),
                            .ops = j->ops,
                            .compiled_ops = j->compiled_ops,
                            .breaks = j->breaks,
                            .rebuilds = j->rebuilds,
                            .calls = j->calls};
}

/* Exits hang on the function newest first; people read from the first on. */
static int list_exits(const sp_jit *j, const sp_exit **list)
{
    int n = 0;
    for (const sp_exit *e = j->exits; e; e = e->older) n++;
    if (list)
        for (const sp_exit *e = j->exits; e; e = e->older) list[--n] = e;
    return n;
}

static void add_graph(sp_text *t, const sp_graph *g)
{
    char *text;
    if (!g || sp_graph_text(g, &text) != SP_OK) return;
    sp__text_add(t, "%s", text);
    sp_text_free(text);
}

static void add_exit(sp_text *t, const sp_exit *e, int nr, bool with_graphs)
{
    sp__text_add(t, "  region %d: %d ops", nr, e->step->depth);
    if (e->plan) {
        const sp_plan_info *i = sp__plan_info(e->plan);
        sp__text_add(t,
                     ", %d steps (%d nodes fused into %d), %lld bytes between them; ran %d times",
                     i->steps, i->fused_nodes, i->programs, (long long)i->arena_bytes, e->runs);
    } else {
        sp__text_add(t, e->hopeless  ? ", runs op by op"
                        : e->binding ? ", nothing to run"
                                     : ", seen once, not compiled yet");
    }
    sp__text_add(t, "%s%s\n", e->reason[0] ? "; ends at " : "", e->reason);
    if (with_graphs) add_graph(t, e->graph);
}

static sp_status add_exits(sp_text *t, const sp_jit *j, bool with_graphs)
{
    int n = list_exits(j, NULL), nr = 0;
    const sp_exit **list = sp__alloc((size_t)n * sizeof *list);
    if (!list) return sp_fail(SP_EMEMORY, "explain: no memory for %d regions", n);
    list_exits(j, list);
    for (int i = 0; i < n; i++)
        if (list[i]->step->depth > 0) add_exit(t, list[i], ++nr, with_graphs);
    sp__free(list, (size_t)n * sizeof *list);
    return SP_OK;
}

sp_status sp__jit_text(const sp_jit *j, bool with_graphs, char **out)
{
    sp_text t = {0};
    *out = NULL;
    sp__text_add(&t, "%s: %lld calls", j->name, (long long)j->calls);
    if (j->calls)
        sp__text_add(&t, "; in the last one %lld of %lld ops ran in plans, with %lld break%s",
                     (long long)j->compiled_ops, (long long)j->ops, (long long)j->breaks,
                     j->breaks == 1 ? "" : "s");
    sp__text_add(&t, "%s\n", j->dropped ? "; dropped: runs eagerly" : "");
    sp_status status = add_exits(&t, j, with_graphs);
    if (status != SP_OK) {
        sp__text_drop(&t);
        return status;
    }
    for (int i = 0; i < j->n_reasons; i++) sp__text_add(&t, "  because %s\n", j->reasons[i]);
    return sp__text_take(&t, "explain", out);
}
