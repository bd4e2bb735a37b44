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
#include "ops_gen.h"
#include "tensor/memory.h"

#define SP_CPU_KERNEL(op, function)          [op] = function,
#define SP_CPU_POINTWISE(op, name, n_inputs) [op] = sp__cpu_pointwise,
static const sp_kernel kernels[SP_OP_COUNT] = {
#include "cpu_kernels_gen.h"
};

static sp_kernel kernel(int op)
{
    return op >= 0 && op < SP_OP_COUNT ? kernels[op] : NULL;
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
