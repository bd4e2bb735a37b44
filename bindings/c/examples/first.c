/* The shortest whole program: d/dx sum(x * exp(x)) = (1 + x) exp(x). */
#include <spool.h>
#include <stdio.h>

int main(void)
{
    const double numbers[] = {0, 1, 2};
    const int64_t shape[] = {3};
    sp_tensor *x = NULL, *e = NULL, *y = NULL, *sum = NULL, *grad = NULL;
    double found[3] = {0};
    bool good = sp_from_data(numbers, SP_FLOAT64, 1, shape, &x) == SP_OK &&
                sp_set_requires_grad(x, true) == SP_OK && sp_exp(x, &e) == SP_OK &&
                sp_mul(x, e, &y) == SP_OK && sp_sum(y, NULL, &sum) == SP_OK &&
                sp_backward(sum, NULL) == SP_OK && sp_grad_get(x, &grad) == SP_OK &&
                sp_copy_out(grad, found, sizeof found) == SP_OK;
    if (good)
        printf("%.4f %.4f %.4f\n", found[0], found[1], found[2]);
    else
        fprintf(stderr, "%s\n", sp_last_error());
    sp_drop(&x), sp_drop(&e), sp_drop(&y), sp_drop(&sum), sp_drop(&grad);
    return !good;
}
