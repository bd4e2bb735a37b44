/* attention and its derivative, tile by tile: no matrix of all scores.
 *
 *      queries  QUERIES at a time     scores of a tile = q k^T scale + mask     (BLAS)
 *        x keys KEYS at a time        weights = exp(scores - running maximum)   (rows.h)
 *                                     sums = sums exp(old - new maximum) + weights v
 *
 * The derivative computes the weights anew from the saved logsumexp. A tile's sizes depend on the
 * shapes alone; a chunk of work is a tile of queries, and in the derivative a head of keys, so that
 * threads change no bits. Operands may have any strides but 1 in the last dimension; what has not
 * is copied.
 */
#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "backends/cpu/blas.h"
#include "backends/cpu/copy.h"
#include "backends/cpu/gemm.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "ops_gen.h"
#include "tensor/memory.h"

enum { QUERIES = 64, KEYS = 256 };

typedef struct part { /* an operand (B, H, rows, columns), columns dense */
    char *data, *copy;
    size_t bytes;
    int64_t batch, head, row; /* strides in bytes */
} part;

typedef struct job {
    const sp_rows *f;
    int dtype;
    int64_t size;
    int64_t batches, heads, key_heads, queries, keys, e, ev;
    part q, k, v, out, grad, gq, gk, gv;
    const char *y, *lse; /* dense */
    char *out_lse;
    sp_operand mask; /* data NULL: none; expanded to (B, H, L, S) */
    bool causal;
    double scale;
    _Atomic bool failed;
} job;

/* ---- operands ----- */

/* Whether BLAS can take it: rows dense, and apart by at least their length. */
static bool has_matrices(const sp_operand *x)
{
    bool dense = x->stride[3] == 1 || x->shape[3] == 1;
    bool apart = x->stride[2] >= x->shape[3] && x->stride[2] >= 1 && x->stride[2] < INT_MAX;
    return dense && (apart || x->shape[2] <= 1);
}

static sp_status part_take(const sp_operand *x, bool fill, const char *op, part *p)
{
    int64_t size = sp__size_of(x->dtype), step = 1;
    sp_operand m = *x;
    *p = (part){.data = x->data};
    if (!has_matrices(x)) {
        for (int d = 3; d >= 0; d--) m.stride[d] = step, step *= x->shape[d];
        p->bytes = (size_t)(x->numel * size);
        m.data = p->data = p->copy = sp__alloc(p->bytes);
        if (p->copy == NULL)
            return sp_fail(SP_EMEMORY, "%s: no memory for %zu bytes of a copy", op, p->bytes);
        m.contiguous = true;
        if (fill) sp__copy_strided(&m, x);
    }
    if (x->shape[2] <= 1) m.stride[2] = x->shape[3] > 0 ? x->shape[3] : 1;
    p->batch = m.stride[0] * size, p->head = m.stride[1] * size, p->row = m.stride[2] * size;
    return SP_OK;
}

/* Ends the part: a result goes to its place, unless x is NULL. */
static void part_end(part *p, const sp_operand *x)
{
    sp_operand m;
    int64_t step = 1;
    if (p->copy == NULL) return;
    if (x != NULL) {
        m = *x, m.data = p->copy, m.contiguous = true;
        for (int d = 3; d >= 0; d--) m.stride[d] = step, step *= x->shape[d];
        sp__copy_strided(x, &m);
    }
    sp__free(p->copy, p->bytes);
}

/* The mask with the shape of the scores, by strides of 0. */
static sp_operand spread(const sp_operand *mask, const int64_t *shape)
{
    sp_operand m = *mask;
    if (mask->data == NULL) return m;
    m.rank = 4;
    for (int d = 3, from = mask->rank - 1; d >= 0; d--, from--) {
        m.stride[d] = from >= 0 && mask->shape[from] != 1 ? mask->stride[from] : 0;
        m.shape[d] = shape[d];
    }
    return m;
}

