/* all_finite: one look at every element, until one is not finite.
 */
#include <stdatomic.h>
#include <string.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "ops_gen.h"

enum { CHUNK = 16384, PIECE = 512 };

typedef struct job {
    const sp_operand *x;
    bool dense;
    _Atomic bool found; /* something that is not finite */
} job;

static void look_at_chunk(void *ctx, int64_t chunk)
{
    job *j = ctx;
    const sp_operand *x = j->x;
    double room[PIECE];
    uint8_t finite[PIECE];
    int64_t size = sp__size_of(x->dtype), end = (chunk + 1) * CHUNK;
    if (end > x->numel) end = x->numel;
    for (int64_t at = chunk * CHUNK; at < end && !atomic_load(&j->found); at += PIECE) {
        int64_t n = end - at < PIECE ? end - at : PIECE;
        const void *from = j->dense ? x->data + at * size : (char *)room;
        if (!j->dense) sp__gather(room, x, at, n);
        sp__isa->pointwise[SP_OP_ISFINITE]->fn[x->dtype](finite, from, NULL, NULL, n, 0);
        if (memchr(finite, 0, (size_t)n)) atomic_store(&j->found, true);
    }
}

/* no attributes */
sp_status sp__cpu_all_finite(const sp_kargs *args)
{
    bool found = false;
    for (int i = 1; i < args->n_arg && !found; i++) {
        job j = {.x = &args->arg[i], .dense = sp__is_dense(&args->arg[i])};
        int64_t n = args->arg[i].numel;
        sp__pool_for((n + CHUNK - 1) / CHUNK, (double)n * 0.2e-3, look_at_chunk, &j);
        found = atomic_load(&j.found);
    }
    *args->arg[0].data = !found;
    return SP_OK;
}
