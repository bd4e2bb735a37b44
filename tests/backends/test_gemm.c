/* matmul and linear: values against plain loops in every geometry; bits that threads and alignment
 * do not change; linear = matmul + add.
 */
#include "tests/backends/support.h"

#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

#include "backends/cpu/gemm.h"
#include "backends/cpu/tile.h"

static void run(sp_kernel kernel, int op, block *b, int n)
{
    sp_kargs k = arguments(op, 1, n, b, NULL, 0);
    k.arg = k.room;
    OK(kernel(&k));
}

static double tolerance(int dtype, int64_t k)
{
    return dtype == SP_FLOAT32   ? 2e-6 * (double)(k + 1)
           : dtype == SP_FLOAT64 ? 1e-14 * (double)(k + 1)
                                 : 0;
}

static void check_matrices(int dtype, int64_t m, int64_t n, int64_t k, layout la, layout lb,
                           layout lc)
{
    block b[3] = {make(dtype, 2, (int64_t[]){m, n}, lc),
                  make_filled(dtype, 2, (int64_t[]){m, k}, la, -1.9, 2),
                  make_filled(dtype, 2, (int64_t[]){k, n}, lb, -1.9, 2)};
    double *expected = malloc(sizeof(double) * (size_t)(m * n));
    sp__ref_matmul(&b[1].x, &b[2].x, expected);
    run(sp__cpu_matmul, SP_OP_MATMUL, b, 3);
    bool right = true;
    for (int64_t i = 0; i < m * n; i++)
        right = right && near(sp__ref_get(&b[0].x, i), expected[i], tolerance(dtype, k));
    CHECK(right);
    if (!right) fprintf(stderr, "\n  %ld x %ld x %ld, layouts %d %d %d\n", m, n, k, la, lb, lc);
    free(expected);
    for (int i = 0; i < 3; i++) drop(&b[i]);
}

static void matrices_in_every_layout(void)
{
    for (int i = 0; i < 300; i++) {
        int64_t limit = i % 3 == 0 ? 8 : i % 3 == 1 ? 40 : 120;
        int dtype = i % 7 == 0 ? SP_FLOAT64 : i % 11 == 0 ? SP_INT64 : SP_FLOAT32;
        check_matrices(dtype, random_int(1, limit), random_int(1, limit), random_int(1, limit),
                       (layout)random_int(0, EXPANDED), (layout)random_int(0, EXPANDED),
                       (layout)random_int(0, STEPPED));
    }
    for (int i = 0; i < 60; i++) { /* vectors */
        check_matrices(SP_FLOAT32, i & 1 ? 1 : random_int(1, 300), i & 2 ? 1 : random_int(1, 300),
                       random_int(1, 300), (layout)random_int(0, EXPANDED),
                       (layout)random_int(0, EXPANDED), DENSE);
    }
}

static void panels_are_a_partition(void)
{
    static const int64_t sizes[][3] = {
        {64, 256, 784}, {256, 784, 64}, {64, 784, 256}, {300, 300, 300}, {1000, 70, 300}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int how = 0; how < 4; how++) {
            check_matrices(SP_FLOAT32, sizes[i][0], sizes[i][1], sizes[i][2],
                           how & 1 ? TRANSPOSED : DENSE, how & 2 ? TRANSPOSED : DENSE, DENSE);
        }
    }
    int64_t rows, columns;
    sp__gemm_grid(64, 256, 784, &rows, &columns);
    CHECK(rows * columns == 2);
    sp__gemm_grid(8, 8, 8, &rows, &columns);
    CHECK(rows * columns == 1);
}

/* x of 2 batches, y of 5, seen dense, transposed, ... */
static void check_batches(int64_t m, int64_t n, int64_t k, int how)
{
    int64_t xs[] = {2, 1, m, k}, ys[] = {5, k, n}, os[] = {2, 5, m, n};
    block b[3] = {make(SP_FLOAT32, 4, os, how == 3 ? STEPPED : DENSE),
                  make_filled(SP_FLOAT32, 4, xs, (layout)(how % 3), -1, 1),
                  make_filled(SP_FLOAT32, 3, ys, (layout)how, -1, 1)};
    run(sp__cpu_matmul, SP_OP_MATMUL, b, 3);
    for (int64_t i = 0; i < b[0].x.numel; i++) {
        int64_t column = i % n, row = i / n % m, y = i / (n * m) % 5, x = i / (n * m * 5);
        double sum = 0;
        for (int64_t q = 0; q < k; q++) {
            sum += sp__ref_get(&b[1].x, (x * m + row) * k + q) *
                   sp__ref_get(&b[2].x, (y * k + q) * n + column);
        }
        CHECK(near(sp__ref_get(&b[0].x, i), sum, 1e-5));
    }
    for (int i = 0; i < 3; i++) drop(&b[i]);
}

