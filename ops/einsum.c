/* sp_einsum(): sums of products, said by letters.
 *
 * Every operand is brought to one form: letters, each once, and a tensor with one dimension for
 * each. Then operands are joined two at a time until one is left: of all pairs that with the
 * smallest result, the first of several. A join is one matmul of batches:
 *
 *     (both and needed later, left alone, both and not needed) @ (.., not needed, right alone)
 *
 * What an operand has alone and nobody needs is summed before. Letters of size 1 that are larger
 * elsewhere are dropped, which broadcasts them.
 */
#include <stdio.h>
#include <string.h>

#include "ops/infer.h"
#include "ops_gen.h"
#include "tensor/memory.h"

enum {
    LETTERS = 52,
    IDS = LETTERS + SP_MAX_RANK /* the dimensions that ... stands for, the last one first */
};

typedef struct term {
    sp_tensor *t; /* owned */
    int rank;
    int8_t id[SP_MAX_RANK];
} term;

typedef struct einsum {
    const char *equation;
    int n, n_out, open; /* open: the most dimensions that ... stands for */
    term *terms;
    int8_t out[IDS];
    int64_t size[IDS]; /* -1: not seen */
} einsum;

typedef uint64_t ids; /* a set of letters */

static sp_status broken(const einsum *e, const char *what)
{
    return sp_fail(SP_EVALUE, "einsum: '%s': %s; expected something like 'ij,jk->ik'", e->equation,
                   what);
}

/* ---- reading ----- */

/* By alphabet, capitals first. */
static int id_of(char letter)
{
    if (letter >= 'A' && letter <= 'Z') return letter - 'A';
    if (letter >= 'a' && letter <= 'z') return 26 + letter - 'a';
    return -1;
}

typedef struct subscript { /* one operand's, or the result's */
    int8_t id[2 * SP_MAX_RANK];
    int n, dots; /* dots: where ... stands, -1: nowhere */
} subscript;

static sp_status read_subscript(const einsum *e, const char **at, subscript *s)
{
    s->n = 0, s->dots = -1;
    for (; **at && **at != ',' && strncmp(*at, "->", 2) != 0; ++*at) {
        if (**at == ' ') continue;
        if (strncmp(*at, "...", 3) == 0 && s->dots < 0) {
            s->dots = s->n, *at += 2;
        } else if (id_of(**at) >= 0 && s->n < 2 * SP_MAX_RANK) {
            s->id[s->n++] = (int8_t)id_of(**at);
        } else {
            return broken(e, "not a letter, ..., a comma or ->");
        }
    }
    return SP_OK;
}

/* The size of a letter, 1 giving way to others. */
static sp_status meet(einsum *e, int id, int64_t size, int operand)
{
    if (e->size[id] < 0 || e->size[id] == 1) e->size[id] = size;
    if (size == e->size[id] || size == 1) return SP_OK;
    char name[2] = {(char)(id < 26 ? 'A' + id : 'a' + id - 26), 0};
    return sp_fail(SP_ESHAPE, "einsum: '%s': operand %d has size %lld for %s, another one %lld",
                   e->equation, operand, (long long)size, id < LETTERS ? name : "...",
                   (long long)e->size[id]);
}

/* The letters of x's dimensions, where one may stand twice. */
static sp_status label(einsum *e, const subscript *s, const sp_tensor *x, int operand, int8_t *id)
{
    int open = x->rank - s->n, at = 0;
    if (open < 0 || (open > 0 && s->dots < 0))
        return sp_fail(SP_ESHAPE, "einsum: '%s': operand %d of shape %s has %d letters",
                       e->equation, operand, SP_SHAPE(x), s->n);
    if (open > e->open) e->open = open;
    for (int i = 0; i <= s->n; i++) {
        for (int k = 0; i == s->dots && k < open; k++) id[at++] = (int8_t)(IDS - open + k);
        if (i < s->n) id[at++] = s->id[i];
    }
    for (int d = 0; d < x->rank; d++) SP_RETURN_IF(meet(e, id[d], x->shape[d], operand));
    return SP_OK;
}

