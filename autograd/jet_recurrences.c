/* Recurrences between Taylor coefficients, of cost order^2: y from x, from the differential
 * equation that the op solves.
 *
 * Sources: Griewank, Walther: Evaluating Derivatives (2008), table 13.2; Knuth, TAOCP 2, 4.7.
 */
#include <math.h>
#include <string.h>

#include "autograd/forward_int.h"

enum { TERMS = SP_JET_MAX + 1 };

typedef struct terms { /* coefficients from the value on; NULL: zero; owned */
    sp_tensor *c[TERMS];
} terms;

static void terms_drop(terms *s, int order)
{
    for (int k = 0; k <= order; k++) sp_drop(&s->c[k]);
}

static const sp_tensor *x_at(const sp_forward *f, int i, int k)
{
    return k ? f->t[(k - 1) * f->c->n_in + i] : f->in[i];
}

static const sp_tensor *y_at(const sp_forward *f, int k)
{
    return k ? f->ty[k - 1] : f->out[0];
}

/* ---- sums of products ----- */

/* *sum takes next's place. */
static void become(sp_tensor **sum, sp_tensor *next)
{
    sp_drop(sum);
    *sum = next;
}

static sp_status add_product(sp_tensor **sum, const sp_tensor *a, const sp_tensor *b)
{
    sp_tensor *next;
    if (!a || !b) return SP_OK;
    if (!*sum) return sp_mul(a, b, sum);
    SP_RETURN_IF(sp_addcmul(*sum, a, b, &next));
    become(sum, next);
    return SP_OK;
}

static sp_status add(sp_tensor **sum, const sp_tensor *a)
{
    sp_tensor *next;
    if (!a) return SP_OK;
    if (!*sum) {
        *sum = sp__retain(a);
        return SP_OK;
    }
    SP_RETURN_IF(sp_add(*sum, a, &next));
    become(sum, next);
    return SP_OK;
}

static sp_status scale(sp_tensor **t, double by)
{
    sp_tensor *next;
    if (!*t || by == 1) return SP_OK;
    SP_RETURN_IF(by == -1 ? sp_neg(*t, &next) : sp_mul_scalar(*t, SP_FLOAT(by), &next));
    become(t, next);
    return SP_OK;
}

static sp_status divide(sp_tensor **t, int by)
{
    sp_tensor *next;
    if (!*t || by == 1) return SP_OK;
    SP_RETURN_IF(sp_div_scalar(*t, SP_FLOAT(by), &next));
    become(t, next);
    return SP_OK;
}

static sp_status divide_by(sp_tensor **t, const sp_tensor *by)
{
    sp_tensor *next;
    if (!*t) return SP_OK;
    SP_RETURN_IF(sp_div(*t, by, &next));
    become(t, next);
    return SP_OK;
}

/* The sum of a[j] a[k - j]: pairs count twice. */
static sp_status square_term(sp_tensor *const *a, int k, sp_tensor **sum)
{
    for (int j = 0; 2 * j < k; j++) SP_RETURN_IF(add_product(sum, a[j], a[k - j]));
    SP_RETURN_IF(scale(sum, 2));
    return k % 2 ? SP_OK : add_product(sum, a[k / 2], a[k / 2]);
}

static sp_status product_term(sp_tensor *const *a, sp_tensor *const *b, int k, sp_tensor **sum)
{
    if (a == b) return square_term(a, k, sum);
    for (int j = 0; j <= k; j++) SP_RETURN_IF(add_product(sum, a[j], b[k - j]));
    return SP_OK;
}

/* j times coefficient j of input 0. */
static sp_status speeds(const sp_forward *f, terms *dx)
{
    memset(dx, 0, sizeof *dx);
    for (int j = 1; j <= f->order; j++) {
        const sp_tensor *x = x_at(f, 0, j);
        if (x) dx->c[j] = sp__retain(x);
        SP_RETURN_IF(scale(&dx->c[j], j));
    }
    return SP_OK;
}