static void batches_broadcast(void)
{
    for (int how = 0; how < 4; how++) check_batches(3, 6, 4, how);
    check_batches(32, 512, 3, 0); /* y's rows of a power of two, copied to longer ones */
}

/* Rows of a power of two, read across, which are copied to longer ones; and sizes at which they
 * are not. */
static void rows_of_powers_of_two(void)
{
    static const int64_t sizes[][3] = {{512, 32, 40},   {512, 31, 40},   {128, 48, 800},
                                       {128, 512, 160}, {32, 512, 70},   {31, 512, 70},
                                       {48, 1024, 20},  {640, 512, 130}, {512, 33, 1030}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_matrices(SP_FLOAT32, sizes[i][0], sizes[i][1], sizes[i][2], TRANSPOSED, DENSE, DENSE);
        check_matrices(SP_FLOAT32, sizes[i][0], sizes[i][1], sizes[i][2], DENSE, DENSE, STEPPED);
    }
}

static void vectors_and_empty_sums(void)
{
    int64_t k = 5, n = 3, none = 0;
    block dot[3] = {make(SP_FLOAT32, 0, NULL, DENSE), make_filled(SP_FLOAT32, 1, &k, DENSE, 1, 1),
                    make_filled(SP_FLOAT32, 1, &k, STEPPED, 2, 2)};
    run(sp__cpu_matmul, SP_OP_MATMUL, dot, 3);
    CHECK(sp__ref_get(&dot[0].x, 0) == 10);
    block empty[3] = {make_filled(SP_FLOAT32, 2, (int64_t[]){3, 3}, DENSE, 7, 7),
                      make(SP_FLOAT32, 2, (int64_t[]){n, none}, DENSE),
                      make(SP_FLOAT32, 2, (int64_t[]){none, n}, DENSE)};
    run(sp__cpu_matmul, SP_OP_MATMUL, empty, 3);
    for (int i = 0; i < 9; i++) CHECK(sp__ref_get(&empty[0].x, i) == 0);
    for (int i = 0; i < 3; i++) drop(&dot[i]), drop(&empty[i]);
}

/* Same operands under other threads and from other addresses. */
static void bits_do_not_depend_on_threads_or_alignment(void)
{
    static const int64_t sizes[][3] = {
        {64, 256, 784}, {256, 784, 64}, {1, 2000, 3000}, {3000, 1, 1000}, {37, 41, 211},
        {8, 8, 8},      {1, 1, 3001},   {500, 600, 700}, {512, 128, 512}, {40, 512, 130}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t m = sizes[i][0], n = sizes[i][1], k = sizes[i][2];
        for (int how = 0; how < 3; how++) {
            layout x = how > 0 ? TRANSPOSED : DENSE, y = how > 1 ? TRANSPOSED : DENSE;
            block b[3] = {make(SP_FLOAT32, 2, (int64_t[]){m, n}, DENSE),
                          make_filled(SP_FLOAT32, 2, (int64_t[]){m, k}, x, -1, 1),
                          make_filled(SP_FLOAT32, 2, (int64_t[]){k, n}, y, -1, 1)};
            block odd[3] = {make(SP_FLOAT32, 2, (int64_t[]){m, n}, MISALIGNED)};
            for (int j = 1; j < 3; j++) { /* the same strides, one element further on */
                odd[j].memory = malloc((size_t)(b[j].x.numel + 1) * 4);
                odd[j].x = b[j].x, odd[j].x.data = odd[j].memory + 4;
                memcpy(odd[j].x.data, b[j].x.data, (size_t)b[j].x.numel * 4);
            }
            OK(sp_set_num_threads(1));
            run(sp__cpu_matmul, SP_OP_MATMUL, b, 3);
            OK(sp_set_num_threads(2));
            run(sp__cpu_matmul, SP_OP_MATMUL, odd, 3);
            CHECK(same_bits(&b[0].x, &odd[0].x));
            for (int j = 0; j < 3; j++) drop(&b[j]), drop(&odd[j]);
        }
    }
}

