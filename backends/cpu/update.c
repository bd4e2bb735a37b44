/* Steps of optimizers: one pass over all tuples of tensors, in chunks of a fixed number of
 * elements, as if the tuples lay end to end.
 *
 *     elements  0 ... | ...            | ...        |      (total)
 *     tuples    [  0  ][1][      2       ][ 3 ]  ...
 *     chunks    [     0      ][     1      ][   2 ...
 *
 * Operands that are no dense runs go through small buffers, piece by piece.
 */
#include "backends/cpu/update.h"

#include <math.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "ops/attr.h"
#include "ops_gen.h"
#include "tensor/memory.h"

enum {
    CHUNK = 16384,           /* elements: a share for a thread */
    PIECE = 256,             /* of a strided operand */
    MAX_STATES = SP_MAX_OUT, /* and a gradient */
    FEW = 64                 /* tuples whose places fit on the stack */
};

typedef struct job {
    const sp_kargs *args;
    sp_update_kind kind;
    sp_update numbers;
    int n_out, n_in; /* of a tuple */
    int64_t *first;  /* per tuple: its first element; then how many there are together */
    int64_t room[FEW + 1];
} job;

/* ---- numbers: overloads have their common attributes first ----- */

static double number(const sp_kargs *args, int attr)
{
    sp_scalar s = sp__attr_to_scalar(&args->attr[attr]);
    return s.kind == SP_FLOAT64 ? s.v.f : (double)s.v.i;
}

/* Decay that is not part of the gradient shrinks the parameter by the rate as it was given. */
static void set_decay(sp_update *u, double lr, double decay, bool decoupled)
{
    u->weight_decay = decoupled ? 0 : decay;
    u->shrink = decoupled ? 1 - lr * decay : 1;
}

static void adam_numbers(const sp_kargs *args, sp_update *u)
{
    double step = number(args, SP_ADAM_STEP_STEP), decay = number(args, SP_ADAM_STEP_WEIGHT_DECAY);
    bool decoupled = args->attr[SP_ADAM_STEP_DECOUPLED].v.i;
    u->lr = number(args, SP_ADAM_STEP_LR);
    u->keep = number(args, SP_ADAM_STEP_BETA1);
    u->keep_square = number(args, SP_ADAM_STEP_BETA2);
    u->eps = number(args, SP_ADAM_STEP_EPS);
    set_decay(u, u->lr, decay, decoupled);
    u->lr /= 1 - pow(u->keep, step);
    u->root_scale = 1 / sqrt(1 - pow(u->keep_square, step));
    u->maximize = args->attr[SP_ADAM_STEP_MAXIMIZE].v.i;
}

static void adamax_numbers(const sp_kargs *args, sp_update *u)
{
    u->keep = number(args, SP_ADAMAX_STEP_BETA1);
    u->keep_square = number(args, SP_ADAMAX_STEP_BETA2);
    u->lr = number(args, SP_ADAMAX_STEP_LR) / (1 - pow(u->keep, number(args, SP_ADAMAX_STEP_STEP)));
    u->eps = number(args, SP_ADAMAX_STEP_EPS);
    u->weight_decay = number(args, SP_ADAMAX_STEP_WEIGHT_DECAY);
    u->maximize = args->attr[SP_ADAMAX_STEP_MAXIMIZE].v.i;
}

static void nadam_numbers(const sp_kargs *args, sp_update *u)
{
    u->lr = number(args, SP_NADAM_STEP_LR);
    u->lr_grad = number(args, SP_NADAM_STEP_LR_GRAD);
    u->keep = number(args, SP_NADAM_STEP_BETA1);
    u->keep_square = number(args, SP_NADAM_STEP_BETA2);
    u->root_scale = 1 / sqrt(1 - pow(u->keep_square, number(args, SP_NADAM_STEP_STEP)));
    u->eps = number(args, SP_NADAM_STEP_EPS);
    u->maximize = args->attr[SP_NADAM_STEP_MAXIMIZE].v.i;
    if (args->op == SP_OP_NADAM_STEP)
        u->weight_decay = number(args, SP_NADAM_STEP_WEIGHT_DECAY);
    else
        u->shrink = number(args, SP_NADAM_STEP_DECOUPLED_SHRINK);
}

/* What RAdam's mean over a root is multiplied with; 0 while the root is not known well enough. */
static double radam_factor(double beta2, double step)
{
    double power = pow(beta2, step), most = 2 / (1 - beta2) - 1;
    double rho = most - 2 * step * power / (1 - power);
    if (!(rho > 5)) return 0;
    double rect = (rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho);
    return sqrt(rect) * sqrt(1 - power);
}

