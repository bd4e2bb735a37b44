/* What a kernel will cost, in microseconds of one thread: for choosing between inline and queue,
 * and threads or not.
 */
#include "backends/cpu/predict.h"

#include "backends/cpu/gemm.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/update.h"
#include "ops/op.h"
#include "ops_gen.h"

enum { TINY = 2048 }; /* elements: below, nothing pointwise is worth a thought */

static double pointwise_us(const sp_kargs *args, const sp_lanes *l)
{
    int64_t n = args->arg[0].numel;
    if (n <= TINY) return 0.1;
    double wide = sp__dtypes[args->compute].size > 4 ? 2 : 1;
    double ns = l->ns * wide + 0.1 * wide * args->n_arg + (args->dense ? 0 : 0.5 * args->n_arg);
    return 0.1 + (double)n * ns * 1e-3;
}

static double gemm_us(const sp_kargs *args)
{
    const sp_operand *x = &args->arg[1];
    double k = x->rank > 0 ? (double)x->shape[x->rank - 1] : 1;
    return sp__gemm_predict_us(x->dtype, (double)args->arg[0].numel * k);
}

static int64_t largest_numel(const sp_kargs *args)
{
    int64_t n = 0;
    for (int i = 0; i < args->n_arg; i++) n = args->arg[i].numel > n ? args->arg[i].numel : n;
    return n;
}

double sp__cpu_predict_us(const sp_kargs *args)
{
    const sp_lanes *l = sp__lanes_of(args->op, args->compute);
    if (l != NULL) return pointwise_us(args, l);
    if (sp_op_table[args->op].flags & SP_OPF_UPDATES) return sp__update_predict_us(args);
    double n = (double)largest_numel(args);
    switch (args->op) {
    case SP_OP_MATMUL:
    case SP_OP_CONJ_DOT:
    case SP_OP_LINEAR: return gemm_us(args);
    case SP_OP_SUM:
    case SP_OP_NANSUM:
    case SP_OP_COUNT_NONZERO:
    case SP_OP_PROD:
    case SP_OP_AMAX:
    case SP_OP_AMIN: return 0.1 + n * 0.1e-3;
    case SP_OP_SOFTMAX:
    case SP_OP_LOG_SOFTMAX: return 0.2 + n * 2e-3;
    case SP_OP_RANDN: return 0.1 + n * 3e-3;
    case SP_OP_RAND: return 0.1 + n * 1e-3;
    default: return 0.1 + n * 0.5e-3;
    }
}
