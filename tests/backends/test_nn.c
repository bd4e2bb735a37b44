/* log_softmax, nll_loss, full, arange and random numbers.
 */
#include "tests/backends/support.h"

#include "ops/random.h"

static sp_status run(sp_kernel kernel, int op, const block *b, int n, sp_attr *attr, int n_attr)
{
    sp_kargs k = arguments(op, 1, n, b, attr, n_attr);
    k.arg = k.room;
    return kernel(&k);
}

static void log_softmax_along_any_dim(void)
{
    for (int round = 0; round < 90; round++) {
        int64_t shape[3] = {random_int(1, 9), random_int(1, 9), random_int(1, 9)}, dim = round % 3;
        shape[dim] = random_int(1, 700);
        int dtype = round & 1 ? SP_FLOAT32 : SP_FLOAT64;
        block x = make_filled(dtype, 3, shape, (layout)(round / 3 % LAYOUTS), -30, 30);
        block b[2] = {make(dtype, 3, shape, (layout)(round / 3 % 4)), x};
        sp_attr attr = {.v.i = dim - (round % 2 ? 3 : 0), .kind = SP_ATTR_INT};
        OK(run(sp__cpu_log_softmax, SP_OP_LOG_SOFTMAX, b, 2, &attr, 1));
        int64_t inner = dim == 2 ? 1 : dim == 1 ? shape[2] : shape[1] * shape[2];
        for (int64_t at = 0; at < x.x.numel; at++) {
            int64_t first = at - at / inner % shape[dim] * inner;
            double max = -INFINITY, sum = 0;
            for (int64_t i = 0; i < shape[dim]; i++)
                max = fmax(max, sp__ref_get(&x.x, first + i * inner));
            for (int64_t i = 0; i < shape[dim]; i++)
                sum += exp(sp__ref_get(&x.x, first + i * inner) - max);
            double expected = sp__ref_get(&x.x, at) - max - log(sum);
            CHECK(near(sp__ref_get(&b[0].x, at), expected, dtype == SP_FLOAT32 ? 2e-6 : 1e-14));
        }
        drop(&b[0]), drop(&x);
    }
}

static void losses(void)
{
    int64_t shape[3] = {7, 5, 3}, places[2] = {7, 3};
    for (int how = 0; how < 4; how++) {
        block x = make_filled(SP_FLOAT32, 3, shape, (layout)how, -3, 0),
              target = make(SP_INT64, 2, places, (layout)how);
        block each = make(SP_FLOAT32, 2, places, (layout)how),
              one = make(SP_FLOAT32, 0, NULL, DENSE);
        double sum = 0;
        for (int64_t i = 0; i < 21; i++) sp__ref_set(&target.x, i, (double)random_int(0, 4));
        sp_attr attr[2] = {{.v.i = SP_REDUCTION_NONE, .kind = SP_ATTR_INT},
                           {.v.i = -100, .kind = SP_ATTR_INT}}; /* reduction, ignore_index */
        OK(run(sp__cpu_nll_loss, SP_OP_NLL_LOSS, (block[]){each, x, target}, 3, attr, 2));
        for (int64_t i = 0; i < 21; i++) {
            double loss =
                -sp__ref_get(&x.x, (i / 3 * 5 + (int64_t)sp__ref_get(&target.x, i)) * 3 + i % 3);
            CHECK(sp__ref_get(&each.x, i) == loss);
            sum += loss;
        }
        attr[0].v.i = SP_REDUCTION_SUM;
        OK(run(sp__cpu_nll_loss, SP_OP_NLL_LOSS, (block[]){one, x, target}, 3, attr, 2));
        CHECK(near(sp__ref_get(&one.x, 0), sum, 1e-6));
        attr[0].v.i = SP_REDUCTION_MEAN;
        OK(run(sp__cpu_nll_loss, SP_OP_NLL_LOSS, (block[]){one, x, target}, 3, attr, 2));
        CHECK(near(sp__ref_get(&one.x, 0), sum / 21, 1e-6));
        for (int bad = -1; bad <= 5; bad += 6) {
            sp__ref_set(&target.x, 20, bad);
            FAILS(run(sp__cpu_nll_loss, SP_OP_NLL_LOSS, (block[]){one, x, target}, 3, attr, 2),
                  SP_EINDEX, "5 classes");
        }
        drop(&x), drop(&target), drop(&each), drop(&one);
    }
}

