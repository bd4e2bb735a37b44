/* gelu's second derivative, by ops, so that every further one follows. */
#include "autograd/rules.h"

#include <math.h>

#include "ops_gen.h"

#define SCALE 0.7978845608028654 /* sqrt(2 / pi) */
#define CUBIC 0.044715

/* phi(x) (2 - x x), phi being the normal density. */
static sp_status second_exact(const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *square = NULL, *half = NULL, *density = NULL, *rest = NULL, *product = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_square(x, &square));
    SP_TRY(sp_mul_scalar(square, SP_FLOAT(-0.5), &half));
    SP_TRY(sp_exp(half, &density));
    SP_TRY(sp_sub_rscalar(square, SP_INT(2), &rest));
    SP_TRY(sp_mul(density, rest, &product));
    SP_TRY(sp_mul_scalar(product, SP_FLOAT(SCALE / 2), out));
out:
    sp_drop(&square);
    sp_drop(&half);
    sp_drop(&density);
    sp_drop(&rest);
    sp_drop(&product);
    return status;
}

/* With t = tanh(u), u = SCALE (x + CUBIC x^3): (1 - t t) (u' + x u'' / 2 - x t u' u'). */
typedef struct tanh_parts {
    sp_tensor *square, *cubic, *u, *t, *slope, *steep, *bend, *sum, *a, *b, *d;
} tanh_parts;

/* u, t, u' and 1 - t t. */
static sp_status first_parts(const sp_tensor *x, tanh_parts *p)
{
    sp_tensor *grown = NULL, *inner = NULL, *squared = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_square(x, &p->square));
    SP_TRY(sp_mul_scalar(p->square, SP_FLOAT(SCALE * CUBIC), &p->cubic));
    SP_TRY(sp_add_scalar(p->cubic, SP_FLOAT(SCALE), &grown));
    SP_TRY(sp_mul(x, grown, &p->u));
    SP_TRY(sp_tanh(p->u, &p->t));
    SP_TRY(sp_mul_scalar(p->cubic, SP_INT(3), &inner));
    SP_TRY(sp_add_scalar(inner, SP_FLOAT(SCALE), &p->slope));
    SP_TRY(sp_square(p->t, &squared));
    SP_TRY(sp_sub_rscalar(squared, SP_INT(1), &p->steep));
out:
    sp_drop(&grown);
    sp_drop(&inner);
    sp_drop(&squared);
    return status;
}

static sp_status second_tanh(const sp_tensor *x, sp_tensor **out)
{
    tanh_parts p = {0};
    sp_status status = SP_OK;
    SP_TRY(first_parts(x, &p));
    SP_TRY(sp_mul_scalar(p.cubic, SP_INT(3), &p.bend)); /* x u'' / 2 */
    SP_TRY(sp_add(p.slope, p.bend, &p.sum));
    SP_TRY(sp_square(p.slope, &p.a));
    SP_TRY(sp_mul(p.a, p.t, &p.b));
    SP_TRY(sp_mul(p.b, x, &p.d));
    sp_drop(&p.a);
    SP_TRY(sp_sub(p.sum, p.d, &p.a));
    SP_TRY(sp_mul(p.steep, p.a, out));
out:
    sp_drop(&p.square), sp_drop(&p.cubic), sp_drop(&p.u), sp_drop(&p.t), sp_drop(&p.slope);
    sp_drop(&p.steep), sp_drop(&p.bend), sp_drop(&p.sum), sp_drop(&p.a), sp_drop(&p.b);
    sp_drop(&p.d);
    return status;
}

sp_status sp__rule_gelu_second(const sp_tensor *gy, const sp_tensor *grad, const sp_tensor *x,
                               int64_t approximate, sp_tensor **out)
{
    sp_tensor *second = NULL, *both = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY((approximate == SP_APPROXIMATE_TANH ? second_tanh : second_exact)(x, &second));
    SP_TRY(sp_mul(gy, grad, &both));
    SP_TRY(sp_mul(both, second, out));
out:
    sp_drop(&second);
    sp_drop(&both);
    return status;
}