/* Coefficient k of y, where y' = w x'. */
static sp_status integral_term(const terms *dx, sp_tensor *const *w, int k, sp_tensor **out)
{
    for (int j = 1; j <= k; j++) SP_RETURN_IF(add_product(out, dx->c[j], w[k - j]));
    return divide(out, k);
}

/* ---- products ----- */

static void borrow(const sp_forward *f, int i, sp_tensor **out)
{
    for (int k = 0; k <= f->order; k++) out[k] = (sp_tensor *)x_at(f, i, k);
}

static sp_status multiply(sp_forward *f)
{
    sp_tensor *a[TERMS], *b[TERMS];
    borrow(f, 0, a);
    borrow(f, 1, b);
    for (int k = 1; k <= f->order; k++) SP_RETURN_IF(product_term(a, b, k, &f->ty[k - 1]));
    return SP_OK;
}

static sp_status square(sp_forward *f)
{
    sp_tensor *a[TERMS];
    borrow(f, 0, a);
    for (int k = 1; k <= f->order; k++) SP_RETURN_IF(square_term(a, k, &f->ty[k - 1]));
    return SP_OK;
}

/* r = a b */
static sp_status multiply_all(sp_tensor *const *a, sp_tensor *const *b, int order, terms *r)
{
    memset(r, 0, sizeof *r);
    for (int k = 0; k <= order; k++) SP_RETURN_IF(product_term(a, b, k, &r->c[k]));
    return SP_OK;
}

enum { MOST_EXPONENT = 64 };

/* The whole exponent of pow.scalar; 0: it is none, or not one for repeated squaring. */
static int whole_exponent(const sp_forward *f)
{
    const sp_attr *a = &f->c->attr[SP_POW_SCALAR_EXPONENT];
    double e = a->tag == SP_FLOAT64 ? a->v.f : (double)a->v.i;
    return e >= 2 && e <= MOST_EXPONENT && e == floor(e) ? (int)e : 0;
}

/* x^e by squaring and multiplying, from the highest bit of e down: where x is 0, too. */
static sp_status whole_power(sp_forward *f)
{
    int e = whole_exponent(f), bit = 1;
    sp_tensor *x[TERMS];
    terms power, next;
    sp_status status = SP_OK;
    borrow(f, 0, x);
    memset(&power, 0, sizeof power);
    memset(&next, 0, sizeof next);
    for (int k = 0; k <= f->order; k++) power.c[k] = x[k] ? sp__retain(x[k]) : NULL;
    while (2 * bit <= e) bit *= 2;
    for (bit /= 2; bit; bit /= 2) {
        SP_TRY(multiply_all(power.c, power.c, f->order, &next));
        terms_drop(&power, f->order);
        power = next;
        memset(&next, 0, sizeof next);
        if (!(e & bit)) continue;
        SP_TRY(multiply_all(power.c, x, f->order, &next));
        terms_drop(&power, f->order);
        power = next;
        memset(&next, 0, sizeof next);
    }
    for (int k = 1; k <= f->order; k++) f->ty[k - 1] = power.c[k], power.c[k] = NULL;
out:
    terms_drop(&power, f->order);
    terms_drop(&next, f->order);
    return status;
}

/* The two inputs that move. */
static void both(const sp_forward *f, int *p, int *q)
{
    *p = *q = 0;
    while (!(f->moving >> *p & 1)) ++*p;
    for (*q = *p + 1; !(f->moving >> *q & 1);) ++*q;
}

sp_status sp__jet_product(sp_forward *f)
{
    enum { MOST = 8 };
    int p, q;
    sp_tensor *in[MOST];
    both(f, &p, &q);
    for (int i = 0; i < f->c->n_in; i++) in[i] = f->in[i];
    for (int k = 1; k <= f->order; k++) {
        for (int j = 0; j <= k; j++) {
            sp_call part = *f->c;
            part.in = in, part.flags = 0;
            in[p] = (sp_tensor *)x_at(f, p, j), in[q] = (sp_tensor *)x_at(f, q, k - j);
            if (!in[p] || !in[q]) continue;
            SP_RETURN_IF(sp__dispatch(&part));
            sp_status status = add(&f->ty[k - 1], part.out[0]);
            sp_drop(&part.out[0]);
            SP_RETURN_IF(status);
        }
    }
    return SP_OK;
}

