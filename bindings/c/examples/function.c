/* A function with a derivative of its own: log(1 + e^x), whose backward does not overflow.
 *
 *     cc function.c $(pkg-config --cflags --libs spool) -lm -o function && ./function
 */
#include <math.h>
#include <spool.h>
#include <stdio.h>

static sp_status forward(void *ctx, sp_function_call *call, const sp_tensor *const *in, int n_in,
                         sp_tensor **out, int max_out, int *n_out)
{
    (void)ctx, (void)n_in, (void)max_out;
    *n_out = 1;
    sp_status status = sp_softplus(in[0], NULL, &out[0]);
    return status == SP_OK ? sp_function_save(call, in[0]) : status;
}

static sp_status backward(void *ctx, sp_function_call *call, const sp_tensor *const *gy, int n_out,
                          sp_tensor **gx, int n_in)
{
    (void)ctx, (void)n_out, (void)n_in;
    sp_tensor *x = NULL, *slope = NULL;
    sp_status status = sp_function_saved(call, 0, &x);
    if (status == SP_OK) status = sp_sigmoid(x, &slope);
    if (status == SP_OK) status = sp_mul(gy[0], slope, &gx[0]);
    sp_drop(&x), sp_drop(&slope);
    return status;
}

int main(void)
{
    const sp_function fn = {
        .size = sizeof fn, .name = "LogOneExp", .forward = forward, .backward = backward};
    const double at = 2;
    sp_tensor *x = NULL, *y = NULL, *grad = NULL;
    sp_scalar slope = SP_FLOAT(0);
    int n_out;
    sp_status status = sp_from_data(&at, SP_FLOAT64, 0, NULL, &x);
    if (status == SP_OK) status = sp_set_requires_grad(x, true);
    if (status == SP_OK)
        status = sp_function_apply(&fn, NULL, (const sp_tensor *const[]){x}, 1, &y, 1, &n_out);
    if (status == SP_OK) status = sp_backward(y, NULL);
    if (status == SP_OK) status = sp_grad_get(x, &grad);
    if (status == SP_OK) status = sp_item(grad, &slope);
    if (status == SP_OK) printf("slope %.6f, expected %.6f\n", slope.v.f, 1 / (1 + exp(-at)));
    if (status != SP_OK) fprintf(stderr, "%s: %s\n", sp_status_name(status), sp_last_error());
    sp_drop(&x), sp_drop(&y), sp_drop(&grad);
    return status != SP_OK || fabs(slope.v.f - 1 / (1 + exp(-at))) > 1e-12;
}
