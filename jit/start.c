/* Starting the library: every layer registers what it provides, from the bottom up.
 *
 * A constructor, so that no program has to remember it; in the one object file that both the Python
 * extension and the C library always link. Safe to call again.
 */
#include "jit/start.h"

#include <pthread.h>

#include "autograd/autograd.h"
#include "backends/cpu/register.h"
#include "jit/jit.h"

static void start(void)
{
    sp__cpu_register();
    sp__autograd_register();
    sp__jit_register();
}

void sp__start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start);
}

static __attribute__((constructor)) void start_with_program(void)
{
    sp__start();
}
