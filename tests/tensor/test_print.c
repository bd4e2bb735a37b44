/* Texts of tensors. The expected ones are PyTorch's, with spool for torch. */
#include <math.h>

#include "tensor/memory.h"
#include "tensor/tensor.h"
#include "tests/check.h"

static void check_text(const void *data, sp_dtype dtype, int rank, const int64_t *shape,
                       const char *expected)
{
    sp_tensor *t;
    char *text;
    OK(sp_from_data(data, dtype, rank, shape, &t));
    OK(sp_to_text(t, &text));
    if (strcmp(text, expected))
        fprintf(stderr, "\n--- got\n%s\n--- expected\n%s\n", text, expected);
    CHECK(strcmp(text, expected) == 0);
    sp_text_free(text);
    sp_drop(&t);
}
#define SHAPE(...)                                                                                 \
    sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (int64_t[])                                \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define F32(...) (float[]){__VA_ARGS__}, SP_FLOAT32
#define F64(...) (double[]){__VA_ARGS__}, SP_FLOAT64
#define I64(...) (int64_t[]){__VA_ARGS__}, SP_INT64

static void numbers_share_a_style(void)
{
    check_text(F32(1, 2, 3), SHAPE(3), "tensor([1., 2., 3.])");
    check_text(F32(1, -2.5, 3), SHAPE(3), "tensor([ 1.0000, -2.5000,  3.0000])");
    check_text(F32(1, 2, 3, 4), SHAPE(2, 2), "tensor([[1., 2.],\n        [3., 4.]])");
    check_text(F32(1e-5f, 1), SHAPE(2), "tensor([1.0000e-05, 1.0000e+00])");
    check_text(F32(1e9f, 1), SHAPE(2), "tensor([1.0000e+09, 1.0000e+00])");
    check_text(F32(2000, 0.5), SHAPE(2), "tensor([2.0000e+03, 5.0000e-01])");
    check_text(F32(0, 0), SHAPE(2), "tensor([0., 0.])");
    check_text(F32(INFINITY, -INFINITY, NAN, 1), SHAPE(4), "tensor([inf, -inf, nan, 1.])");
    check_text(F32(INFINITY, 1.5), SHAPE(2), "tensor([   inf, 1.5000])");
}

static void dtypes_show(void)
{
    check_text(F64(1, 2.5), SHAPE(2), "tensor([1.0000, 2.5000], dtype=spool.float64)");
    check_text(I64(1, -20, 300), SHAPE(3), "tensor([  1, -20, 300])");
    check_text((uint8_t[]){1, 0}, SP_BOOL, SHAPE(2), "tensor([ True, False])");
    check_text(F32(3.5), 0, NULL, "tensor(3.5000)");
    check_text(I64(7), 0, NULL, "tensor(7)");
    check_text(F64(1e300), 0, NULL, "tensor(1.0000e+300, dtype=spool.float64)");
}

static void empty_ones_show_their_shape(void)
{
    check_text(NULL, SP_FLOAT32, SHAPE(0), "tensor([])");
    check_text(NULL, SP_FLOAT32, SHAPE(0, 3), "tensor([], size=(0, 3))");
    check_text(NULL, SP_INT64, SHAPE(0), "tensor([], dtype=spool.int64)");
}

static void long_rows_break(void)
{
    int64_t data[30];
    for (int i = 0; i < 30; i++) data[i] = i;
    check_text(data, SP_INT64, SHAPE(30),
               "tensor([ 0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14, 15, 16, 17,\n"
               "        18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29])");
}

static void planes_are_set_apart(void)
{
    check_text(I64(1, 2, 3, 4, 5, 6, 7, 8), SHAPE(2, 2, 2),
               "tensor([[[1, 2],\n         [3, 4]],\n\n        [[5, 6],\n         [7, 8]]])");
}

static void large_ones_are_summarised(void)
{
    static int64_t data[2000];
    for (int i = 0; i < 2000; i++) data[i] = i;
    check_text(data, SP_INT64, SHAPE(2000), "tensor([   0,    1,    2,  ..., 1997, 1998, 1999])");
    check_text(data, SP_INT64, SHAPE(50, 40),
               "tensor([[   0,    1,    2,  ...,   37,   38,   39],\n"
               "        [  40,   41,   42,  ...,   77,   78,   79],\n"
               "        [  80,   81,   82,  ...,  117,  118,  119],\n"
               "        ...,\n"
               "        [1880, 1881, 1882,  ..., 1917, 1918, 1919],\n"
               "        [1920, 1921, 1922,  ..., 1957, 1958, 1959],\n"
               "        [1960, 1961, 1962,  ..., 1997, 1998, 1999]])");
    check_text(data, SP_INT64, SHAPE(500, 4),
               "tensor([[   0,    1,    2,    3],\n"
               "        [   4,    5,    6,    7],\n"
               "        [   8,    9,   10,   11],\n"
               "        ...,\n"
               "        [1988, 1989, 1990, 1991],\n"
               "        [1992, 1993, 1994, 1995],\n"
               "        [1996, 1997, 1998, 1999]])");
}

static void suffixes_wrap(void)
{
    float data[16];
    int64_t n = 11;
    sp_tensor *t;
    char *text;
    for (int i = 0; i < 16; i++) data[i] = (float)i + 0.5f;
    OK(sp_from_data(data, SP_FLOAT32, 1, &n, &t));
    OK(sp__to_text(t, "requires_grad=True", &text));
    CHECK(strcmp(text,
                 "tensor([ 0.5000,  1.5000,  2.5000,  3.5000,  4.5000,  5.5000,  6.5000,  7.5000,\n"
                 "         8.5000,  9.5000, 10.5000], requires_grad=True)") == 0);
    sp_text_free(text);
    OK(sp__to_text(t, "grad_fn=<AVeryLongNameIndeedThatDoesNotFitOnTheLineAnyMore>", &text));
    CHECK(strstr(text, "10.5000],\n       grad_fn=<A") != NULL);
    sp_text_free(text);
    sp_drop(&t);
}

static void strided_and_failing(void)
{
    float data[] = {1, 2, 3, 4, 5, 6};
    sp_memory_stats before, after;
    sp_tensor *t;
    char *text;
    OK(sp_from_foreign(data, SP_FLOAT32, 2, (int64_t[]){3, 2}, (int64_t[]){1, 3}, false, NULL, NULL,
                       &t));
    OK(sp_to_text(t, &text));
    CHECK(strcmp(text, "tensor([[1., 4.],\n        [2., 5.],\n        [3., 6.]])") == 0);
    sp_text_free(text);
    sp_memory_stats_get(&before);
    for (int n = 1, reached = 1; reached; n++) {
        sp_memory_fail_nth(n, false);
        sp_status status = sp_to_text(t, &text);
        reached = sp_memory_requests() >= n;
        sp_memory_fail_nth(0, false);
        CHECK(reached ? status == SP_EMEMORY && !text : status == SP_OK);
        sp_text_free(text);
    }
    sp_memory_stats_get(&after);
    CHECK(before.live_bytes == after.live_bytes);
    sp_drop(&t);
}

SUITE("tensor/print", TEST(numbers_share_a_style), TEST(dtypes_show),
      TEST(empty_ones_show_their_shape), TEST(long_rows_break), TEST(planes_are_set_apart),
      TEST(large_ones_are_summarised), TEST(suffixes_wrap), TEST(strided_and_failing))