static char *matrix_at(const part *p, int64_t batch, int64_t head, int64_t row)
{
    return p->data + batch * p->batch + head * p->head + row * p->row;
}

static sp_blas_matrix as_blas(const job *j, const part *p, const char *at, bool transposed)
{
    return (sp_blas_matrix){at, (int)(p->row / j->size), transposed};
}

static void job_sizes(job *j, const sp_operand *q, const sp_operand *k, const sp_operand *v)
{
    j->f = sp__isa->rows[q->dtype], j->dtype = q->dtype, j->size = sp__size_of(q->dtype);
    j->batches = q->shape[0], j->heads = q->shape[1], j->key_heads = k->shape[1];
    j->queries = q->shape[2], j->keys = k->shape[2], j->e = q->shape[3], j->ev = v->shape[3];
}

static sp_status check_sizes(const job *j, const char *op)
{
    if (j->e < INT_MAX / KEYS && j->ev < INT_MAX / KEYS) return SP_OK;
    return sp_fail(SP_EUNSUPPORTED, "%s: heads of more than %d numbers", op, INT_MAX / KEYS);
}

static double predict_us(const job *j, int products)
{
    double pairs = (double)(j->batches * j->heads) * (double)j->queries * (double)j->keys;
    return pairs * (j->causal ? 0.5 : 1) *
           ((double)products * (double)(j->e + j->ev) / (j->size == 4 ? 70e3 : 35e3) + 1e-3);
}

/* ---- a tile of scores ----- */

typedef struct tile { /* queries first .. first + n - 1 of a head, keys from .. from + m - 1 */
    int64_t batch, head, key_head, first, n, from, m;
    char *q;       /* n x e, times scale, dense */
    char *scores;  /* n x m, KEYS elements apart */
    char *product; /* room for the widest product that is added to another */
} tile;

static tile tile_of(const job *j, int64_t head, int64_t first)
{
    int64_t n = j->queries - first < QUERIES ? j->queries - first : QUERIES;
    tile t = {.batch = head / j->heads, .head = head % j->heads, .first = first, .n = n};
    t.key_head = t.head / (j->heads / j->key_heads);
    return t;
}

/* The keys that any of the tile's queries sees. */
static int64_t keys_seen(const job *j, const tile *t)
{
    int64_t end = t->first + t->n;
    return j->causal && end < j->keys ? end : j->keys;
}

static char *score_row(const job *j, const tile *t, int64_t i)
{
    return t->scores + i * KEYS * j->size;
}

static void scale_queries(const job *j, const tile *t)
{
    for (int64_t i = 0; i < t->n; i++)
        j->f->scale(t->q + i * j->e * j->size, matrix_at(&j->q, t->batch, t->head, t->first + i),
                    j->e, j->scale);
}

/* How many of the tile's keys query i sees. */
static int64_t keys_of_query(const job *j, const tile *t, int64_t i)
{
    int64_t seen = t->first + i + 1 - t->from;
    if (!j->causal || seen >= t->m) return t->m;
    return seen > 0 ? seen : 0;
}

static void add_mask(const job *j, const tile *t, int64_t i, char *row)
{
    char line[KEYS * 8];
    const sp_operand *m = &j->mask;
    int64_t size = sp__size_of(m->dtype);
    const char *at = m->data + (t->batch * m->stride[0] + t->head * m->stride[1] +
                                (t->first + i) * m->stride[2] + t->from * m->stride[3]) *
                                   size;
    if (m->stride[3] != 1) {
        sp__gather_run(line, at, size, t->m, m->stride[3]);
        at = line;
    }
    if (m->dtype == SP_BOOL)
        j->f->hide(row, at, t->m);
    else
        j->f->add(row, at, t->m);
}