/* Without ->: what ... stands for, then the letters that stand once, by alphabet. */
static void implied_output(einsum *e, const int *uses)
{
    e->n_out = 0;
    for (int k = e->open; k > 0; k--) e->out[e->n_out++] = (int8_t)(IDS - k);
    for (int id = 0; id < LETTERS; id++)
        if (uses[id] == 1) e->out[e->n_out++] = (int8_t)id;
}

static sp_status given_output(einsum *e, const char *at)
{
    subscript s;
    ids seen = 0;
    SP_RETURN_IF(read_subscript(e, &at, &s));
    if (*at) return broken(e, "more than one result");
    e->n_out = 0;
    for (int i = 0; i <= s.n; i++) {
        for (int k = e->open; i == s.dots && k > 0; k--) e->out[e->n_out++] = (int8_t)(IDS - k);
        if (i == s.n) break;
        if (e->size[s.id[i]] < 0) return broken(e, "a letter of the result stands in no operand");
        if (seen >> s.id[i] & 1) return broken(e, "a letter stands twice in the result");
        seen |= UINT64_C(1) << s.id[i], e->out[e->n_out++] = s.id[i];
    }
    return SP_OK;
}

/* ---- one form ----- */

/* The letter of dimension a stands again at b: the diagonal of both, at the end. */
static sp_status take_diagonal(term *t, int a, int b)
{
    const sp_diagonal_opt opt = {.size = sizeof opt, .dim1 = a, .has_dim2 = true, .dim2 = b};
    sp_tensor *line = NULL;
    int8_t id = t->id[a];
    int at = 0;
    SP_RETURN_IF(sp_diagonal(t->t, &opt, &line));
    sp_drop(&t->t);
    t->t = line;
    for (int d = 0; d < t->rank; d++)
        if (d != a && d != b) t->id[at++] = t->id[d];
    t->id[at++] = id;
    t->rank = at;
    return SP_OK;
}

static sp_status diagonals(const einsum *e, term *t)
{
    for (int a = 0; a < t->rank; a++) {
        for (int b = a + 1; b < t->rank; b++) {
            if (t->id[a] != t->id[b]) continue;
            if (t->t->shape[a] != t->t->shape[b])
                return sp_fail(SP_ESHAPE,
                               "einsum: '%s': a letter stands for dimensions %d and %d of an "
                               "operand, of sizes %lld and %lld",
                               e->equation, a, b, (long long)t->t->shape[a],
                               (long long)t->t->shape[b]);
            SP_RETURN_IF(take_diagonal(t, a, b));
            a = -1;
            break;
        }
    }
    return SP_OK;
}

/* Without the dimensions that `leave` names: they are of size 1, or summed. */
static sp_status without(term *t, ids leave, bool sum)
{
    int64_t dims[SP_MAX_RANK];
    int n = 0, rank = 0;
    sp_tensor *left = NULL;
    for (int d = 0; d < t->rank; d++)
        if (leave >> t->id[d] & 1) dims[n++] = d;
    if (n == 0) return SP_OK;
    if (sum)
        SP_RETURN_IF(sp_sum(
            t->t, &(sp_sum_opt){.size = sizeof(sp_sum_opt), .dim = dims, .n_dim = n}, &left));
    else
        SP_RETURN_IF(sp_squeeze(
            t->t, &(sp_squeeze_opt){.size = sizeof(sp_squeeze_opt), .dim = dims, .n_dim = n},
            &left));
    sp_drop(&t->t);
    t->t = left;
    for (int d = 0; d < t->rank; d++)
        if (!(leave >> t->id[d] & 1)) t->id[rank++] = t->id[d];
    t->rank = rank;
    return SP_OK;
}

static ids ids_of(const term *t)
{
    ids set = 0;
    for (int d = 0; d < t->rank; d++) set |= UINT64_C(1) << t->id[d];
    return set;
}

