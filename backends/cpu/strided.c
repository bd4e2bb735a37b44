/* Gather and scatter: an odometer over the outer dimensions, a run along the innermost.
 */
#include "backends/cpu/strided.h"

#include <string.h>

#include "backends/cpu/lanes.h"

/* A fixed-size memcpy is a load and a store; so every alignment is fine. */
#define COPY_LOOP(size, to, from)                                                                  \
    for (int64_t i = 0; i < n; i++)                                                                \
    memcpy((char *)dst + (to) * (size), (const char *)src + (from) * (size), size)

static void fill_run(void *dst, const void *src, int64_t size, int64_t n)
{
    if (size == 1)
        memset(dst, *(const unsigned char *)src, (size_t)n);
    else if (size == 2)
        COPY_LOOP(2, i, 0);
    else if (size == 4)
        COPY_LOOP(4, i, 0);
    else if (size == 8)
        COPY_LOOP(8, i, 0);
    else
        COPY_LOOP(16, i, 0);
}

enum { COPIED = 2048, PAGE = 4096, NEAR = 64, BACK = 128 };

/* Where the target lies a few bytes before or behind the source, as seen within a page, Zen 3 takes
 * what is read for what was just written. Longer copies of the C library are one instruction, which
 * then crawls (2.5 ms rather than 0.15 for 4 MB); shorter ones take twice their time where the
 * target is ahead, but not from the end. */
void sp__copy_bytes(void *dst, const void *src, int64_t n)
{
    char *to = dst;
    const char *from = src;
    uintptr_t ahead = ((uintptr_t)dst - (uintptr_t)src) % PAGE;
    if (ahead > 0 && ahead < NEAR)
        for (; n > BACK; n -= BACK) memcpy(to + n - BACK, from + n - BACK, BACK);
    for (; n > COPIED; n -= COPIED, to += COPIED, from += COPIED) memcpy(to, from, COPIED);
    memcpy(to, from, (size_t)n);
}

/* n elements of 4 bytes, from src on backwards. */
static void gather_back(void *dst, const void *src, int64_t n)
{
    typedef uint32_t four __attribute__((vector_size(16), aligned(1), may_alias));
    char *to = dst;
    const char *from = src;
    for (; n >= 4; n -= 4, to += 16, from -= 16) {
        four x = *(const four *)(const void *)(from - 12);
        *(four *)(void *)to = __builtin_shufflevector(x, x, 3, 2, 1, 0);
    }
    for (; n > 0; n--, to += 4, from -= 4) memcpy(to, from, 4);
}

void sp__gather_run(void *dst, const void *src, int64_t size, int64_t n, int64_t stride)
{
    if (stride == 1)
        sp__copy_bytes(dst, src, n * size);
    else if (stride == 0 && n > 0)
        fill_run(dst, src, size, n);
    else if (size == 4 && stride == -1)
        gather_back(dst, src, n);
    else if (size == 4)
        sp__isa->gather4(dst, src, 1, n, 0, stride);
    else if (size == 8)
        sp__isa->gather8(dst, src, 1, n, 0, stride);
    else if (size == 2)
        COPY_LOOP(2, i, i * stride);
    else if (size == 16)
        COPY_LOOP(16, i, i * stride);
    else
        COPY_LOOP(1, i, i * stride);
}

void sp__scatter_run(void *dst, const void *src, int64_t size, int64_t n, int64_t stride)
{
    if (stride == 1)
        sp__copy_bytes(dst, src, n * size);
    else if (size == 4)
        COPY_LOOP(4, i * stride, i);
    else if (size == 8)
        COPY_LOOP(8, i * stride, i);
    else if (size == 2)
        COPY_LOOP(2, i * stride, i);
    else if (size == 16)
        COPY_LOOP(16, i * stride, i);
    else
        COPY_LOOP(1, i * stride, i);
}

/* ---- odometer ----- */

typedef struct odometer {
    int64_t index[SP_MAX_RANK];
    int64_t offset; /* in elements */
} odometer;

static void odometer_set(odometer *o, const sp_operand *x, int64_t position)
{
    o->offset = 0;
    for (int d = x->rank - 1; d >= 0; d--) {
        o->index[d] = position % x->shape[d], position /= x->shape[d];
        o->offset += o->index[d] * x->stride[d];
    }
}

