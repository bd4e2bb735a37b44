/* Gradients in C: fitting a line by descent on the tape, and a second derivative by nesting
 * transforms.
 *
 *     cc gradients.c $(pkg-config --cflags --libs spool) -o gradients && ./gradients
 */
#include <math.h>
#include <spool.h>
#include <stdio.h>

#define TRY(call)                                                                                  \
    do {                                                                                           \
        status = (call);                                                                           \
        if (status != SP_OK) goto out;                                                             \
    } while (0)

/* loss = mean((a x + b - y)^2) */
static sp_status loss_of(const sp_tensor *a, const sp_tensor *b, const sp_tensor *x,
                         const sp_tensor *y, sp_tensor **loss)
{
    sp_tensor *ax = NULL, *line = NULL, *error = NULL, *square = NULL;
    sp_status status;
    TRY(sp_mul(a, x, &ax));
    TRY(sp_add(ax, b, &line));
    TRY(sp_sub(line, y, &error));
    TRY(sp_mul(error, error, &square));
    TRY(sp_mean(square, NULL, loss));
out:
    sp_drop(&ax), sp_drop(&line), sp_drop(&error), sp_drop(&square);
    return status;
}

/* p -= rate * dloss/dp, without recording it; the gradient is cleared for the next step. */
static sp_status descend(sp_tensor *p, double rate)
{
    sp_tensor *grad = NULL;
    sp_status status = sp_grad_get(p, &grad);
    if (status != SP_OK) return status;
    bool was = sp_grad_mode(false);
    status = sp_sub_alpha_(p, grad, SP_FLOAT(rate));
    sp_grad_mode(was);
    sp_drop(&grad);
    return status == SP_OK ? sp_grad_set(p, NULL) : status;
}

static sp_status fit(double *slope, double *offset)
{
    const float xs[] = {0, 1, 2, 3}, ys[] = {1, 3, 5, 7}; /* y = 2 x + 1 */
    const float zero = 0;
    const int64_t n = 4;
    sp_tensor *x = NULL, *y = NULL, *a = NULL, *b = NULL, *loss = NULL;
    sp_scalar value;
    sp_status status;
    TRY(sp_from_data(xs, SP_FLOAT32, 1, &n, &x));
    TRY(sp_from_data(ys, SP_FLOAT32, 1, &n, &y));
    TRY(sp_from_data(&zero, SP_FLOAT32, 0, NULL, &a));
    TRY(sp_from_data(&zero, SP_FLOAT32, 0, NULL, &b));
    TRY(sp_set_requires_grad(a, true));
    TRY(sp_set_requires_grad(b, true));
    for (int step = 0; step < 500; step++) {
        TRY(loss_of(a, b, x, y, &loss));
        TRY(sp_backward(loss, NULL));
        TRY(descend(a, 0.1));
        TRY(descend(b, 0.1));
        sp_drop(&loss);
    }
    TRY(sp_item(a, &value));
    *slope = value.v.f;
    TRY(sp_item(b, &value));
    *offset = value.v.f;
out:
    sp_drop(&x), sp_drop(&y), sp_drop(&a), sp_drop(&b), sp_drop(&loss);
    return status;
}

/* sin(x)'s cousin: f(x) = tanh(x) */
static sp_status f(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out, int max_out,
                   int *n_out)
{
    (void)ctx, (void)n_in, (void)max_out;
    *n_out = 1;
    return sp_tanh(in[0], &out[0]);
}

/* f'(x) as a function that can be differentiated in turn */
static sp_status f_prime(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                         int max_out, int *n_out)
{
    (void)max_out;
    *n_out = 1;
    return sp_grad_fn(f, ctx, in, n_in, 1, out, NULL);
}

static sp_status second_derivative(double at, double *result)
{
    sp_tensor *x = NULL, *second = NULL;
    sp_scalar value;
    sp_status status;
    TRY(sp_from_data(&at, SP_FLOAT64, 0, NULL, &x));
    TRY(sp_grad_fn(f_prime, NULL, (const sp_tensor *const[]){x}, 1, 1, &second, NULL));
    TRY(sp_item(second, &value));
    *result = value.v.f;
out:
    sp_drop(&x), sp_drop(&second);
    return status;
}

int main(void)
{
    double slope, offset, second, t = tanh(0.5);
    sp_status status;
    TRY(fit(&slope, &offset));
    printf("y = %.3f x + %.3f\n", slope, offset);
    TRY(second_derivative(0.5, &second));
    printf("tanh''(0.5) = %.12f, expected %.12f\n", second, -2 * t * (1 - t * t));
    return fabs(slope - 2) > 1e-3 || fabs(offset - 1) > 1e-3 ||
           fabs(second + 2 * t * (1 - t * t)) > 1e-12;
out:
    fprintf(stderr, "%s: %s\n", sp_status_name(status), sp_last_error());
    return 1;
}
