/* Operands of random shape and layout for kernels called without the layers above.
 */
#ifndef SP_TEST_BACKENDS_SUPPORT_H
#define SP_TEST_BACKENDS_SUPPORT_H

#include "tests/check.h"

#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/reference.h"
#include "backends/cpu/register.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "ops_gen.h"

typedef enum layout { DENSE, MISALIGNED, TRANSPOSED, STEPPED, EXPANDED, LAYOUTS } layout;

/* xorshift64*: the same numbers on every machine. */
static inline uint64_t random_bits(void)
{
    static uint64_t state = 88172645463325252u;
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return state * 2685821657736338717u;
}

static inline int64_t random_int(int64_t low, int64_t high)
{
    return low + (int64_t)(random_bits() % (uint64_t)(high - low + 1));
}

static inline double random_unit(void)
{
    return (double)(random_bits() >> 11) * 0x1p-53;
}

typedef struct block { /* an operand and the memory behind it */
    sp_operand x;
    char *memory;
} block;

/* Elements have exactly the bytes they need in `memory` (malloc, so that a sanitizer sees reads
 * past the end). */
static inline block make(int dtype, int rank, const int64_t *shape, layout how)
{
    block b = {.x = {.dtype = (uint8_t)dtype, .rank = (uint8_t)rank, .numel = 1}};
    int order[SP_MAX_RANK];
    int64_t step = how == STEPPED ? 2 : 1, offset = how == MISALIGNED ? 1 + random_int(0, 2) : 0,
            last = 0;
    for (int d = 0; d < rank; d++) order[d] = how == TRANSPOSED ? d : rank - 1 - d;
    for (int i = 0; i < rank; i++) {
        int d = order[i];
        b.x.shape[d] = shape[d], b.x.numel *= shape[d];
        b.x.stride[d] = how == EXPANDED && d == 0 ? 0 : step;
        if (!(how == EXPANDED && d == 0)) step *= shape[d];
    }
    for (int d = 0; d < rank; d++)
        last += (b.x.shape[d] > 0 ? b.x.shape[d] - 1 : 0) * b.x.stride[d];
    b.memory = malloc((size_t)((offset + last + 1) * sp__size_of(dtype)));
    memset(b.memory, 0, (size_t)((offset + last + 1) * sp__size_of(dtype)));
    b.x.data = b.memory + offset * sp__size_of(dtype);
    b.x.contiguous = sp__is_dense(&b.x);
    return b;
}

static inline void fill(const block *b, double low, double high)
{
    for (int64_t i = 0; i < b->x.numel; i++) {
        double v = low + (high - low) * random_unit();
        sp__ref_set(&b->x, i,
                    b->x.dtype == SP_BOOL    ? v > (low + high) / 2
                    : b->x.dtype == SP_INT64 ? floor(v)
                                             : v);
    }
}

static inline block make_filled(int dtype, int rank, const int64_t *shape, layout how, double low,
                                double high)
{
    block b = make(dtype, rank, shape, how);
    fill(&b, low, high);
    return b;
}

static inline void drop(block *b)
{
    free(b->memory);
    b->memory = NULL;
}

static inline sp_kargs arguments(int op, int n_out, int n_arg, const block *blocks, sp_attr *attr,
                                 int n_attr)
{
    sp_kargs k = {.op = (uint16_t)op,
                  .n_out = (uint8_t)n_out,
                  .n_attr = (uint8_t)n_attr,
                  .n_arg = n_arg,
                  .attr = attr};
    for (int i = 0; i < n_arg; i++) k.room[i] = blocks[i].x;
    return k;
}

/* Whether two dense or strided operands of equal shape hold the same bytes; -0 differs from 0, NaN
 * equals itself. */
static inline bool same_bits(const sp_operand *a, const sp_operand *b)
{
    for (int64_t i = 0; i < a->numel; i++) {
        if (memcmp(sp__element_at(a, i), sp__element_at(b, i), (size_t)sp__size_of(a->dtype)) != 0)
            return false;
    }
    return true;
}

static inline bool near(double got, double expected, double relative)
{
    if (isnan(expected)) return isnan(got);
    if (isinf(expected) || got == expected) return got == expected;
    return fabs(got - expected) <= relative * (1 + fabs(expected));
}

/* Runs `call` under every instruction set that there is, for what must not depend on it. */
#define FOR_EACH_ISA(name)                                                                         \
    for (const char *const *isa_ = (const char *const[]){"baseline", "avx2", "avx512", NULL},      \
                           *name;                                                                  \
         (name = *isa_) != NULL; isa_++)                                                           \
        if ((sp__isa_by_name(name) != NULL) && (sp__isa = sp__isa_conv = sp__isa_by_name(name)))

#endif
