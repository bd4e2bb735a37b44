/* What is compiled once per instruction set, and how the rest finds it.
 *
 * A lane function computes n elements of one pointwise op in one dtype, one vector function for
 * every element:
 *
 *     fn(dst, a, b, c, n, splat)      bit k of splat: operand k is one element, used for all n
 *
 * Invariants
 * 1. An element's bits depend on its operands alone: not on its position, on n, on alignment, or
 *    on the other elements.
 * 2. dst may be the same address as an operand of the same element size; no other overlap.
 * 3. Operands need no alignment beyond their element's.
 * 4. Nothing is read beyond n elements.
 */
#ifndef SP_CPU_LANES_H
#define SP_CPU_LANES_H

#include "backends/cpu/update.h"
#include "tensor/backend.h"
#include "tensor/dtype.h"

typedef void (*sp_lane_fn)(void *dst, const void *a, const void *b, const void *c, int64_t n,
                           unsigned splat);

/* sp_lanes.order: 0..2 a tensor input, SP_LANE_SCALAR0 + k the k-th scalar attribute */
enum { SP_LANE_SCALAR0 = 8 };

typedef struct sp_lanes {
    sp_lane_fn fn[SP_DTYPE_COUNT]; /* by the dtype computed in; NULL: none */
    uint8_t n_operands;
    uint8_t order[3]; /* which argument of the op each operand is */
    bool to_bool;     /* yields bool; otherwise the dtype computed in, or ... */
    bool to_real;     /* ... the dtype of its parts */
    bool bool_first;  /* operand 0 is bool, whatever the op computes in */
    bool of_real;     /* operands are of the dtype of its parts */
    float ns;         /* an element, about; for predictions */
} sp_lanes;

enum { SP_REDUCE_LANES = 16, SP_REDUCE_BLOCK = 256, SP_REDUCE_ROWS = 16 };

/* The steps of a reduction's tree (reduce.h), in one dtype; counts, from one dtype to int64 lanes.
 * NULL functions: not in this dtype. */
typedef struct sp_reduce_lanes {
    /* SP_REDUCE_LANES lanes over n <= SP_REDUCE_BLOCK elements: lane[i] = p[i] op p[i + 16] op ...,
     * in that order. */
    void (*block)(const void *p, int64_t n, void *lane);
    /* lane[i] = lane[i] op other[i], n elements. */
    void (*combine)(void *lane, const void *other, int64_t n);
    /* All lanes to one: 8 with 8, 4 with 4, 2 with 2, 1 with 1. */
    void (*finish)(const void *lane, void *out);
    /* The whole tree over n contiguous elements, as lanes. */
    void (*tree)(const void *p, int64_t n, void *lane);
    /* out[j] = row[0][j] op row[1][j] op ..., in that order, over n_row >= 1 rows of n elements. */
    void (*columns)(const void *const *row, int n_row, int64_t n, void *out);
} sp_reduce_lanes;

typedef enum sp_reduce_kind {
    SP_TREE_SUM,
    SP_TREE_MAX,
    SP_TREE_MIN,
    SP_TREE_PROD,
    SP_TREE_NANSUM, /* NaN counts as 0 */
    SP_TREE_COUNT,  /* of elements that are not 0 */
    SP_TREE_KINDS
} sp_reduce_kind;

/* c = a b for sizes at which a call of BLAS costs more than the product; strides in elements, c
 * dense. Each element is the sum over k in order, by fused multiply-adds where the instruction set
 * has them. */
typedef void (*sp_gemm_small_fn)(int64_t m, int64_t n, int64_t k, const void *a, int64_t a_row,
                                 int64_t a_col, const void *b, int64_t b_row, int64_t b_col,
                                 void *c);

/* to[i][j] += the sum over n columns of |x[i] - y[j]| to the power of p: squares for 2, counts of
 * what is not 0 for 0, to[i][j] the largest for infinity. Rows of x are x_row elements apart, y is
 * packed (lanes_distance.h), to[] has rows of SP_DISTANCE_TILE. */