/* scores = q k^T scale + mask; false: no memory */
static bool scores_of(const job *j, const tile *t)
{
    sp_blas_matrix q = {t->q, (int)j->e, false},
                   k = as_blas(j, &j->k, matrix_at(&j->k, t->batch, t->key_head, t->from), true);
    if (j->e == 0)
        memset(t->scores, 0, (size_t)(t->n * KEYS * j->size));
    else if (!sp__blas_gemm(j->dtype, (int)t->n, (int)t->m, (int)j->e, q, k, t->scores, KEYS))
        return false;
    for (int64_t i = 0; j->mask.data && i < t->n; i++) add_mask(j, t, i, score_row(j, t, i));
    return true;
}

/* to += x y, or to = x y for the first: n x k times k x m; `room` holds a product. */
static bool multiply(const job *j, int64_t n, int64_t m, int64_t k, sp_blas_matrix x,
                     sp_blas_matrix y, char *to, int64_t to_row, bool first, char *room)
{
    if (m == 0) return true;
    if (first) return sp__blas_gemm(j->dtype, (int)n, (int)m, (int)k, x, y, to, (int)to_row);
    if (!sp__blas_gemm(j->dtype, (int)n, (int)m, (int)k, x, y, room, (int)m)) return false;
    for (int64_t i = 0; i < n; i++) j->f->add(to + i * to_row * j->size, room + i * m * j->size, m);
    return true;
}

/* ---- forward ----- */

typedef struct running { /* of each query of a tile */
    double max[QUERIES], sum[QUERIES];
} running;

/* Scores become weights relative to the new maximum; what was summed up so far is scaled to it. */
static void weigh_row(const job *j, const tile *t, int64_t i, running *r, char *sums)
{
    int64_t seen = keys_of_query(j, t, i);
    char *row = score_row(j, t, i);
    double max = seen > 0 ? j->f->max(row, seen) : -INFINITY, old = r->max[i];
    memset(row + seen * j->size, 0, (size_t)((t->m - seen) * j->size));
    if (max <= old || (max == -INFINITY && old == -INFINITY)) max = old;
    if (max == -INFINITY) {
        memset(row, 0, (size_t)(seen * j->size));
        return;
    }
    double before = t->from == 0 ? 0 : exp(old - max);
    if (t->from > 0 && before != 1) j->f->scale(sums, sums, j->ev, before);
    r->sum[i] = r->sum[i] * before + (seen > 0 ? j->f->exps(row, row, seen, max) : 0);
    r->max[i] = max;
}

static void finish_row(const job *j, const tile *t, int64_t i, const running *r, const char *sums)
{
    int64_t query = t->first + i, at = (t->batch * j->heads + t->head) * j->queries + query;
    double sum = r->sum[i], lse = r->max[i] == -INFINITY ? -INFINITY : r->max[i] + log(sum);
    char *out = matrix_at(&j->out, t->batch, t->head, query);
    if (r->max[i] == -INFINITY)
        memset(out, 0, (size_t)(j->ev * j->size));
    else
        j->f->scale(out, sums, j->ev, 1 / sum);
    if (j->dtype == SP_FLOAT32)
        ((float *)(void *)j->out_lse)[at] = (float)lse;
    else
        ((double *)(void *)j->out_lse)[at] = lse;
}

/* The sums of a tile of queries over all keys; room: n x ev of sums, then tiles. */
static bool forward_tile(const job *j, tile *t, char *sums)
{
    running r;
    int64_t end = keys_seen(j, t);
    for (int64_t i = 0; i < t->n; i++) r.max[i] = -INFINITY, r.sum[i] = 0;
    scale_queries(j, t);
    for (t->from = 0; t->from < end; t->from += KEYS) {
        t->m = end - t->from < KEYS ? end - t->from : KEYS;
        if (!scores_of(j, t)) return false;
        for (int64_t i = 0; i < t->n; i++) weigh_row(j, t, i, &r, sums + i * j->ev * j->size);
        sp_blas_matrix weights = {t->scores, KEYS, false},
                       v = as_blas(j, &j->v, matrix_at(&j->v, t->batch, t->key_head, t->from),
                                   false);
        if (!multiply(j, t->n, j->ev, t->m, weights, v, sums, j->ev, t->from == 0, t->product))
            return false;
    }
    for (int64_t i = 0; i < t->n; i++) finish_row(j, t, i, &r, sums + i * j->ev * j->size);
    return true;
}