static void radam_numbers(const sp_kargs *args, sp_update *u)
{
    double step = number(args, SP_RADAM_STEP_STEP), lr = number(args, SP_RADAM_STEP_LR);
    double decay = number(args, SP_RADAM_STEP_WEIGHT_DECAY);
    bool decoupled = args->attr[SP_RADAM_STEP_DECOUPLED].v.i;
    u->keep = number(args, SP_RADAM_STEP_BETA1);
    u->keep_square = number(args, SP_RADAM_STEP_BETA2);
    u->eps = number(args, SP_RADAM_STEP_EPS);
    set_decay(u, lr, decay, decoupled);
    double factor = radam_factor(u->keep_square, step);
    u->rootless = factor == 0;
    u->lr = lr / (1 - pow(u->keep, step)) * (u->rootless ? 1 : factor);
    u->maximize = args->attr[SP_RADAM_STEP_MAXIMIZE].v.i;
}

static void adadelta_numbers(const sp_kargs *args, sp_update *u)
{
    u->lr = number(args, SP_ADADELTA_STEP_LR);
    u->keep_square = number(args, SP_ADADELTA_STEP_RHO);
    u->eps = number(args, SP_ADADELTA_STEP_EPS);
    u->weight_decay = number(args, SP_ADADELTA_STEP_WEIGHT_DECAY);
    u->maximize = args->attr[SP_ADADELTA_STEP_MAXIMIZE].v.i;
}

static void adagrad_numbers(const sp_kargs *args, sp_update *u)
{
    double step = number(args, SP_ADAGRAD_STEP_STEP);
    u->lr = number(args, SP_ADAGRAD_STEP_LR) /
            (1 + (step - 1) * number(args, SP_ADAGRAD_STEP_LR_DECAY));
    u->eps = number(args, SP_ADAGRAD_STEP_EPS);
    u->weight_decay = number(args, SP_ADAGRAD_STEP_WEIGHT_DECAY);
    u->maximize = args->attr[SP_ADAGRAD_STEP_MAXIMIZE].v.i;
}

static void sgd_numbers(const sp_kargs *args, sp_update *u)
{
    u->lr = number(args, SP_SGD_STEP_LR);
    u->weight_decay = number(args, SP_SGD_STEP_WEIGHT_DECAY);
    u->maximize = args->attr[SP_SGD_STEP_MAXIMIZE].v.i;
    if (args->op == SP_OP_SGD_STEP) return;
    u->momentum = number(args, SP_SGD_STEP_MOMENTUM_MOMENTUM);
    u->dampening = number(args, SP_SGD_STEP_MOMENTUM_DAMPENING);
    u->nesterov = args->attr[SP_SGD_STEP_MOMENTUM_NESTEROV].v.i;
    u->first = args->attr[SP_SGD_STEP_MOMENTUM_FIRST].v.i;
}

static void rmsprop_numbers(const sp_kargs *args, sp_update *u)
{
    u->lr = number(args, SP_RMSPROP_STEP_LR);
    u->keep_square = number(args, SP_RMSPROP_STEP_ALPHA);
    u->eps = number(args, SP_RMSPROP_STEP_EPS);
    u->weight_decay = number(args, SP_RMSPROP_STEP_WEIGHT_DECAY);
    u->maximize = args->attr[SP_RMSPROP_STEP_MAXIMIZE].v.i;
    if (args->op == SP_OP_RMSPROP_STEP || args->op == SP_OP_RMSPROP_STEP_CENTERED) return;
    u->momentum = number(args, SP_RMSPROP_STEP_MOMENTUM_MOMENTUM);
}

static const struct method {
    uint16_t op;
    uint8_t kind;
    void (*numbers)(const sp_kargs *args, sp_update *u);
} methods[] = {
    {SP_OP_SGD_STEP, SP_UPDATE_SGD, sgd_numbers},
    {SP_OP_SGD_STEP_MOMENTUM, SP_UPDATE_SGD_MOMENTUM, sgd_numbers},
    {SP_OP_ADAM_STEP, SP_UPDATE_ADAM, adam_numbers},
    {SP_OP_ADAM_STEP_AMSGRAD, SP_UPDATE_ADAM_AMSGRAD, adam_numbers},
    {SP_OP_RMSPROP_STEP, SP_UPDATE_RMSPROP, rmsprop_numbers},
    {SP_OP_RMSPROP_STEP_MOMENTUM, SP_UPDATE_RMSPROP_MOMENTUM, rmsprop_numbers},
    {SP_OP_RMSPROP_STEP_CENTERED, SP_UPDATE_RMSPROP_CENTERED, rmsprop_numbers},
    {SP_OP_RMSPROP_STEP_CENTERED_MOMENTUM, SP_UPDATE_RMSPROP_CENTERED_MOMENTUM, rmsprop_numbers},
    {SP_OP_ADAGRAD_STEP, SP_UPDATE_ADAGRAD, adagrad_numbers},
    {SP_OP_ADAMAX_STEP, SP_UPDATE_ADAMAX, adamax_numbers},
    {SP_OP_NADAM_STEP, SP_UPDATE_NADAM, nadam_numbers},
    {SP_OP_NADAM_STEP_DECOUPLED, SP_UPDATE_NADAM, nadam_numbers},
    {SP_OP_RADAM_STEP, SP_UPDATE_RADAM, radam_numbers},
    {SP_OP_ADADELTA_STEP, SP_UPDATE_ADADELTA, adadelta_numbers},
};