enum { SP_DISTANCE_TILE = 16 };
typedef void (*sp_distance_fn)(const void *x, int64_t x_row, int64_t rows, const void *y, int64_t n,
                               double p, double *to);

/* What is made of random words in one dtype (ops/random.h). */
typedef struct sp_random_lanes {
    /* n results of `digits` bits, normal ones in pairs; n is rounded up to SP_RANDOM_STEP */
    void (*uniform)(const uint32_t *words, int64_t n, int digits, void *to);
    void (*normal)(const uint32_t *words, int64_t n, int digits, double scale, void *to);
    /* x * scale where word i is not below `least`, elsewhere 0 */
    void (*drop)(const uint32_t *words, const void *x, int64_t n, uint32_t least, double scale,
                 void *to);
} sp_random_lanes;

enum { SP_RANDOM_STEP = 32 };

/* Inner loops of pooling, and of columns of convolutions, in one dtype; lanes_pooling.h says what
 * they compute. NULL: not in this dtype. */
typedef struct sp_pool_lanes {
    void (*max)(void *best, void *at, const void *x, const int64_t *offset, const int64_t *place,
                int64_t k, int64_t n);
    void (*most)(void *best, const void *x, const int64_t *offset, int64_t k, int64_t n);
    void (*places)(int64_t *to, const void *at, int64_t rows, int64_t n, int64_t wide,
                   int64_t first, int64_t row, int64_t step);
    void (*sum)(void *sum, const void *x, const int64_t *offset, int64_t k, int64_t n);
    void (*divide)(void *to, int64_t to_row, const void *from, int64_t from_row, int64_t rows,
                   int64_t n, const double *down, const void *across);
    void (*take)(void *to, int64_t to_row, const void *from, int64_t from_row, int64_t step,
                 int64_t rows, int64_t n);
    void (*put)(void *to, int64_t to_row, int64_t step, const void *from, int64_t from_row,
                int64_t rows, int64_t n);
    void (*add)(void *to, int64_t to_row, int64_t step, const void *from, int64_t from_row,
                int64_t rows, int64_t n);
    void (*frame)(void *to, int64_t width, int64_t first, const void *from, int64_t from_row,
                  int64_t step, int64_t rows, int64_t n);
    void (*share)(void *y, const void *x, const int64_t *in, const int64_t *out,
                  const int64_t *const *start, const int64_t *const *end, void *room);
    void (*spread)(void *x, const void *y, const int64_t *in, const int64_t *out,
                   const int64_t *const *start, const int64_t *const *end, void *room);
    void (*largest)(void *y, int64_t *places, const void *x, const int64_t *in, const int64_t *out,
                    const int64_t *const *start, const int64_t *const *end, void *room);
} sp_pool_lanes;

/* Inner loops of resample, in one dtype; lanes_resample.h says what they compute. */
typedef struct sp_resample_lanes {
    void (*add)(void *to, const void *from, double weight, int64_t n);
    void (*blend)(void *to, const void *x, int64_t row, const int64_t *at, const double *weight,
                  int taps, int64_t n);
    void (*pick)(void *to, const void *x, const int64_t *at, const double *weight, int taps,
                 int64_t n);
    void (*place)(void *x, const void *from, const int64_t *at, const double *weight, int taps,
                  int64_t n);
} sp_resample_lanes;

/* A run of a convolution's positions: of up to a vector's. x: of its first element in the frame,
 * for the kernel element at 0; y: of its first element in a channel of the result. */
typedef struct sp_conv_spot {
    int64_t x, y, n;
} sp_conv_spot;

/* Inner loops of direct convolutions, in one dtype; rows are channels of the result, y_row elements
 * apart. NULL: not in this dtype. */
