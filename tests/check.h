/* What every C test file shares: a table of tests, run by CUnit, an exit status for the build.
 *
 *     static void one_thing_holds(void) { CHECK(1 + 1 == 2); }
 *     SUITE("folder/file", TEST(one_thing_holds))
 */
#ifndef SP_TEST_CHECK_H
#define SP_TEST_CHECK_H

#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spool.h"

#define CHECK(cond) CU_ASSERT(cond)
/* The test cannot go on without it. */
#define NEED(cond) CU_ASSERT_FATAL(cond)
/* A call that must succeed; says why it did not. */
#define OK(expr) need_ok((expr), #expr)
/* A call that must fail with `status` and a message that contains `part`. */
#define FAILS(expr, status, part) check_fails((expr), (status), (part), #expr)

static inline void need_ok(sp_status status, const char *what)
{
    if (status) fprintf(stderr, "\n  %s: %s: %s\n", what, sp_status_name(status), sp_last_error());
    CU_ASSERT_EQUAL_FATAL(status, SP_OK);
}

static inline void check_fails(sp_status status, sp_status expected, const char *part,
                               const char *what)
{
    bool right = status == expected && strstr(sp_last_error(), part);
    if (!right)
        fprintf(stderr, "\n  %s: %s \"%s\"; expected %s with \"%s\"\n", what,
                sp_status_name(status), sp_last_error(), sp_status_name(expected), part);
    CU_ASSERT(right);
}

typedef struct test_case {
    const char *name;
    CU_TestFunc run;
} test_case;

#define TEST(fn)                                                                                   \
    {                                                                                              \
#fn, fn                                                                                    \
    }
#define SUITE(name, ...)                                                                           \
    int main(void)                                                                                 \
    {                                                                                              \
        static const test_case cases[] = {__VA_ARGS__};                                            \
        return run_suite(name, cases, sizeof cases / sizeof *cases);                               \
    }

static inline int run_suite(const char *name, const test_case *cases, size_t n)
{
    if (CU_initialize_registry() != CUE_SUCCESS) return 2;
    CU_pSuite suite = CU_add_suite(name, NULL, NULL);
    for (size_t i = 0; suite && i < n; i++)
        if (!CU_add_test(suite, cases[i].name, cases[i].run)) suite = NULL;
    if (!suite) return 2;
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_basic_run_tests();
    int failed = CU_get_number_of_failures() != 0;
    CU_cleanup_registry();
    return failed;
}

#endif