/* ---- quotients and roots ----- */

/* y = u / v, where u is input `over` (-1: a number): v y = u. */
static sp_status quotient(sp_forward *f, int over, int under)
{
    for (int k = 1; k <= f->order; k++) {
        sp_tensor **y = &f->ty[k - 1];
        for (int j = 1; j <= k; j++)
            SP_RETURN_IF(add_product(y, x_at(f, under, j), y_at(f, k - j)));
        SP_RETURN_IF(scale(y, -1));
        if (over >= 0) SP_RETURN_IF(add(y, x_at(f, over, k)));
        SP_RETURN_IF(divide_by(y, f->in[under]));
    }
    return SP_OK;
}

static sp_status divide_tensors(sp_forward *f)
{
    return quotient(f, 0, 1);
}

static sp_status divide_number(sp_forward *f)
{
    return quotient(f, -1, 0);
}

/* s with s[0] given and s s = x. */
static sp_status roots(const sp_forward *f, sp_tensor **s)
{
    sp_tensor *twice = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_mul_scalar(s[0], SP_FLOAT(2), &twice));
    for (int k = 1; k <= f->order; k++) {
        for (int j = 1; 2 * j < k; j++) SP_TRY(add_product(&s[k], s[j], s[k - j]));
        SP_TRY(scale(&s[k], 2));
        if (k % 2 == 0) SP_TRY(add_product(&s[k], s[k / 2], s[k / 2]));
        SP_TRY(scale(&s[k], -1));
        SP_TRY(add(&s[k], x_at(f, 0, k)));
        SP_TRY(divide_by(&s[k], twice));
    }
out:
    sp_drop(&twice);
    return status;
}

static sp_status square_root(sp_forward *f)
{
    terms s = {{sp__retain(f->out[0])}};
    sp_status status = roots(f, s.c);
    for (int k = 1; k <= f->order; k++) f->ty[k - 1] = s.c[k];
    sp_drop(&s.c[0]);
    return status;
}

/* 1 / s, where s s = x */
static sp_status inverse_root(sp_forward *f)
{
    terms s = {{NULL}};
    sp_status status = SP_OK;
    SP_TRY(sp_sqrt(f->in[0], &s.c[0]));
    SP_TRY(roots(f, s.c));
    for (int k = 1; k <= f->order; k++) {
        sp_tensor **y = &f->ty[k - 1], *next;
        for (int j = 1; j <= k; j++) SP_TRY(add_product(y, s.c[j], y_at(f, k - j)));
        SP_TRY(scale(y, -1));
        if (!*y) continue;
        SP_TRY(sp_mul(*y, f->out[0], &next));
        become(y, next);
    }
out:
    terms_drop(&s, f->order);
    return status;
}

/* ---- y' = (a + b y + c y^2) x' ----- */

typedef struct riccati {
    double a, b, c;
} riccati;

/* Coefficient k of a + b y + c y^2. */
static sp_status riccati_term(riccati of, sp_tensor *const *y, int k, sp_tensor **out)
{
    sp_tensor *linear = NULL, *next;
    sp_status status = SP_OK;
    if (of.c != 0) SP_TRY(square_term(y, k, out));
    SP_TRY(scale(out, of.c));
    if (of.b != 0 && y[k]) linear = sp__retain(y[k]);
    SP_TRY(scale(&linear, of.b));
    SP_TRY(add(out, linear));
    if (k == 0 && of.a != 0) {
        SP_TRY(sp_add_scalar(*out, SP_FLOAT(of.a), &next));
        become(out, next);
    }
out:
    sp_drop(&linear);
    return status;
}

static sp_status solve_riccati(sp_forward *f, riccati of)
{
    sp_tensor *y[TERMS] = {f->out[0]};
    terms dx, w = {{NULL}};
    sp_status status = SP_OK;
    SP_TRY(speeds(f, &dx));
    for (int k = 1; k <= f->order; k++) {
        SP_TRY(riccati_term(of, y, k - 1, &w.c[k - 1]));
        SP_TRY(integral_term(&dx, w.c, k, &f->ty[k - 1]));
        y[k] = f->ty[k - 1];
    }
out:
    terms_drop(&dx, f->order);
    terms_drop(&w, f->order);
    return status;
}