static int64_t query_tiles(const job *j)
{
    return (j->queries + QUERIES - 1) / QUERIES;
}

static void forward_chunk(void *ctx, int64_t chunk)
{
    job *j = ctx;
    int64_t tiles = query_tiles(j);
    size_t q = (size_t)(QUERIES * j->e * j->size), sums = (size_t)(QUERIES * j->ev * j->size),
           scores = (size_t)(QUERIES * KEYS * j->size), bytes = q + scores + 2 * sums;
    char *room = sp__alloc(bytes);
    tile t = tile_of(j, chunk / tiles, (tiles - 1 - chunk % tiles) * QUERIES);
    t.scores = room, t.q = room + scores, t.product = t.q + q;
    if (room == NULL || !forward_tile(j, &t, t.product + sums)) atomic_store(&j->failed, true);
    if (room != NULL) sp__free(room, bytes);
}

static sp_status end_of(const job *j, const char *op)
{
    return j->failed ? sp_fail(SP_EMEMORY, "%s: no memory to work in", op) : SP_OK;
}

/* outputs: out, logsumexp; inputs: q, k, v, mask; attributes: causal, scale */
sp_status sp__cpu_attention(const sp_kargs *args)
{
    const sp_operand *arg = args->arg;
    job j = {.causal = args->attr[SP_ATTENTION_CAUSAL].v.i != 0,
             .scale = args->attr[SP_ATTENTION_SCALE].v.f};
    sp_operand lse = arg[1];
    char *aside = NULL;
    size_t bytes = (size_t)(lse.numel * sp__size_of(lse.dtype));
    sp_status status = SP_OK;
    if (arg[1].numel == 0) return SP_OK;
    job_sizes(&j, &arg[2], &arg[3], &arg[4]);
    SP_TRY(check_sizes(&j, "attention"));
    SP_TRY(part_take(&arg[0], false, "attention", &j.out));
    SP_TRY(part_take(&arg[2], true, "attention", &j.q));
    SP_TRY(part_take(&arg[3], true, "attention", &j.k));
    SP_TRY(part_take(&arg[4], true, "attention", &j.v));
    const int64_t shape[4] = {j.batches, j.heads, j.queries, j.keys};
    j.mask = spread(&arg[5], shape);
    j.out_lse = lse.data;
    if (!sp__is_dense(&lse)) j.out_lse = aside = sp__alloc(bytes);
    if (j.out_lse == NULL) SP_TRY(sp_fail(SP_EMEMORY, "attention: no memory for %zu bytes", bytes));
    sp__blas_for(j.batches * j.heads * query_tiles(&j), predict_us(&j, 1), forward_chunk, &j);
    SP_TRY(end_of(&j, "attention"));
    if (aside) sp__scatter(&lse, aside, 0, lse.numel);
out:
    if (aside) sp__free(aside, bytes);
    part_end(&j.out, status == SP_OK ? &arg[0] : NULL);
    part_end(&j.q, NULL), part_end(&j.k, NULL), part_end(&j.v, NULL);
    return status;
}

/* ---- backward ----- */

typedef struct backward {
    tile t;
    char *dscores; /* n x m, KEYS elements apart */
    double delta[QUERIES], lse[QUERIES];
} backward;

static double number(const job *j, const char *p, int64_t i)
{
    return j->dtype == SP_FLOAT32 ? (double)((const float *)(const void *)p)[i]
                                  : ((const double *)(const void *)p)[i];
}

