/* Dead code: drops nodes whose results nobody reads, and constants with them.
 *
 * Nodes have no side effects but those marked SP_OPF_EFFECT. Random numbers are no exception: seed
 * and offset are attributes, the generator was advanced by the caller when the op was issued. Nor
 * are ops that check values: recorders make such checks at the call.
 */
#include "jit/ir.h"
#include "tensor/memory.h"

static bool read_later(const sp_ir_node *node, const uint8_t *used)
{
    for (int i = 0; i < node->n_out; i++)
        if (used[node->out[i]]) return true;
    return false;
}

static void mark(const sp_graph *g, uint8_t *used, uint8_t *keep)
{
    for (int i = 0; i < g->n_outputs; i++) used[g->outputs[i]] = 1;
    for (int32_t i = g->n_nodes - 1; i >= 0; i--) {
        const sp_ir_node *node = &g->nodes[i];
        keep[i] = read_later(node, used) || sp_op_table[node->op].flags & SP_OPF_EFFECT;
        for (int k = 0; keep[i] && k < node->n_in; k++)
            if (node->in[k] >= 0) used[node->in[k]] = 1;
    }
}

sp_status sp__pass_dce(sp_graph *g)
{
    sp_status status = SP_OK;
    size_t values = (size_t)g->n_values, nodes = (size_t)g->n_nodes;
    uint8_t *used = sp__alloc_zero(values), *keep = sp__alloc_zero(nodes);
    if (!used || !keep) SP_TRY(sp_fail(SP_EMEMORY, "dce: out of memory for %d nodes", g->n_nodes));
    mark(g, used, keep);
    status = sp__graph_compact(g, keep);
out:
    if (used) sp__free(used, values);
    if (keep) sp__free(keep, nodes);
    return status;
}