static void linear_is_matmul_plus_add(void)
{
    for (int i = 0; i < 80; i++) {
        int64_t m = i % 5 == 0 ? 200 : random_int(1, 70), n = i % 5 == 0 ? 300 : random_int(1, 70),
                k = random_int(1, 300);
        block x = make_filled(SP_FLOAT32, 2, (int64_t[]){m, k}, (layout)(i % 4), -1, 1);
        block w = make_filled(SP_FLOAT32, 2, (int64_t[]){n, k}, (layout)(i / 4 % 4), -1, 1),
              w_t = w;
        block bias = make_filled(SP_FLOAT32, 1, &n, (layout)(i / 16 % 4), -1, 1);
        block fused = make(SP_FLOAT32, 2, (int64_t[]){m, n}, DENSE),
              product = make(SP_FLOAT32, 2, (int64_t[]){m, n}, DENSE);
        run(sp__cpu_linear, SP_OP_LINEAR, (block[]){fused, x, w, bias}, 4);
        w_t.x.shape[0] = k, w_t.x.shape[1] = n, w_t.x.stride[0] = w.x.stride[1],
        w_t.x.stride[1] = w.x.stride[0];
        run(sp__cpu_matmul, SP_OP_MATMUL, (block[]){product, x, w_t}, 3);
        for (int64_t at = 0; at < m * n; at++) {
            float sum, b = (float)sp__ref_get(&bias.x, at % n);
            memcpy(&sum, product.x.data + at * 4, 4);
            sum += b;
            memcpy(product.x.data + at * 4, &sum, 4);
        }
        CHECK(same_bits(&fused.x, &product.x));
        drop(&x), drop(&w), drop(&bias), drop(&fused), drop(&product);
    }
}

/* ---- signals ----- */

static pthread_t this_thread;
static char *stack_low, *stack_high;
static _Atomic int fired, outside; /* the handler may run on two threads at once */

static void look_at_stack(int number)
{
    char here;
    (void)number;
    fired++;
    if (!pthread_equal(pthread_self(), this_thread)) return; /* a library's, which was idle */
    if (&here < stack_low || &here > stack_high) outside++;
}

static void find_stack(void)
{
    pthread_attr_t attr;
    void *low;
    size_t size;
    this_thread = pthread_self();
    pthread_getattr_np(this_thread, &attr);
    pthread_attr_getstack(&attr, &low, &size);
    pthread_attr_destroy(&attr);
    stack_low = low, stack_high = stack_low + size;
}

/* A library's kernel that uses the stack register for something else must not meet a handler, whose
 * frame would land there. */
static void signal_handlers_stay_on_the_stack(void)
{
    struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    block b[3] = {make(SP_FLOAT32, 2, (int64_t[]){700, 700}, DENSE),
                  make_filled(SP_FLOAT32, 2, (int64_t[]){700, 700}, DENSE, -1.9, 2),
                  make_filled(SP_FLOAT32, 2, (int64_t[]){700, 700}, DENSE, -1.9, 2)};
    find_stack();
    signal(SIGALRM, look_at_stack);
    OK(sp_set_num_threads(1));
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; i < 1000 && (i < 20 || fired < 20); i++)
        run(sp__cpu_matmul, SP_OP_MATMUL, b, 3);
    setitimer(ITIMER_REAL, &never, NULL);
    CHECK(fired >= 20);
    CHECK(outside == 0);
    for (int i = 0; i < 3; i++) drop(&b[i]);
}

int main(void)
{
    sp__cpu_register();
    static const test_case all[] = {
        TEST(matrices_in_every_layout),  TEST(panels_are_a_partition),
        TEST(batches_broadcast),         TEST(rows_of_powers_of_two),
        TEST(vectors_and_empty_sums),    TEST(bits_do_not_depend_on_threads_or_alignment),
        TEST(linear_is_matmul_plus_add), TEST(signal_handlers_stay_on_the_stack),
    };
    return run_suite("backends/gemm", all, sizeof all / sizeof *all);
}