typedef struct sp_conv_lanes {
    int64_t width; /* of a vector */
    /* y[r][s.y + i] = start[r] + the sum over k of w[k][r] x[s.x + offset[k] + i]; start NULL: 0;
     * more: what y holds instead. w is packed (conv_direct.c). Whole vectors of x are read. */
    void (*result)(const sp_conv_spot *spot, int64_t n_spots, const void *x, const int64_t *offset,
                   int64_t k, const void *w, int64_t rows, const void *start, bool more, void *y,
                   int64_t y_row);
    /* w[r][k] += the sum over spots and i of y[r][s.y + i] x[s.x + offset[k] + i]; spots are whole
     * vectors, or all are not. */
    void (*weight)(const sp_conv_spot *spot, int64_t n_spots, const void *x, const int64_t *offset,
                   int64_t k, const void *y, int64_t y_row, int64_t rows, void *w, int64_t w_row);
} sp_conv_lanes;

typedef struct sp_isa {
    const char *name;                 /* "baseline", "avx2", "avx512" */
    const sp_lanes *const *pointwise; /* indexed by opcode; NULL: not pointwise */
    const sp_lanes *const *complex; /* likewise, of ops that compute with complex numbers; NULL: as
                                     * pointwise says */
    sp_lane_fn cast[SP_DTYPE_COUNT][SP_DTYPE_COUNT]; /* [from][to]; b, c unused */
    sp_reduce_lanes reduce[SP_TREE_KINDS][SP_DTYPE_COUNT];
    sp_gemm_small_fn gemm_small[SP_DTYPE_COUNT];
    /* sum = a[0] b[0] + a[1] b[1] + ..., in complex128, of complex dtypes; or a's conjugates */
    void (*dot[SP_DTYPE_COUNT])(const void *a, const void *b, int64_t n, bool conjugate, void *sum);
    sp_distance_fn distance[SP_DTYPE_COUNT];
    const struct sp_rows *const *rows;            /* rows.h, by dtype; NULL: not in this dtype */
    const sp_update_fn (*update)[SP_DTYPE_COUNT]; /* by sp_update_kind */
    /* Blocks of four words, their number rounded up to 8. */
    void (*random_words)(uint64_t seed, uint64_t offset, int64_t blocks, uint32_t *to);
    sp_random_lanes random[SP_DTYPE_COUNT];
    sp_pool_lanes pool[SP_DTYPE_COUNT];
    sp_conv_lanes conv[SP_DTYPE_COUNT];
    sp_resample_lanes resample[SP_DTYPE_COUNT];
    /* rows x columns elements of 4 (8) bytes, their strides in elements, to a dense run */
    void (*gather4)(void *dst, const void *src, int64_t rows, int64_t columns, int64_t row,
                    int64_t column);
    void (*gather8)(void *dst, const void *src, int64_t rows, int64_t columns, int64_t row,
                    int64_t column);
} sp_isa;

/* The instruction set in use: the best one of the machine, or the one that SPOOL_ISA names; and the
 * one whose convolutions are the fastest there (isa.c). Set by sp__isa_start(). */
extern const sp_isa *sp__isa, *sp__isa_conv;
void sp__isa_start(void);

/* The row of an op for calls that compute in this dtype; NULL: it is not pointwise. */
static inline const sp_lanes *sp__lanes_of(int op, int compute)
{
    const sp_lanes *row =
        __builtin_expect(compute >= SP_COMPLEX64, 0) ? sp__isa->complex[op] : NULL;
    return row ? row : sp__isa->pointwise[op];
}

/* The dtype that the row's functions take as operand k. */
static inline int sp__lanes_take(const sp_lanes *l, int k, int compute)
{
    return k == 0 && l->bool_first ? SP_BOOL : l->of_real ? sp__dtypes[compute].real : compute;
}

/* The dtype that they yield. */
static inline int sp__lanes_yield(const sp_lanes *l, int compute)
{
    return l->to_bool ? SP_BOOL : l->to_real ? sp__dtypes[compute].real : compute;
}

/* The set of that name, or NULL when this build or this machine does not have it. For tests. */
const sp_isa *sp__isa_by_name(const char *name);

#endif
