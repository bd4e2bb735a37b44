/* Picks the instruction set, once.
 *
 * SPOOL_ISA=baseline|avx2|avx512 asks for one; one that this build or this machine does not have is
 * passed over.
 *
 * Convolutions take AVX2's on Zen 4, which runs 512-bit arithmetic in two halves: nothing is gained
 * by it, and it loses where rows are no multiple of 16 and on loads across cache lines. GFLOP/s of
 * 16x64x8x8, 64x64x3x3 there, forward and to w: 82 and 78 by AVX-512, 93 and 86 by AVX2; of
 * 16x16x32x32, 16x16x3x3: 102 and 84, 104 and 98.
 */
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cpu/lanes.h"

#define SP_ISA_SET(name) extern const sp_isa sp__isa_##name;
#include "backends/cpu/isa_sets.h"

const sp_isa *sp__isa, *sp__isa_conv;

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

/* Zen 3 and 4; Zen 3 has no AVX-512. */
static bool runs_512_bits_in_halves(void)
{
    unsigned a, b, c, d, family;
    if (!__get_cpuid(0, &a, &b, &c, &d) || b != signature_AMD_ebx) return false;
    __get_cpuid(1, &a, &b, &c, &d);
    family = (a >> 8 & 0xf) + (a >> 20 & 0xff);
    return family == 0x19;
}

void sp__isa_start(void)
{
    static const char *const best_first[] = {"avx512", "avx2", "baseline"};
    const char *asked = getenv("SPOOL_ISA");
    const sp_isa *avx2 = sp__isa_by_name("avx2");
    sp__isa = sp__isa_conv = asked != NULL ? sp__isa_by_name(asked) : NULL;
    for (int i = 0; sp__isa == NULL && i < 3; i++) sp__isa = sp__isa_by_name(best_first[i]);
    if (sp__isa_conv == NULL)
        sp__isa_conv = avx2 != NULL && runs_512_bits_in_halves() ? avx2 : sp__isa;
}
