/* The tape: nodes in issue order, what they saved, and who hangs on them.
 *
 *     x (leaf: meta->leaf) ---------+
 *                                  +--> node 7: mul, saved x y --> z (meta->node = 7, out_nr 0)
 *     y (meta->node = 5) ----------+
 *
 * Invariants
 * 1. A node's sequence number is larger than that of every node it leads to; the engine walks a
 * heap of them, largest first, without recursion; so does freeing.
 * 2. Saved values are handles. A saved input keeps the handle itself; a saved output keeps an alias
 * without history, which gets its history back when the node is run, so that no node keeps itself
 * alive.
 * 3. A saved value whose storage version moved since is EGRAD, naming the op that saved it and both
 * versions.
 * 4. A gradient slot is NULL for zero (symbolic); formulas see zeros only if they ask.
 */
#ifndef SP_TAPE_H
#define SP_TAPE_H

#include "ops/dispatch.h"

typedef struct sp_node sp_node;

typedef struct sp_edge { /* where a gradient goes: input nr of node; node NULL: nowhere */
    sp_node *node;       /* owned reference */
    int32_t nr;
} sp_edge;

/* What a generated vjp sees. Everything is borrowed but gx. */
typedef struct sp_vjp_args {
    sp_tensor *const *in;   /* inputs the formulas read; the others are NULL */
    sp_tensor *const *out;  /* outputs the formulas read */
    const sp_meta *in_meta; /* geometry of every input, for formulas that need only that */
    const sp_meta *out_meta;
    const sp_attr *attr;
    sp_tensor *const *gy; /* one an output; NULL: zero. At least one is set. */
    int32_t n_in;
    uint64_t need;  /* bit i: gx[i] is wanted */
    sp_tensor **gx; /* filled with new references; NULL: zero */
} sp_vjp_args;
typedef sp_status (*sp_vjp_fn)(const sp_vjp_args *a);

/* What a generated jvp sees. */
typedef struct sp_jvp_args {
    sp_tensor *const *in, *const *out; /* primals, all present */
    const sp_attr *attr;
    sp_tensor *const *t; /* tangents of the inputs; NULL: zero. At least one is set. */
    int32_t n_in;
    sp_tensor **ty; /* filled with new references; NULL: zero */
} sp_jvp_args;
typedef sp_status (*sp_jvp_fn)(const sp_jvp_args *a);

/* The bit of input i in a mask of inputs. Of an op over many tensors, all from the 63rd on share
 * one. */
static inline uint64_t sp__in_bit(int i)
{
    return UINT64_C(1) << (i < 63 ? i : 63);
}

typedef struct sp_rule { /* generated: autograd_gen.c, indexed by opcode */
    sp_vjp_fn vjp;       /* NULL: not differentiable, or composite without formulas of its own */
    sp_jvp_fn jvp;       /* NULL: linear, or by the vjp twice */
    uint64_t saves_in;   /* bit i: some formula reads input i's values */
    uint32_t saves_out;
    const uint64_t *vjp_reads_in; /* per input i: which inputs gx[i] reads, so that only needed
                                     values are saved */
    const uint32_t *vjp_reads_out;
    const uint64_t *vjp_bends_in; /* the same, but only where gx[i] has a derivative by what it
                                     reads: not where it compares, or takes a sign */
    const uint32_t *vjp_bends_out;
    uint32_t jvp_bends_out; /* the outputs that the jvp formula has a derivative by */
} sp_rule;
extern const sp_rule sp__rules[];

#endif
