/* For test programs that fork: lets ThreadSanitizer allow it.
 *
 * A forked child has not joined the threads that its parent had, and may start some of its own.
 */
#ifndef SP_TEST_FORK_H
#define SP_TEST_FORK_H

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SP_TEST_TSAN
#endif
#elif defined(__SANITIZE_THREAD__)
#define SP_TEST_TSAN
#endif

#ifdef SP_TEST_TSAN
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "report_thread_leaks=0:die_after_fork=0";
}
#endif

#endif
