/* Picks the instruction set, once.
 *
 * SPOOL_ISA=baseline|avx2|avx512 asks for one; one that this build or this machine does not have is
 * passed over.
 */
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cpu/lanes.h"

#define SP_ISA_SET(name) extern const sp_isa sp__isa_##name;
#include "backends/cpu/isa_sets.h"

const sp_isa *sp__isa;

/* Conversions of float16; clang 14 has no name for it in __builtin_cpu_supports(). */
static bool machine_has_f16c(void)
{
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool machine_has(const char *name)
{
    __builtin_cpu_init();
    if (strcmp(name, "avx2") == 0)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               machine_has_f16c();
    if (strcmp(name, "avx512") == 0) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    }
    return strcmp(name, "baseline") == 0;
}

const sp_isa *sp__isa_by_name(const char *name)
{
    static const sp_isa *const sets[] = {
#define SP_ISA_SET(name) &sp__isa_##name,
#include "backends/cpu/isa_sets.h"
    };
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (strcmp(sets[i]->name, name) == 0) return machine_has(name) ? sets[i] : NULL;
    }
    return NULL;
}

void sp__isa_start(void)
{
    static const char *const best_first[] = {"avx512", "avx2", "baseline"};
    const char *asked = getenv("SPOOL_ISA");
    sp__isa = asked != NULL ? sp__isa_by_name(asked) : NULL;
    for (int i = 0; sp__isa == NULL && i < 3; i++) sp__isa = sp__isa_by_name(best_first[i]);
}