static sp_status drop_ones(const einsum *e, term *t)
{
    ids ones = 0;
    for (int d = 0; d < t->rank; d++)
        if (t->t->shape[d] == 1 && e->size[t->id[d]] != 1) ones |= UINT64_C(1) << t->id[d];
    return without(t, ones, false);
}

/* ---- joining ----- */

/* The letters that the result or terms other than a and b have. */
static ids needed(const einsum *e, int a, int b)
{
    ids set = 0;
    for (int i = 0; i < e->n_out; i++) set |= UINT64_C(1) << e->out[i];
    for (int i = 0; i < e->n; i++)
        if (i != a && i != b) set |= ids_of(&e->terms[i]);
    return set;
}

static double size_of(const einsum *e, ids set)
{
    double size = 1;
    for (int i = 0; i < IDS; i++)
        if (set >> i & 1) size *= (double)e->size[i];
    return size;
}

static void cheapest(const einsum *e, int *a, int *b)
{
    double best = -1;
    for (int i = 0; i < e->n; i++) {
        for (int j = i + 1; j < e->n; j++) {
            ids both = ids_of(&e->terms[i]) | ids_of(&e->terms[j]);
            double size = size_of(e, both & needed(e, i, j));
            if (best >= 0 && size >= best) continue;
            best = size, *a = i, *b = j;
        }
    }
}

/* t's dimensions in groups; each group made one dimension, the leading ones kept apart. */
static sp_status grouped(const term *t, const ids *group, sp_tensor **out)
{
    int64_t order[SP_MAX_RANK], shape[SP_MAX_RANK];
    int at = 0, rank = 0;
    sp_tensor *turned = NULL;
    for (int g = 0; g < 3; g++) {
        int64_t size = 1;
        for (int id = 0; id < IDS; id++) {
            for (int d = 0; d < t->rank && group[g] >> id & 1; d++) {
                if (t->id[d] != id) continue;
                order[at++] = d, size *= t->t->shape[d];
                if (g == 0) shape[rank++] = t->t->shape[d];
            }
        }
        if (g > 0) shape[rank++] = size;
        if (rank > SP_MAX_RANK - 2 + g)
            return sp_fail(SP_ESHAPE, "einsum: more than %d dimensions are needed on the way",
                           SP_MAX_RANK);
    }
    SP_RETURN_IF(sp_permute(t->t, order, at, &turned));
    sp_status status = sp_reshape(turned, shape, rank, out);
    sp_drop(&turned);
    return status;
}

/* The letters of a set behind those that `to` has. */
static sp_status append(const einsum *e, term *to, ids set, int64_t *shape)
{
    for (int id = 0; id < IDS; id++) {
        if (!(set >> id & 1)) continue;
        if (to->rank == SP_MAX_RANK)
            return sp_fail(SP_ESHAPE, "einsum: '%s': more than %d dimensions are needed on the way",
                           e->equation, SP_MAX_RANK);
        shape[to->rank] = e->size[id], to->id[to->rank++] = (int8_t)id;
    }
    return SP_OK;
}

/* a and b joined; both are left as they are. */
static sp_status join(const einsum *e, const term *a, const term *b, ids later, term *out)
{
    ids in_a = ids_of(a), in_b = ids_of(b), both = in_a & in_b, batch = both & later,
        summed = both & ~later;
    const ids left[3] = {batch, in_a & ~both, summed}, right[3] = {batch, summed, in_b & ~both};
    int64_t shape[SP_MAX_RANK];
    sp_tensor *x = NULL, *y = NULL, *xy = NULL;
    sp_status status = SP_OK;
    *out = (term){0};
    for (int g = 0; g < 2; g++) SP_TRY(append(e, out, left[g], shape));
    SP_TRY(append(e, out, right[2], shape));
    SP_TRY(grouped(a, left, &x));
    SP_TRY(grouped(b, right, &y));
    SP_TRY((summed ? sp_matmul : sp_mul)(x, y, &xy)); /* (.., m, 1) * (.., 1, n) */
    SP_TRY(sp_reshape(xy, shape, out->rank, &out->t));
out:
    sp_drop(&x), sp_drop(&y), sp_drop(&xy);
    return status;
}