static sp_status exponential(sp_forward *f)
{
    return solve_riccati(f, (riccati){.b = 1});
}

static sp_status exponential_of_two(sp_forward *f)
{
    return solve_riccati(f, (riccati){.b = 0.69314718055994530942});
}

static sp_status exponential_less_one(sp_forward *f)
{
    return solve_riccati(f, (riccati){.a = 1, .b = 1});
}

static sp_status tangent(sp_forward *f)
{
    return solve_riccati(f, (riccati){.a = 1, .c = 1});
}

static sp_status hyperbolic_tangent(sp_forward *f)
{
    return solve_riccati(f, (riccati){.a = 1, .c = -1});
}

static sp_status logistic(sp_forward *f)
{
    return solve_riccati(f, (riccati){.b = 1, .c = -1});
}

/* ---- y' = p z x', z' = q y x' ----- */

static sp_status pair(sp_forward *f, sp_status (*partner)(const sp_tensor *, sp_tensor **),
                      double p, double q)
{
    sp_tensor *y[TERMS] = {f->out[0]};
    terms dx, z = {{NULL}};
    sp_status status = SP_OK;
    SP_TRY(speeds(f, &dx));
    SP_TRY(partner(f->in[0], &z.c[0]));
    for (int k = 1; k <= f->order; k++) {
        SP_TRY(integral_term(&dx, z.c, k, &f->ty[k - 1]));
        SP_TRY(scale(&f->ty[k - 1], p));
        if (k < f->order) SP_TRY(integral_term(&dx, y, k, &z.c[k]));
        SP_TRY(scale(&z.c[k], q));
        y[k] = f->ty[k - 1];
    }
out:
    terms_drop(&dx, f->order);
    terms_drop(&z, f->order);
    return status;
}

static sp_status sine(sp_forward *f)
{
    return pair(f, sp_cos, 1, -1);
}

static sp_status cosine(sp_forward *f)
{
    return pair(f, sp_sin, -1, 1);
}

static sp_status hyperbolic_sine(sp_forward *f)
{
    return pair(f, sp_cosh, 1, 1);
}

static sp_status hyperbolic_cosine(sp_forward *f)
{
    return pair(f, sp_sinh, 1, 1);
}

/* ---- which ----- */

/* Exactly two inputs move, and the op is linear in each of them. */
static bool is_product(const sp_forward *f)
{
    const sp_op_info *info = &sp_op_table[f->c->op];
    uint64_t others = f->moving & (f->moving - 1);
    return (info->flags & SP_OPF_LINEAR) && info->n_in > 0 && info->n_out == 1 && others &&
           !(others & (others - 1)) && !(f->moving & ~(uint64_t)info->linear_mask);
}

sp_recurrence sp__jet_recurrence_of(const sp_forward *f)
{
    switch (f->c->op) {
    case SP_OP_MUL: return multiply;
    case SP_OP_SQUARE: return square;
    case SP_OP_POW_SCALAR: return whole_exponent(f) ? whole_power : NULL;
    case SP_OP_DIV: return divide_tensors;
    case SP_OP_DIV_RSCALAR:
    case SP_OP_RECIPROCAL: return divide_number;
    case SP_OP_SQRT: return square_root;
    case SP_OP_RSQRT: return inverse_root;
    case SP_OP_EXP: return exponential;
    case SP_OP_EXP2: return exponential_of_two;
    case SP_OP_EXPM1: return exponential_less_one;
    case SP_OP_TAN: return tangent;
    case SP_OP_TANH: return hyperbolic_tangent;
    case SP_OP_SIGMOID: return logistic;
    case SP_OP_SIN: return sine;
    case SP_OP_COS: return cosine;
    case SP_OP_SINH: return hyperbolic_sine;
    case SP_OP_COSH: return hyperbolic_cosine;
    default: return is_product(f) ? sp__jet_product : NULL;
    }
}
