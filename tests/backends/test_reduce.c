/* sum, amax, argmax: values against plain loops, one tree whatever the threads and the instruction
 * set, accuracy.
 */
#include "tests/backends/support.h"

#include "backends/cpu/reduce.h"

static block reduce(sp_kernel run, int op, const block *x, unsigned mask, bool all, int out_dtype)
{
    int64_t dims[SP_MAX_RANK], shape[SP_MAX_RANK];
    int n = 0, rank = 0;
    for (int d = 0; d < x->x.rank; d++) {
        if (mask >> d & 1)
            dims[n++] = d;
        else
            shape[rank++] = x->x.shape[d];
    }
    sp_attr attr[3] = {{.v.ints = dims, .n = n, .kind = SP_ATTR_INTS, .absent = all},
                       {.kind = SP_ATTR_BOOL},
                       {.kind = SP_ATTR_DTYPE, .absent = true}};
    block b[2] = {make(out_dtype, rank, shape, DENSE), *x};
    sp_kargs k = arguments(op, 1, 2, b, attr, 3);
    k.arg = k.room;
    OK(run(&k));
    return b[0];
}

static void check_against_plain(int dtype, int out_dtype, bool max)
{
    for (int i = 0; i < 150; i++) {
        int rank = (int)random_int(1, 4);
        int64_t shape[4], limit = rank == 1 ? 3000 : rank == 2 ? 300 : 12;
        for (int d = 0; d < rank; d++) shape[d] = random_int(1, limit);
        unsigned mask = (unsigned)random_int(1, (1 << rank) - 1);
        block x = make_filled(dtype, rank, shape, (layout)(i % LAYOUTS), -3, 5);
        double *expected = malloc(sizeof(double) * (size_t)x.x.numel);
        sp__ref_reduce(max, &x.x, mask, expected);
        block out = reduce(max ? sp__cpu_amax : sp__cpu_sum, max ? SP_OP_AMAX : SP_OP_SUM, &x, mask,
                           mask == (1u << rank) - 1, out_dtype);
        for (int64_t at = 0; at < out.x.numel; at++) {
            CHECK(near(sp__ref_get(&out.x, at), expected[at],
                       dtype == SP_FLOAT32 && !max ? 1e-4 : 1e-11));
        }
        free(expected);
        drop(&out), drop(&x);
    }
}

static void values_in_every_layout(void)
{
    for (int max = 0; max < 2; max++) {
        check_against_plain(SP_FLOAT32, SP_FLOAT32, max);
        check_against_plain(SP_FLOAT64, SP_FLOAT64, max);
        check_against_plain(SP_INT64, SP_INT64, max);
        check_against_plain(SP_BOOL, max ? SP_BOOL : SP_INT64, max);
    }
    check_against_plain(SP_FLOAT32, SP_FLOAT64, false);
}

/* Long enough to be cut into parts for threads, in both trees. */
static void threads_do_not_change_bits(void)
{
    static const struct {
        int64_t shape[2];
        unsigned mask;
    } sizes[] = {{{1, 3000007}, 3}, {{3, 1000001}, 2}, {{600, 700}, 1},
                 {{70001, 30}, 1},  {{300000, 5}, 1},  {{5000, 300}, 2}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int how = DENSE; how <= STEPPED; how++) {
            block x = make_filled(SP_FLOAT32, 2, sizes[i].shape, (layout)how, -1, 1), out[3];
            for (int threads = 1; threads <= 3; threads++) {
                OK(sp_set_num_threads(threads));
                out[threads - 1] =
                    reduce(sp__cpu_sum, SP_OP_SUM, &x, sizes[i].mask, false, SP_FLOAT32);
            }
            CHECK(same_bits(&out[0].x, &out[1].x));
            CHECK(same_bits(&out[0].x, &out[2].x));
            for (int t = 0; t < 3; t++) drop(&out[t]);
            drop(&x);
        }
    }
    OK(sp_set_num_threads(2));
}

static void instruction_sets_agree(void)
{
    const sp_isa *before = sp__isa;
    for (int i = 0; i < 80; i++) {
        int64_t shape[2] = {random_int(1, 300), random_int(1, 300)};
        block x = make_filled(i & 1 ? SP_FLOAT32 : SP_FLOAT64, 2, shape, (layout)(i / 2 % LAYOUTS),
                              -1, 1),
              first = {0};
        FOR_EACH_ISA(name)
        {
            block out = reduce(sp__cpu_sum, SP_OP_SUM, &x, 1 + i % 3, false, x.x.dtype);
            if (first.memory == NULL)
                first = out;
            else {
                CHECK(same_bits(&first.x, &out.x));
                drop(&out);
            }
        }
        drop(&first), drop(&x);
    }
    sp__isa = before;
}

