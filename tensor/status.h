/* Failing with a message, and passing failure on.
 *
 * Invariant: whoever returns a status other than SP_OK has called sp_fail() on this thread, or
 * passes on the status of someone who has. A message names the op, what came in, what was expected
 * and what to do.
 */
#ifndef SP_STATUS_H
#define SP_STATUS_H

#include "spool.h"

/* Stores the formatted message for sp_last_error() and returns `status`, for `return
 * sp_fail(...)`. */
SP_API sp_status sp_fail(sp_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* Puts "prefix: " before the stored message: a caller's context for a callee's error. */
void sp__fail_prefix(const char *prefix) __attribute__((cold));

/* Leaves the function through its one `out:` label, with `status` set, when expr fails. */
#define SP_TRY(expr)                                                                               \
    do {                                                                                           \
        status = (expr);                                                                           \
        if (__builtin_expect(status != SP_OK, 0)) goto out;                                        \
    } while (0)

/* Returns at once when expr fails: for functions that own nothing yet. */
#define SP_RETURN_IF(expr)                                                                         \
    do {                                                                                           \
        sp_status status_ = (expr);                                                                \
        if (__builtin_expect(status_ != SP_OK, 0)) return status_;                                 \
    } while (0)

/* An invariant; checked in debug builds (-Db_ndebug=false), where a failure aborts with file and
 * line. */
#ifdef NDEBUG
#define SP_ASSERT(cond) ((void)sizeof(cond))
#else
void sp__assert_failed(const char *cond, const char *file, int line)
    __attribute__((noreturn, cold));
#define SP_ASSERT(cond) ((cond) ? (void)0 : sp__assert_failed(#cond, __FILE__, __LINE__))
#endif

#define SP_LIKELY(x)   __builtin_expect(!!(x), 1)
#define SP_UNLIKELY(x) __builtin_expect(!!(x), 0)

#endif
