/* Random numbers: Philox 4x32-10, a function of (seed, offset) to 128 bits (Salmon et al., SC'11).
 *
 * A call of a random op carries the seed and an offset. Element i of a result comes from block
 * offset + i / n, where n is how many elements a block yields: 4 of float32, 2 of float64. The
 * offset advances, at issue and on the caller, by the blocks that the call needs; so numbers do not
 * depend on threads, on queueing, or on whether a result is used.
 * Of dropout, element i is kept if w[i % 4] of block offset + i / 4, in units of 2^-32, is p or
 * more.
 *
 * What numbers are made of, w being the block's four words:
 *
 * uniform, float32   (w[i % 4] >> 8) * 2^-24
 * uniform, float64   (w[2k] >> 11 | w[2k + 1] << 21) * 2^-53, k = i % 2
 * normal             Box and Muller on the pair (u, v) of uniforms that the elements 2j and 2j + 1
 *                    would be, u mirrored to (0, 1]: r = sqrt(-2 log(1 - u)); element 2j is
 *                    r cos(2 pi v), element 2j + 1 is r sin(2 pi v); all in the result's dtype
 *
 * The halves take words as float32 does, of which they keep as many bits as they have digits.
 */
#ifndef SP_RANDOM_H
#define SP_RANDOM_H

#include "ops/op.h"

/* Fills seed and offset of a random op's call, if they are absent, and advances the process'
 * offset. Whoever issues calls calls it before inference; a call that already carries them
 * (recomputation, a recorded graph) is left alone. */
void sp__random_issue(sp_call *c);

/* Blocks that numel elements of a dtype take; a complex one is two, its parts. */
static inline uint64_t sp__random_blocks(int64_t numel, int dtype)
{
    if (sp__dtype_is_complex(dtype)) numel *= 2, dtype = sp__dtype_real(dtype);
    uint64_t per_block = dtype == SP_FLOAT64 ? 2 : 4;
    return ((uint64_t)numel + per_block - 1) / per_block;
}

/* Takes that many blocks of the process' stream: its seed, and the offset of the first. */
void sp__random_take(uint64_t blocks, uint64_t *seed, uint64_t *offset);

/* The block at `offset`. */
static inline void sp__philox(uint64_t seed, uint64_t offset, uint32_t w[4])
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)offset, c1 = (uint32_t)(offset >> 32), c2 = 0, c3 = 0;
    for (int round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)0xD2511F53 * c0, q = (uint64_t)0xCD9E8D57 * c2;
        uint32_t n0 = (uint32_t)(q >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)q, c3 = (uint32_t)p;
        c0 = n0, c2 = n2;
        k0 += 0x9E3779B9, k1 += 0xBB67AE85;
    }
    w[0] = c0, w[1] = c1, w[2] = c2, w[3] = c3;
}

#endif