/* Each query's logsumexp, and the sum of grad y. */
static void take_queries(const job *j, backward *b)
{
    const tile *t = &b->t;
    int64_t at = (t->batch * j->heads + t->head) * j->queries + t->first;
    for (int64_t i = 0; i < t->n; i++) {
        double sum[2];
        j->f->sums(matrix_at(&j->grad, t->batch, t->head, t->first + i),
                   j->y + (at + i) * j->ev * j->size, j->ev, 0, sum);
        b->delta[i] = sum[1], b->lse[i] = number(j, j->lse, at + i);
    }
}

/* Scores become weights, and dscores what they get. */
static void weigh_again(const job *j, const backward *b, int64_t i)
{
    const tile *t = &b->t;
    int64_t seen = b->lse[i] == -INFINITY ? 0 : keys_of_query(j, t, i);
    char *row = score_row(j, t, i), *drow = b->dscores + i * KEYS * j->size;
    size_t rest = (size_t)((t->m - seen) * j->size);
    if (seen > 0) (void)j->f->exps(row, row, seen, b->lse[i]);
    if (seen > 0) j->f->softmax_back(drow, drow, row, seen, b->delta[i]);
    memset(row + seen * j->size, 0, rest), memset(drow + seen * j->size, 0, rest);
}

static bool backward_keys(const job *j, backward *b)
{
    tile *t = &b->t;
    char *gk = matrix_at(&j->gk, t->batch, t->key_head, t->from),
         *gv = matrix_at(&j->gv, t->batch, t->key_head, t->from),
         *gq = matrix_at(&j->gq, t->batch, t->head, t->first),
         *grad_at = matrix_at(&j->grad, t->batch, t->head, t->first);
    sp_blas_matrix grad = as_blas(j, &j->grad, grad_at, false), q = {t->q, (int)j->e, false},
                   k = as_blas(j, &j->k, matrix_at(&j->k, t->batch, t->key_head, t->from), false),
                   vt = as_blas(j, &j->v, matrix_at(&j->v, t->batch, t->key_head, t->from), true),
                   weights = {t->scores, KEYS, true}, ds = {b->dscores, KEYS, false},
                   dst = {b->dscores, KEYS, true};
    if (!scores_of(j, t)) return false;
    if (j->ev == 0)
        memset(b->dscores, 0, (size_t)(t->n * KEYS * j->size));
    else if (!sp__blas_gemm(j->dtype, (int)t->n, (int)t->m, (int)j->ev, grad, vt, b->dscores, KEYS))
        return false;
    for (int64_t i = 0; i < t->n; i++) weigh_again(j, b, i);
    return multiply(j, t->n, j->e, t->m, ds, k, gq, j->gq.row / j->size, t->from == 0,
                    t->product) &&
           multiply(j, t->m, j->e, t->n, dst, q, gk, j->gk.row / j->size, false, t->product) &&
           multiply(j, t->m, j->ev, t->n, weights, grad, gv, j->gv.row / j->size, false,
                    t->product);
}

static void scale_gradient(const job *j, const tile *t)
{
    for (int64_t i = 0; i < t->n; i++) {
        char *row = matrix_at(&j->gq, t->batch, t->head, t->first + i);
        if (j->keys == 0)
            memset(row, 0, (size_t)(j->e * j->size));
        else
            j->f->scale(row, row, j->e, j->scale);
    }
}

static bool backward_head(const job *j, backward *b, int64_t head)
{
    tile room = b->t;
    for (int64_t first = 0; first < j->queries; first += QUERIES) {
        b->t = tile_of(j, head, first);
        b->t.scores = room.scores, b->t.q = room.q, b->t.product = room.product;
        int64_t end = keys_seen(j, &b->t);
        scale_queries(j, &b->t);
        take_queries(j, b);
        for (b->t.from = 0; b->t.from < end; b->t.from += KEYS) {
            b->t.m = end - b->t.from < KEYS ? end - b->t.from : KEYS;
            if (!backward_keys(j, b)) return false;
        }
        scale_gradient(j, &b->t);
    }
    return true;
}

