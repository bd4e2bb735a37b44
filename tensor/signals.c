/* Signals held back from a thread: the mask, and whether this thread holds already. */
#include "tensor/signals.h"

/* What an instruction of the thread itself raises: nothing can be done later. */
static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
static _Thread_local bool held;

void sp__signals_hold(sp_held_signals *h)
{
    h->outermost = !held;
    if (held) return;
    sigset_t from_others;
    sigfillset(&from_others);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&from_others, own[i]);
    pthread_sigmask(SIG_BLOCK, &from_others, &h->before);
    held = true;
}

void sp__signals_release(const sp_held_signals *h)
{
    if (!h->outermost) return;
    held = false;
    pthread_sigmask(SIG_SETMASK, &h->before, NULL);
}
