/* The CPU as a backend: its table of kernels and its vtable.
 */
#include "backends/cpu/register.h"

#include <string.h>

#include "backends/cpu/blas.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/predict.h"
#include "backends/cpu/tile.h"
#include "backends/cpu/widen.h"
#include "ops_gen.h"
#include "tensor/memory.h"

#define SP_CPU_KERNEL(op, function)          [op] = function,
#define SP_CPU_POINTWISE(op, name, n_inputs) [op] = sp__cpu_pointwise,
static const sp_kernel kernels[SP_OP_COUNT] = {
#include "cpu_kernels_gen.h"
};

/* Kernels that deal with every dtype themselves. One that is not here is right, too, if slower. */
static const uint8_t takes[SP_OP_COUNT] = {
    [SP_OP_FULL] = SP_TAKES_ANY,
    [SP_OP_ARANGE] = SP_TAKES_ANY,
    [SP_OP_RAND] = SP_TAKES_ANY,
    [SP_OP_RANDN] = SP_TAKES_ANY,
    [SP_OP_SUM] = SP_TAKES_ANY,
    [SP_OP_NANSUM] = SP_TAKES_ANY,
    [SP_OP_PROD] = SP_TAKES_ANY,
    [SP_OP_COUNT_NONZERO] = SP_TAKES_ANY,
    [SP_OP_AMAX] = SP_TAKES_ANY,
    [SP_OP_AMIN] = SP_TAKES_ANY,
    [SP_OP_ARGMAX] = SP_TAKES_ANY,
    [SP_OP_ARGMIN] = SP_TAKES_ANY,
    [SP_OP_CONTIGUOUS] = SP_TAKES_ANY,
    [SP_OP_RESHAPE] = SP_TAKES_ANY,
    [SP_OP_SLICE_SCATTER] = SP_TAKES_ANY,
    [SP_OP_SELECT_SCATTER] = SP_TAKES_ANY,
    [SP_OP_AS_STRIDED_SCATTER] = SP_TAKES_ANY,
    [SP_OP_CONSTANT_PAD_ND] = SP_TAKES_ANY,
    [SP_OP_CAT] = SP_TAKES_ANY,
    [SP_OP_STACK] = SP_TAKES_ANY,
    [SP_OP_GATHER] = SP_TAKES_ANY_BUT_INDEX,
    [SP_OP_SCATTER] = SP_TAKES_ANY_BUT_INDEX,
    [SP_OP_SCATTER_VALUE] = SP_TAKES_ANY_BUT_INDEX,
    [SP_OP_INDEX_COPY] = SP_TAKES_ANY_BUT_INDEX,
    [SP_OP_INDEX_SELECT] = SP_TAKES_ANY_BUT_INDEX,
};

static sp_status widened(const sp_kargs *args)
{
    return sp__cpu_widened(kernels[args->op], (sp_takes)takes[args->op], args);
}

static sp_kernel kernel(int op)
{
    if (op < 0 || op >= SP_OP_COUNT || kernels[op] == NULL) return NULL;
    return kernels[op] == sp__cpu_pointwise || takes[op] == SP_TAKES_ANY ? kernels[op] : widened;
}

static sp_status copy_bytes(void *dst, const void *src, size_t bytes)
{
    if (bytes > 0) memcpy(dst, src, bytes);
    return SP_OK;
}

void sp__cpu_register(void)
{
    static const sp_backend cpu = {.name = "cpu",
                                   .alloc = sp__alloc,
                                   .release = sp__free,
                                   .kernel = kernel,
                                   .predict_us = sp__cpu_predict_us,
                                   .start = sp__blas_warm,
                                   .help = sp__pool_help,
                                   .copy_in = copy_bytes,
                                   .copy_out = copy_bytes};
    sp__isa_start();
    sp__blas_start();
    sp__backends[SP_DEVICE_CPU] = &cpu;
}