/* On to the next run: the innermost index was at its end. */
static void odometer_carry(odometer *o, const sp_operand *x)
{
    int d = x->rank - 1;
    o->offset -= o->index[d] * x->stride[d], o->index[d] = 0;
    while (--d >= 0) {
        o->offset += x->stride[d];
        if (++o->index[d] < x->shape[d]) return;
        o->offset -= o->index[d] * x->stride[d], o->index[d] = 0;
    }
}

typedef void (*run_fn)(void *dst, const void *src, int64_t size, int64_t n, int64_t stride);

/* Calls gather_run or scatter_run for every run of start .. start+n-1; `dense` is the other side.
 */
static inline __attribute__((always_inline)) void walk(const sp_operand *x, char *dense,
                                                       int64_t start, int64_t n, bool read)
{
    int64_t size = sp__size_of(x->dtype);
    if (n <= 0) return;
    if (x->rank == 0) {
        if (read)
            fill_run(dense, x->data, size, n);
        else
            memcpy(x->data, dense, (size_t)size);
        return;
    }
    int last = x->rank - 1;
    odometer o;
    if (start == 0)
        memset(o.index, 0, sizeof(int64_t) * x->rank), o.offset = 0;
    else
        odometer_set(&o, x, start);
    for (;;) {
        int64_t run = x->shape[last] - o.index[last];
        if (run > n) run = n;
        char *at = x->data + o.offset * size;
        if (read)
            sp__gather_run(dense, at, size, run, x->stride[last]);
        else
            sp__scatter_run(at, dense, size, run, x->stride[last]);
        n -= run, dense += run * size;
        if (n == 0) return;
        o.index[last] += run, o.offset += run * x->stride[last];
        odometer_carry(&o, x);
    }
}

/* All of a matrix with strided rows: no odometer. Small transposed operands are common. */
static void gather_plane(char *to, const sp_operand *x)
{
    int64_t size = sp__size_of(x->dtype), rows = x->shape[0], columns = x->shape[1],
            row = x->stride[0], column = x->stride[1];
    if (size == 4) {
        sp__isa->gather4(to, x->data, rows, columns, row, column);
    } else if (size == 8) {
        sp__isa->gather8(to, x->data, rows, columns, row, column);
    } else {
        for (int64_t i = 0; i < rows; i++)
            sp__gather_run(to + i * columns * size, x->data + i * row * size, size, columns,
                           column);
    }
}

void sp__gather(void *dst, const sp_operand *from, int64_t start, int64_t n)
{
    if (from->rank == 2 && n == from->numel && from->stride[1] > 1)
        gather_plane(dst, from);
    else
        walk(from, dst, start, n, true);
}

void sp__scatter(const sp_operand *to, const void *src, int64_t start, int64_t n)
{
    walk(to, (char *)(uintptr_t)src, start, n, false);
}

char *sp__element_at(const sp_operand *x, int64_t position)
{
    odometer o;
    odometer_set(&o, x, position);
    return x->data + o.offset * sp__size_of(x->dtype);
}

/* ---- geometry ----- */

bool sp__is_splat(const sp_operand *x)
{
    for (int d = 0; d < x->rank; d++) {
        if (x->stride[d] != 0 && x->shape[d] != 1) return false;
    }
    return true;
}

bool sp__is_dense(const sp_operand *x)
{
    int64_t expected = 1;
    for (int d = x->rank - 1; d >= 0; d--) {
        if (x->shape[d] == 1) continue;
        if (x->stride[d] != expected) return x->numel == 0;
        expected *= x->shape[d];
    }
    return true;
}

bool sp__walked_as_one(const sp_operand *x, int from, int to, int64_t *step)
{
    int64_t next = 0;
    bool any = false;
    for (int d = to - 1; d >= from; d--) {
        if (x->shape[d] == 1) continue;
        if (any && x->stride[d] != next) return false;
        if (!any) *step = x->stride[d];
        any = true, next = x->shape[d] * x->stride[d];
    }
    return true;
}

bool sp__operand_coalesce(sp_operand *x)
{
    int rank = 0;
    for (int d = 0; d < x->rank; d++) {
        if (x->shape[d] == 1) continue;
        bool merges = rank > 0 && x->stride[rank - 1] == x->shape[d] * x->stride[d];
        if (merges)
            x->shape[rank - 1] *= x->shape[d], x->stride[rank - 1] = x->stride[d];
        else
            x->shape[rank] = x->shape[d], x->stride[rank] = x->stride[d], rank++;
    }
    x->rank = (uint8_t)rank;
    x->contiguous = x->numel <= 1 || (rank == 1 && x->stride[0] == 1);
    return x->contiguous;
}
