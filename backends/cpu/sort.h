/* Elements as keys with positions: unsigned numbers in the elements' order (sort.c).
 */
#ifndef SP_CPU_SORT_H
#define SP_CPU_SORT_H

#include "tensor/backend.h"

typedef struct entry {
    uint64_t key;
    int64_t at;
} entry;

/* n elements of x from `from` on, in row-major order; flip: keys in descending order. */
void sp__entries_read(const sp_operand *x, int64_t from, int64_t n, bool flip, entry *out);

/* Sorts n entries of elements of dtype, stably. The result is in e or in room, as returned. */
entry *sp__entries_sort(entry *e, entry *room, int64_t n, int dtype);

#endif