/* The same values from misaligned memory. */
static void alignment_does_not_change_bits(void)
{
    for (int64_t n = 1; n < 3000; n = n * 5 / 4 + 1) {
        block x = make_filled(SP_FLOAT32, 1, &n, DENSE, -1, 1),
              y = make(SP_FLOAT32, 1, &n, MISALIGNED);
        memcpy(y.x.data, x.x.data, (size_t)n * 4);
        block a = reduce(sp__cpu_sum, SP_OP_SUM, &x, 1, true, SP_FLOAT32);
        block b = reduce(sp__cpu_sum, SP_OP_SUM, &y, 1, true, SP_FLOAT32);
        CHECK(same_bits(&a.x, &b.x));
        drop(&a), drop(&b), drop(&x), drop(&y);
    }
}

/* 10^7 times 0.1: one running sum in float32 is off by 8 %. */
static void sums_are_accurate(void)
{
    int64_t shape[2] = {10000000, 1};
    block x = make(SP_FLOAT32, 2, shape, DENSE);
    for (int64_t i = 0; i < shape[0]; i++) ((float *)x.x.data)[i] = 0.1f;
    block row = reduce(sp__cpu_sum, SP_OP_SUM, &x, 3, true, SP_FLOAT32);
    CHECK(near(sp__ref_get(&row.x, 0), 1e7 * (double)0.1f, 2e-6));
    x.x.shape[0] = 1000000, x.x.shape[1] = 10, x.x.stride[0] = 10, x.x.stride[1] = 1;
    block column = reduce(sp__cpu_sum, SP_OP_SUM, &x, 1, false, SP_FLOAT32);
    CHECK(near(sp__ref_get(&column.x, 3), 1e6 * (double)0.1f, 2e-6));
    drop(&row), drop(&column), drop(&x);
}

static void empty_and_nan(void)
{
    int64_t none[2] = {3, 0}, two[1] = {2};
    block x = make(SP_FLOAT32, 2, none, DENSE);
    block out = reduce(sp__cpu_sum, SP_OP_SUM, &x, 2, false, SP_FLOAT32);
    for (int i = 0; i < 3; i++) CHECK(sp__ref_get(&out.x, i) == 0);
    drop(&out), drop(&x);
    for (int at = 0; at < 2; at++) {
        x = make_filled(SP_FLOAT32, 1, two, DENSE, 1, 2);
        sp__ref_set(&x.x, at, NAN);
        out = reduce(sp__cpu_amax, SP_OP_AMAX, &x, 1, true, SP_FLOAT32);
        CHECK(isnan(sp__ref_get(&out.x, 0)));
        drop(&out), drop(&x);
    }
}

/* ---- argmax ----- */

static int64_t argmax_of(const block *x, int64_t dim, bool all, int64_t which)
{
    int64_t shape[SP_MAX_RANK];
    int rank = 0, result_rank = all ? 0 : x->x.rank - 1;
    for (int d = 0; d < x->x.rank && !all; d++) {
        if (d != dim) shape[rank++] = x->x.shape[d];
    }
    sp_attr attr[2] = {{.v.i = dim, .kind = SP_ATTR_INT, .absent = all}, {.kind = SP_ATTR_BOOL}};
    block b[2] = {make(SP_INT64, result_rank, shape, DENSE), *x};
    sp_kargs k = arguments(SP_OP_ARGMAX, 1, 2, b, attr, 2);
    k.arg = k.room;
    OK(sp__cpu_argmax(&k));
    int64_t at = (int64_t)sp__ref_get(&b[0].x, which);
    drop(&b[0]);
    return at;
}

static void first_of_the_largest(void)
{
    for (int i = 0; i < 200; i++) {
        int64_t n = random_int(1, 900), best = 0;
        block x = make_filled(i % 4, 1, &n, (layout)(i / 4 % EXPANDED), 0, 40);
        for (int64_t at = 1; at < n; at++)
            best = sp__ref_get(&x.x, at) > sp__ref_get(&x.x, best) ? at : best;
        CHECK(argmax_of(&x, 0, i & 1, 0) == best);
        drop(&x);
    }
    int64_t shape[2] = {3, 4};
    block x = make(SP_FLOAT32, 2, shape, TRANSPOSED);
    for (int64_t at = 0; at < 12; at++) sp__ref_set(&x.x, at, (double)(at * 7 % 12));
    CHECK(argmax_of(&x, 0, true, 0) == 5);
    CHECK(argmax_of(&x, 1, false, 1) == 1);
    CHECK(argmax_of(&x, 0, false, 3) == 0);
    sp__ref_set(&x.x, 9, NAN);
    CHECK(argmax_of(&x, 0, true, 0) == 9);
    drop(&x);
}

int main(void)
{
    sp__cpu_register();
    static const test_case all[] = {
        TEST(values_in_every_layout), TEST(threads_do_not_change_bits),
        TEST(instruction_sets_agree), TEST(alignment_does_not_change_bits),
        TEST(sums_are_accurate),      TEST(empty_and_nan),
        TEST(first_of_the_largest),
    };
    return run_suite("backends/reduce", all, sizeof all / sizeof *all);
}
