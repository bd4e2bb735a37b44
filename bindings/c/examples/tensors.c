/* Tensors in C: making them, computing, views, reading values, errors.
 *
 *     cc tensors.c $(pkg-config --cflags --libs spool) -o tensors && ./tensors
 */
#include <spool.h>
#include <stdio.h>

/* Prints t, or why that failed. */
static void show(const char *name, const sp_tensor *t)
{
    char *text;
    if (sp_to_text(t, &text) != SP_OK) {
        printf("%s: %s\n", name, sp_last_error());
        return;
    }
    printf("%s = %s\n", name, text);
    sp_text_free(text);
}

int main(void)
{
    const float numbers[] = {1, 2, 3, 4, 5, 6};
    const int64_t shape[] = {2, 3};
    sp_tensor *x = NULL, *twice = NULL, *row = NULL, *sums = NULL, *product = NULL, *turned = NULL;
    sp_status status;

    status = sp_from_data(numbers, SP_FLOAT32, 2, shape, &x);
    if (status == SP_OK) status = sp_mul_scalar(x, SP_FLOAT(2), &twice);
    if (status == SP_OK) status = sp_select(twice, 0, -1, &row);   /* a view of the last row */
    if (status == SP_OK) status = sp_fill_scalar_(row, SP_INT(0)); /* ... that is written through */
    if (status == SP_OK)
        status = sp_sum(
            x, &(sp_sum_opt){.size = sizeof(sp_sum_opt), .dim = (int64_t[]){1}, .n_dim = 1}, &sums);
    if (status == SP_OK) status = sp_transpose(x, 0, 1, &turned);
    if (status == SP_OK) status = sp_matmul(x, turned, &product);
    if (status == SP_OK) {
        show("x", x);
        show("2 x, last row zeroed", twice);
        show("row sums", sums);
        show("x x'", product);

        /* A mistake is a status and a message; everything stays as it was. */
        sp_tensor *wrong = NULL;
        status = sp_matmul(x, x, &wrong);
        printf("%s: %s\n", sp_status_name(status), sp_last_error());
        status = status == SP_ESHAPE && wrong == NULL ? SP_OK : SP_EINTERNAL;
    } else {
        fprintf(stderr, "%s: %s\n", sp_status_name(status), sp_last_error());
    }
    sp_drop(&x), sp_drop(&twice), sp_drop(&row), sp_drop(&sums), sp_drop(&product),
        sp_drop(&turned);

    sp_memory_stats memory;
    sp_memory_stats_get(&memory);
    printf("bytes at the peak: %lld\n", (long long)memory.peak_bytes);
    return status != SP_OK;
}