/* One head of keys, and the heads of queries that it serves. */
static void backward_chunk(void *ctx, int64_t chunk)
{
    job *j = ctx;
    int64_t batch = chunk / j->key_heads, key_head = chunk % j->key_heads,
            serves = j->heads / j->key_heads, widest = j->e > j->ev ? j->e : j->ev;
    size_t scores = (size_t)(QUERIES * KEYS * j->size), q = (size_t)(QUERIES * j->e * j->size),
           bytes = 2 * scores + q + (size_t)(KEYS * widest * j->size);
    char *room = sp__alloc(bytes);
    backward b = {.dscores = room};
    if (room == NULL) {
        atomic_store(&j->failed, true);
        return;
    }
    b.t.scores = room + scores, b.t.q = room + 2 * scores, b.t.product = b.t.q + q;
    for (int64_t i = 0; i < j->keys; i++) {
        memset(matrix_at(&j->gk, batch, key_head, i), 0, (size_t)(j->e * j->size));
        memset(matrix_at(&j->gv, batch, key_head, i), 0, (size_t)(j->ev * j->size));
    }
    for (int64_t h = key_head * serves; h < (key_head + 1) * serves; h++)
        if (!backward_head(j, &b, batch * j->heads + h)) atomic_store(&j->failed, true);
    sp__free(room, bytes);
}

/* y and logsumexp, dense. */
static sp_status dense_copy(const sp_operand *x, const char **data, char **copy, size_t *bytes)
{
    *data = x->data, *copy = NULL, *bytes = 0;
    if (sp__is_dense(x)) return SP_OK;
    *bytes = (size_t)(x->numel * sp__size_of(x->dtype));
    *data = *copy = sp__alloc(*bytes);
    if (*copy == NULL)
        return sp_fail(SP_EMEMORY, "attention_backward: no memory for %zu bytes of a copy", *bytes);
    sp__gather(*copy, x, 0, x->numel);
    return SP_OK;
}

/* outputs: of q, k, v; inputs: grad, q, k, v, y, logsumexp, mask; attributes: causal, scale */
sp_status sp__cpu_attention_backward(const sp_kargs *args)
{
    static const char op[] = "attention_backward";
    const sp_operand *arg = args->arg;
    job j = {.causal = args->attr[SP_ATTENTION_BACKWARD_CAUSAL].v.i != 0,
             .scale = args->attr[SP_ATTENTION_BACKWARD_SCALE].v.f};
    part *parts[] = {&j.gq, &j.gk, &j.gv, &j.grad, &j.q, &j.k, &j.v};
    enum { PARTS = sizeof parts / sizeof *parts };
    char *y = NULL, *lse = NULL;
    size_t y_bytes = 0, lse_bytes = 0;
    sp_status status = SP_OK;
    job_sizes(&j, &arg[4], &arg[5], &arg[6]);
    SP_TRY(check_sizes(&j, op));
    for (int i = 0; i < PARTS; i++) SP_TRY(part_take(&arg[i], i >= 3, op, parts[i]));
    SP_TRY(dense_copy(&arg[7], &j.y, &y, &y_bytes));
    SP_TRY(dense_copy(&arg[8], &j.lse, &lse, &lse_bytes));
    const int64_t shape[4] = {j.batches, j.heads, j.queries, j.keys};
    j.mask = spread(&arg[9], shape);
    sp__blas_for(j.batches * j.key_heads, predict_us(&j, 3), backward_chunk, &j);
    SP_TRY(end_of(&j, op));
out:
    for (int i = 0; i < PARTS; i++) part_end(parts[i], status == SP_OK && i < 3 ? &arg[i] : NULL);
    if (y) sp__free(y, y_bytes);
    if (lse) sp__free(lse, lse_bytes);
    return status;
}