static const struct method *method_of(int op)
{
    const struct method *m = methods;
    while (m->op != op) m++;
    return m;
}

/* ---- elements ----- */

static void update_dense(const job *j, const sp_operand *out, const sp_operand *in, int64_t start,
                         int64_t n)
{
    char *to[MAX_STATES];
    const char *from[MAX_STATES + 1];
    int64_t skip = start * sp__size_of(out->dtype);
    for (int k = 0; k < j->n_out; k++) to[k] = out[k].data + skip;
    for (int k = 0; k < j->n_in; k++) from[k] = in[k].data + skip;
    sp__isa->update[j->kind][out->dtype](to, from, n, &j->numbers);
}

static void update_strided(const job *j, const sp_operand *out, const sp_operand *in, int64_t start,
                           int64_t n)
{
    double room[MAX_STATES + 1][PIECE];
    char *to[MAX_STATES];
    const char *from[MAX_STATES + 1];
    for (int k = 0; k < j->n_in; k++) from[k] = (char *)room[k];
    for (int k = 0; k < j->n_out; k++) to[k] = (char *)room[k];
    for (int64_t end = start + n; start < end; start += PIECE) {
        int64_t piece = end - start < PIECE ? end - start : PIECE;
        for (int k = 0; k < j->n_in; k++) sp__gather(room[k], &in[k], start, piece);
        sp__isa->update[j->kind][out->dtype](to, from, piece, &j->numbers);
        for (int k = 0; k < j->n_out; k++) sp__scatter(&out[k], room[k], start, piece);
    }
}

/* Elements start ... start + n - 1 of a tuple. */
static void update_some(const job *j, int tuple, int64_t start, int64_t n)
{
    const sp_operand *out = &j->args->arg[tuple * j->n_out],
                     *in = &j->args->arg[j->args->n_out + tuple * j->n_in];
    bool dense = true;
    if (n <= 0) return;
    for (int k = 0; k < j->n_out; k++) dense = dense && sp__is_dense(&out[k]);
    for (int k = 0; k < j->n_in; k++) dense = dense && sp__is_dense(&in[k]);
    if (dense)
        update_dense(j, out, in, start, n);
    else
        update_strided(j, out, in, start, n);
}

/* ---- chunks ----- */

/* The tuple that element `at` belongs to. */
static int tuple_at(const job *j, int64_t at)
{
    int low = 0, high = j->args->n_tuples;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (j->first[middle] <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void update_chunk(void *ctx, int64_t chunk)
{
    const job *j = ctx;
    int64_t at = chunk * CHUNK, total = j->first[j->args->n_tuples],
            end = total - at < CHUNK ? total : at + CHUNK;
    for (int i = tuple_at(j, at); at < end; i++) {
        int64_t stop = j->first[i + 1] < end ? j->first[i + 1] : end;
        update_some(j, i, at - j->first[i], stop - at);
        at = stop;
    }
}

static double ns_of(const job *j)
{
    double wide = j->args->arg[0].dtype == SP_FLOAT32 ? 1 : 2;
    return wide * (0.2 * (j->n_in + j->n_out) + 0.2);
}

double sp__update_predict_us(const sp_kargs *args)
{
    job j = {.args = args,
             .n_out = args->n_out / args->n_tuples,
             .n_in = (args->n_arg - args->n_out) / args->n_tuples};
    int64_t total = 0;
    for (int i = 0; i < args->n_tuples; i++) total += args->arg[i * j.n_out].numel;
    return 0.1 + 0.02 * args->n_tuples + (double)total * ns_of(&j) * 1e-3;
}

/* attributes: those of the step */
sp_status sp__cpu_update(const sp_kargs *args)
{
    const struct method *m = method_of(args->op);
    int n = args->n_tuples;
    job j = {.args = args, .kind = m->kind, .numbers = {.shrink = 1, .root_scale = 1}};
    size_t bytes = n > FEW ? (size_t)(n + 1) * sizeof *j.first : 0;
    j.n_out = args->n_out / n, j.n_in = (args->n_arg - args->n_out) / n;
    j.first = bytes ? sp__alloc(bytes) : j.room;
    if (!j.first)
        return sp_fail(SP_EMEMORY, "%s: no memory for the places of %d tensors",
                       sp_op_table[args->op].name, n);
    m->numbers(args, &j.numbers);
    j.first[0] = 0;
    for (int i = 0; i < n; i++) j.first[i + 1] = j.first[i] + args->arg[i * j.n_out].numel;
    sp__pool_for((j.first[n] + CHUNK - 1) / CHUNK, (double)j.first[n] * ns_of(&j) * 1e-3,
                 update_chunk, &j);
    if (bytes) sp__free(j.first, bytes);
    return SP_OK;
}
