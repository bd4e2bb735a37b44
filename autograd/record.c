/* Recording: runs a call and hangs its results on a new node. Called by sp__dispatch for the tape
 * below all levels, and by each nested grad level for its own.
 */
#include "autograd/tape_int.h"

#include "autograd/levels_int.h"

void sp__outs_drop(sp_call *c)
{
    if (c->flags & (SP_CALL_INPLACE | SP_CALL_OUT)) return;
    for (int i = 0; i < c->n_out; i++) sp_drop(&c->out[i]);
}

sp_status sp__record_run(sp_call *c, sp_level *level)
{
    return level ? sp__level_run_below(level, c) : sp__eval(c);
}

/* Inputs that want a gradient from this call, one bit each. */
static uint64_t needed(const sp_call *c, const sp_op_info *info, const sp_level *level)
{
    if (sp__tls.no_grad) return 0;
    uint64_t need = 0;
    for (int i = 0; i < c->n_in; i++) {
        bool flows = info->n_in < 0 ? info->diff_mask != 0 : info->diff_mask >> i & 1;
        if (flows && sp__wants_grad(c->in[i], level)) need |= sp__in_bit(i);
    }
    return need;
}

static bool gave_input_back(const sp_call *c)
{
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i] == c->out[0]) return true;
    return false;
}

static sp_status attach(sp_call *c, uint64_t need)
{
    sp_node *node;
    SP_RETURN_IF(sp__node_new(c, need, NULL, &node));
    sp_status status = SP_OK;
    for (int i = 0; i < c->n_out; i++)
        if (sp__is_float(c->out[i]->dtype)) SP_TRY(sp__history_set(c->out[i], node, i));
out:
    sp__node_let_go(node);
    return status;
}

sp_status sp__record(sp_call *c, sp_level *level)
{
    const sp_op_info *info = &sp_op_table[c->op];
    uint64_t need = needed(c, info, level);
    if (need && !sp__rules[c->op].vjp) {
        if (info->body) return sp__body(c);
        return sp_fail(SP_EGRAD, "%s: has no derivative; detach() its inputs first", info->name);
    }
    if (SP_UNLIKELY(c->flags)) return sp__record_write(c, level, need);

    SP_RETURN_IF(sp__record_run(c, level));
    sp_status status = SP_OK;
    if (need && !gave_input_back(c) && sp__is_float(c->out[0]->dtype)) SP_TRY(attach(c, need));
    if (info->flags & (SP_OPF_VIEW | SP_OPF_MAY_VIEW)) SP_TRY(sp__view_note(c, level));
    return SP_OK;
out:
    sp__outs_drop(c);
    return status;
}
