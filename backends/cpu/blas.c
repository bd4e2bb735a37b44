/* Exit. Both libraries free at exit what their calls use (oneDNN the code it compiled), while
 * threads of the program may still be inside them. So the end waits for calls under way and lets no
 * other thread begin one; the thread that runs the exit handlers may, by OpenBLAS, which goes last.
 */
#include "backends/cpu/blas.h"

#include <cblas.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>
#ifdef SP_HAVE_DNNL
#include <dnnl.h>
static bool onednn_avx512; /* its kernels here are for AVX-512; set at start */
#endif

#include "tensor/signals.h"
#include "tensor/status.h"

static _Atomic int under_way;
static _Atomic bool ended;
static pthread_t last_thread; /* set before `ended` */

static void end(void)
{
    last_thread = pthread_self();
    atomic_store(&ended, true);
    while (atomic_load(&under_way) > 0) sched_yield();
}

static void enter(void)
{
    atomic_fetch_add(&under_way, 1);
    if (SP_LIKELY(!atomic_load(&ended)) || pthread_equal(pthread_self(), last_thread)) return;
    atomic_fetch_sub(&under_way, 1);
    for (;;) pause(); /* the process is about to be gone */
}

static void leave(void)
{
    atomic_fetch_sub(&under_way, 1);
}

static void after_fork_child(void)
{
    atomic_store(&under_way, 0);
}

void sp__blas_start(void)
{
    openblas_set_num_threads(1);
#ifdef SP_HAVE_DNNL
    onednn_avx512 =
        (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core;
#endif
    pthread_atfork(NULL, NULL, after_fork_child);
    atexit(end);
}

static CBLAS_TRANSPOSE way_of(sp_blas_matrix x)
{
    return x.transposed ? CblasTrans : CblasNoTrans;
}

static void openblas_gemm_f32(int m, int n, int k, sp_blas_matrix a, sp_blas_matrix b, float *c,
                              int ldc)
{
    cblas_sgemm(CblasRowMajor, way_of(a), way_of(b), m, n, k, 1, a.data, a.leading, b.data,
                b.leading, 0, c, ldc);
}

#ifdef SP_HAVE_DNNL

/* OpenMP's, which oneDNN asks: a setting of the calling thread. No header, since that of gcc is of
 * no use to clang. */
int omp_get_max_threads(void);
void omp_set_num_threads(int n);

/* Signals wait: its kernels may point the stack register into the heap, where a handler's frame
 * would overwrite blocks of others (oneDNN issue 4845, mended in 3.11). */
static bool onednn_gemm_f32(int m, int n, int k, sp_blas_matrix a, sp_blas_matrix b, float *c,
                            int ldc)
{
    sp_held_signals h;
    sp__signals_hold(&h);
    int threads = omp_get_max_threads();
    if (threads != 1) omp_set_num_threads(1);
    dnnl_status_t status = dnnl_sgemm(a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', m, n, k,
                                      1, a.data, a.leading, b.data, b.leading, 0, c, ldc);
    if (threads != 1) omp_set_num_threads(threads);
    sp__signals_release(&h);
    return status == dnnl_success;
}

/* The two products between them need every kernel there is. */
static void warm(void)
{
    float x[4] = {0}, out[4];
    sp_blas_matrix one = {x, 1, false}, two = {x, 2, false};
    (void)onednn_gemm_f32(1, 1, 1, one, one, out, 1);
    (void)onednn_gemm_f32(2, 2, 2, two, two, out, 2);
    atexit(end); /* again: handlers run from the last to the first, and oneDNN's are now there */
}

void sp__blas_warm(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, warm);
}

/* Operands that oneDNN would read across rows that fall on few cache sets (blas.h has figures). */
static sp_blas_spread read_across(int64_t m, int64_t n, int64_t k, sp_blas_matrix a,
                                  sp_blas_matrix b)
{
    if (onednn_avx512) return (sp_blas_spread){false, false};
    sp_blas_spread x = {a.transposed && a.leading % 512 == 0,
                        !b.transposed && b.leading % 512 == 0};
    bool large = k >= 128 && (double)m * (double)n * (double)k >= 4e6;
    if (a.transposed && a.leading % 128 == 0 && !b.transposed && b.leading % 128 == 0)
        x.b = x.b || x.a || large;
    return x;
}

