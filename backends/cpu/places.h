/* Loops over an index: the elements of one operand that it names, and those of another that stand
 * at its positions.
 *
 *      indexed[i, index[i, j]]   with   dense[i, j]        one shape for index and dense
 *
 * An index of slices is one whose strides are 0 but along the dimension. Negative ones count from
 * the end. Indices are checked on the way, so that they come from memory once: who writes to what
 * may be an argument has checked them before.
 *
 * Invariants
 * 1. What meets at one place is dealt with in row-major order of the index, by one thread:
 * positions that name one place differ along the dimension alone, and that is not shared out.
 * 2. A result's bits depend on neither geometry nor threads: rows of slices go through the vector
 *    functions of the same operation.
 */
#ifndef SP_CPU_PLACES_H
#define SP_CPU_PLACES_H

#include "tensor/backend.h"

typedef enum sp_meeting {
    SP_PLACES_READ,  /* dense = indexed */
    SP_PLACES_WRITE, /* indexed = dense; of several, the last one stays */
    SP_PLACES_ADD,   /* indexed += dense */
    SP_PLACES_MUL,
    SP_PLACES_MAX, /* NaN wins */
    SP_PLACES_MIN
} sp_meeting;

/* `dim` of `indexed`; index and dense have as many dimensions. False: some indices are out of
 * range, and the result is not what it should be. */
bool sp__places_run(sp_meeting how, const sp_operand *index, const sp_operand *dense,
                    const sp_operand *indexed, int dim);

/* A list of indices as one an element of `like`, along dim. */
sp_operand sp__places_of_slices(const sp_operand *list, const sp_operand *like, int dim);

/* How often each of the numbers from 0 on stands in x, dense. False: there are others. */
bool sp__places_count(const int64_t *x, int64_t n, int64_t numbers, int64_t *count);

#endif