static void numbers_in_a_row(void)
{
    int64_t n = 1000;
    sp_attr number = {.v.f = -2.5, .kind = SP_ATTR_SCALAR, .tag = SP_FLOAT64};
    sp_attr full[3] = {{.kind = SP_ATTR_INTS}, number, {.kind = SP_ATTR_DTYPE, .absent = true}};
    for (int dtype = 0; dtype < SP_DTYPE_COUNT; dtype++) {
        block b = make(dtype, 1, &n, DENSE);
        OK(run(sp__cpu_full, SP_OP_FULL, &b, 1, full, 3));
        double wanted = dtype == SP_BOOL              ? 1
                        : dtype == SP_UINT8           ? 254
                        : sp__dtype_is_integer(dtype) ? -2
                                                      : -2.5;
        CHECK(sp__ref_get(&b.x, 999) == wanted);
        drop(&b);
    }
    sp_attr range[4] = {number,
                        number,
                        {.v.f = 0.25, .kind = SP_ATTR_SCALAR, .tag = SP_FLOAT64},
                        {.kind = SP_ATTR_DTYPE}};
    block b = make(SP_FLOAT32, 1, &n, DENSE), large = make(SP_INT64, 1, &n, DENSE);
    OK(run(sp__cpu_arange, SP_OP_ARANGE, &b, 1, range, 4));
    CHECK(sp__ref_get(&b.x, 999) == -2.5 + 999 * 0.25);
    sp_attr whole[4] = {{.v.i = INT64_C(1) << 60, .kind = SP_ATTR_SCALAR, .tag = SP_INT64},
                        number,
                        {.v.i = 3, .kind = SP_ATTR_SCALAR, .tag = SP_INT64},
                        {.kind = SP_ATTR_DTYPE}};
    OK(run(sp__cpu_arange, SP_OP_ARANGE, &large, 1, whole, 4));
    CHECK(((int64_t *)large.x.data)[999] == (INT64_C(1) << 60) + 2997);
    drop(&b), drop(&large);
}

static block draw(sp_kernel kernel, int op, int dtype, int64_t n, int64_t seed, int64_t offset)
{
    sp_attr attr[4] = {{.kind = SP_ATTR_INTS},
                       {.kind = SP_ATTR_DTYPE},
                       {.v.i = seed, .kind = SP_ATTR_INT},
                       {.v.i = offset, .kind = SP_ATTR_INT}};
    block b = make(dtype, 1, &n, DENSE);
    OK(run(kernel, op, &b, 1, attr, 4));
    return b;
}

/* Known answers of Random123's kat_vectors for philox4x32-10. */
static void philox_is_philox(void)
{
    uint32_t w[4];
    sp__philox(0, 0, w);
    CHECK(w[0] == 0x6627e8d5 && w[1] == 0xe169c58d && w[2] == 0xbc57ac4c && w[3] == 0x9b00dbd8);
}

static void random_numbers_have_their_moments(void)
{
    for (int dtype = SP_FLOAT32; dtype <= SP_FLOAT64; dtype++) {
        int64_t n = 400001;
        block u = draw(sp__cpu_rand, SP_OP_RAND, dtype, n, 42, 7),
              z = draw(sp__cpu_randn, SP_OP_RANDN, dtype, n, 42, 7);
        double mean = 0, mean_z = 0, square_z = 0, fourth_z = 0;
        for (int64_t i = 0; i < n; i++) {
            double x = sp__ref_get(&u.x, i), y = sp__ref_get(&z.x, i);
            if (x < 0 || x >= 1 || !isfinite(y)) CHECK(false);
            mean += x / (double)n, mean_z += y / (double)n, square_z += y * y / (double)n,
                fourth_z += y * y * y * y / (double)n;
        }
        CHECK(fabs(mean - 0.5) < 0.003);
        CHECK(fabs(mean_z) < 0.01 && fabs(square_z - 1) < 0.02 && fabs(fourth_z - 3) < 0.15);
        drop(&u), drop(&z);
    }
}

static void random_numbers_depend_on_the_counter_alone(void)
{
    OK(sp_set_num_threads(1));
    block one = draw(sp__cpu_randn, SP_OP_RANDN, SP_FLOAT32, 100003, 1, 0);
    OK(sp_set_num_threads(2));
    block two = draw(sp__cpu_randn, SP_OP_RANDN, SP_FLOAT32, 100003, 1, 0);
    block later = draw(sp__cpu_randn, SP_OP_RANDN, SP_FLOAT32, 50001, 1, 12500);
    CHECK(same_bits(&one.x, &two.x));
    CHECK(memcmp(one.x.data + 50000 * 4, later.x.data, 50001 * 4) == 0);
    drop(&one), drop(&two), drop(&later);
}

int main(void)
{
    sp__cpu_register();
    static const test_case all[] = {
        TEST(log_softmax_along_any_dim),
        TEST(losses),
        TEST(numbers_in_a_row),
        TEST(philox_is_philox),
        TEST(random_numbers_have_their_moments),
        TEST(random_numbers_depend_on_the_counter_alone),
    };
    return run_suite("backends/nn", all, sizeof all / sizeof *all);
}