/* A copy is worth it when it is read often enough, and fits where it is read from. */
sp_blas_spread sp__blas_spread(int dtype, int64_t m, int64_t n, int64_t k, sp_blas_matrix a,
                               sp_blas_matrix b)
{
    enum { READS = 32, DEPTH = 1024, LARGEST = 1 << 22 /* elements */ };
    sp_blas_spread none = {false, false};
    if (dtype != SP_FLOAT32) return none;
    sp_blas_spread x = read_across(m, n, k, a, b);
    if (x.a && (n < READS || k > DEPTH || m * k > LARGEST)) return none;
    if (x.b && (m < READS || n * k > LARGEST)) return none;
    return x;
}

static bool gemm_f32(int m, int n, int k, sp_blas_matrix a, sp_blas_matrix b, float *c, int ldc)
{
    sp_blas_spread across = read_across(m, n, k, a, b);
    if (SP_LIKELY(!atomic_load(&ended)) && !across.a && !across.b) {
        sp__blas_warm();
        return onednn_gemm_f32(m, n, k, a, b, c, ldc);
    }
    openblas_gemm_f32(m, n, k, a, b, c, ldc);
    return true;
}

#else

void sp__blas_warm(void)
{
}

sp_blas_spread sp__blas_spread(int dtype, int64_t m, int64_t n, int64_t k, sp_blas_matrix a,
                               sp_blas_matrix b)
{
    (void)dtype, (void)m, (void)n, (void)k, (void)a, (void)b;
    return (sp_blas_spread){false, false};
}

static bool gemm_f32(int m, int n, int k, sp_blas_matrix a, sp_blas_matrix b, float *c, int ldc)
{
    openblas_gemm_f32(m, n, k, a, b, c, ldc);
    return true;
}

#endif

void sp__blas_for(int64_t n_chunks, double predicted_us, sp_chunk_fn fn, void *ctx)
{
    sp_held_signals h;
    sp__signals_hold(&h);
    sp__pool_for(n_chunks, predicted_us, fn, ctx);
    sp__signals_release(&h);
}

bool sp__blas_gemm(int dtype, int m, int n, int k, sp_blas_matrix a, sp_blas_matrix b, void *c,
                   int ldc)
{
    bool done = true;
    enter();
    static const double one[2] = {1, 0}, zero[2] = {0, 0};
    static const float narrow_one[2] = {1, 0}, narrow_zero[2] = {0, 0};
    switch (dtype) {
    case SP_FLOAT32: done = gemm_f32(m, n, k, a, b, c, ldc); break;
    case SP_COMPLEX64:
        cblas_cgemm(CblasRowMajor, way_of(a), way_of(b), m, n, k, narrow_one, a.data, a.leading,
                    b.data, b.leading, narrow_zero, c, ldc);
        break;
    case SP_COMPLEX128:
        cblas_zgemm(CblasRowMajor, way_of(a), way_of(b), m, n, k, one, a.data, a.leading, b.data,
                    b.leading, zero, c, ldc);
        break;
    default:
        cblas_dgemm(CblasRowMajor, way_of(a), way_of(b), m, n, k, 1, a.data, a.leading, b.data,
                    b.leading, 0, c, ldc);
        break;
    }
    leave();
    return done;
}

void sp__blas_gemv(int dtype, int rows, int columns, sp_blas_matrix x, const void *v, int v_step,
                   void *y, int y_step)
{
    int stored_rows = x.transposed ? columns : rows, stored_columns = x.transposed ? rows : columns;
    enter();
    if (dtype == SP_FLOAT32) {
        cblas_sgemv(CblasRowMajor, way_of(x), stored_rows, stored_columns, 1, x.data, x.leading, v,
                    v_step, 0, y, y_step);
    } else {
        cblas_dgemv(CblasRowMajor, way_of(x), stored_rows, stored_columns, 1, x.data, x.leading, v,
                    v_step, 0, y, y_step);
    }
    leave();
}
