/* What the autograd tests share: making small tensors, looking at their values, and counting what
 * is left over.
 */
#ifndef SP_TEST_AUTOGRAD_SUPPORT_H
#define SP_TEST_AUTOGRAD_SUPPORT_H

#include <math.h>

#include "autograd/autograd.h"
#include "autograd/transform.h"
#include "ops_gen.h"
#include "tensor/memory.h"
#include "tests/check.h"

#define SHAPE(...)                                                                                 \
    ((int64_t[]){__VA_ARGS__}), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))
/* VALUES(t, 1, 2, 3): t holds these numbers in row-major order. */
#define VALUES(t, ...)                                                                             \
    check_values(t, (double[]){__VA_ARGS__},                                                       \
                 (int)(sizeof((double[]){__VA_ARGS__}) / sizeof(double)), __LINE__)

static inline sp_tensor *tensor(const int64_t *shape, int rank, const double *values)
{
    sp_tensor *t = NULL;
    OK(sp_from_data(values, SP_FLOAT64, rank, shape, &t));
    return t;
}

static inline sp_tensor *vector(int64_t n, const double *values)
{
    return tensor(&n, 1, values);
}

#define VECTOR(...)                                                                                \
    vector((int64_t)(sizeof((double[]){__VA_ARGS__}) / sizeof(double)), (double[]){__VA_ARGS__})

static inline sp_tensor *number(double value)
{
    return tensor(NULL, 0, &value);
}

static inline sp_tensor *leaf(sp_tensor *t)
{
    OK(sp_set_requires_grad(t, true));
    return t;
}

static inline void check_values(const sp_tensor *t, const double *wanted, int n, int line)
{
    double got[64];
    CU_ASSERT_PTR_NOT_NULL_FATAL(t);
    CU_ASSERT_EQUAL_FATAL(sp_numel(t), n);
    CU_ASSERT_EQUAL_FATAL(sp_dtype_of(t), SP_FLOAT64);
    OK(sp_copy_out(t, got, sizeof(double) * (size_t)n));
    for (int i = 0; i < n; i++) {
        bool close = fabs(got[i] - wanted[i]) <= 1e-9 * (1 + fabs(wanted[i]));
        if (!close)
            printf("\n    line %d, element %d: %.12g, wanted %.12g\n", line, i, got[i], wanted[i]);
        CU_ASSERT(close);
    }
}

static inline sp_tensor *sum_of(const sp_tensor *t)
{
    sp_tensor *total = NULL;
    OK(sp_sum(t, NULL, &total));
    return total;
}

static inline sp_tensor *grad_of(const sp_tensor *t)
{
    sp_tensor *g = NULL;
    OK(sp_grad_get(t, &g));
    return g;
}

/* Checks t.grad, or that there is none. */
#define GRAD_VALUES(t, ...)                                                                        \
    do {                                                                                           \
        sp_tensor *grad_ = grad_of(t);                                                             \
        VALUES(grad_, __VA_ARGS__);                                                                \
        sp_drop(&grad_);                                                                           \
    } while (0)

static inline int64_t live_blocks(void)
{
    sp_memory_stats stats;
    CU_ASSERT_EQUAL(sp_synchronize(), SP_OK);
    sp_memory_stats_get(&stats);
    return stats.live_blocks;
}

static inline void drop_list(sp_tensor **list[], int n)
{
    for (int i = 0; i < n; i++) sp_drop(list[i]);
}
#define DROP(...)                                                                                  \
    drop_list((sp_tensor **[]){__VA_ARGS__},                                                       \
              (int)(sizeof((sp_tensor **[]){__VA_ARGS__}) / sizeof(sp_tensor **)))

#endif
