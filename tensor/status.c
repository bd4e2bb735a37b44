/* The last error's text, one a thread, and the names of the statuses. */
#include "tensor/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A buffer in the thread's own block and not on the heap: running out of memory is reported
 * through it, too. */
static __thread char message[1024];

const char *sp_last_error(void)
{
    return message;
}

sp_status sp_fail(sp_status status, const char *format, ...)
{
    char text[sizeof message]; /* an argument may be the last message itself */
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n >= (int)sizeof text) strcpy(text + sizeof text - 4, "...");
    strcpy(message, text);
    return status;
}

void sp__fail_prefix(const char *prefix)
{
    char text[sizeof message];
    int n = snprintf(text, sizeof text, "%s: %s", prefix, message);
    if (n >= (int)sizeof text) strcpy(text + sizeof text - 4, "...");
    strcpy(message, text);
}

const char *sp_status_name(sp_status status)
{
    static const char *const names[] = {
        [SP_OK] = "OK",
        [SP_ESHAPE] = "ESHAPE",
        [SP_EDTYPE] = "EDTYPE",
        [SP_ETYPE] = "ETYPE",
        [SP_EVALUE] = "EVALUE",
        [SP_EINDEX] = "EINDEX",
        [SP_EMEMORY] = "EMEMORY",
        [SP_EDEVICE] = "EDEVICE",
        [SP_EGRAD] = "EGRAD",
        [SP_EIO] = "EIO",
        [SP_EFORMAT] = "EFORMAT",
        [SP_EUNSUPPORTED] = "EUNSUPPORTED",
        [SP_EINTERNAL] = "EINTERNAL",
        [SP_ECALLBACK] = "ECALLBACK",
    };
    size_t i = (size_t)status;
    return i < sizeof names / sizeof *names ? names[i] : "unknown status";
}

#ifndef NDEBUG
void sp__assert_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "spool: %s:%d: invariant broken: %s\n", file, line, cond);
    abort();
}
#endif