static sp_status join_pair(einsum *e, int a, int b)
{
    term *x = &e->terms[a], *y = &e->terms[b], joined;
    ids later = needed(e, a, b);
    SP_RETURN_IF(without(x, ids_of(x) & ~ids_of(y) & ~later, true));
    SP_RETURN_IF(without(y, ids_of(y) & ~ids_of(x) & ~later, true));
    SP_RETURN_IF(join(e, x, y, later, &joined));
    sp_drop(&x->t), sp_drop(&y->t);
    *x = joined;
    *y = e->terms[--e->n];
    e->terms[e->n].t = NULL;
    return SP_OK;
}

/* The last term's dimensions in the order of the result. */
static sp_status finish(einsum *e, sp_tensor **out)
{
    int64_t order[SP_MAX_RANK];
    term *t = &e->terms[0];
    SP_RETURN_IF(without(t, ids_of(t) & ~needed(e, 0, 0), true));
    for (int i = 0; i < e->n_out; i++)
        for (int d = 0; d < t->rank; d++)
            if (t->id[d] == e->out[i]) order[i] = d;
    return sp_permute(t->t, order, e->n_out, out);
}

/* ---- all ----- */

static sp_status read_operands(einsum *e, const sp_tensor *const *xs, const char **at, int *uses)
{
    for (int i = 0; i < e->n; i++) {
        subscript s;
        SP_RETURN_IF(read_subscript(e, at, &s));
        if ((**at == ',') != (i + 1 < e->n))
            return sp_fail(SP_EVALUE, "einsum: '%s' for %d operand%s, expected one part each",
                           e->equation, e->n, e->n == 1 ? "" : "s");
        *at += **at == ',';
        e->terms[i].t = sp__retain(xs[i]), e->terms[i].rank = xs[i]->rank;
        SP_RETURN_IF(label(e, &s, xs[i], i, e->terms[i].id));
        for (int k = 0; k < s.n; k++) uses[s.id[k]]++;
    }
    return SP_OK;
}

static sp_status run(einsum *e, const sp_tensor *const *xs, sp_tensor **out)
{
    const char *at = e->equation;
    int uses[IDS] = {0}, a = 0, b = 0;
    SP_RETURN_IF(read_operands(e, xs, &at, uses));
    if (strncmp(at, "->", 2) == 0)
        SP_RETURN_IF(given_output(e, at + 2));
    else
        implied_output(e, uses);
    if (e->n_out > SP_MAX_RANK) return broken(e, "the result has too many dimensions");
    for (int i = 0; i < e->n; i++) {
        SP_RETURN_IF(diagonals(e, &e->terms[i]));
        SP_RETURN_IF(drop_ones(e, &e->terms[i]));
    }
    while (e->n > 1) {
        cheapest(e, &a, &b);
        SP_RETURN_IF(join_pair(e, a, b));
    }
    return finish(e, out);
}

sp_status sp_einsum(const char *equation, const sp_tensor *const *xs, int n, sp_tensor **out)
{
    einsum e = {.equation = equation, .n = n};
    size_t bytes = (size_t)n * sizeof *e.terms;
    *out = NULL;
    if (n < 1) return broken(&e, "there is no operand");
    for (int i = 0; i < IDS; i++) e.size[i] = -1;
    e.terms = sp__alloc_zero(bytes);
    if (!e.terms) return sp_fail(SP_EMEMORY, "einsum: no memory for its operands");
    sp_status status = run(&e, xs, out);
    for (int i = 0; i < n; i++) sp_drop(&e.terms[i].t);
    sp__free(e.terms, bytes);
    return status;
}
