/* Signals held back from a thread.
 *
 * Spool's own threads never take signals: those are for the threads of the program. A program's
 * thread holds them back while it runs code that a handler must not interrupt.
 */
#ifndef SP_SIGNALS_H
#define SP_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

typedef struct sp_held_signals {
    sigset_t before;
    bool outermost;
} sp_held_signals;

/* From here to the release no handler runs on this thread, and threads made meanwhile hold signals
 * back as well. Nests: only the outermost pair costs its two system calls. A thread of Spool's own
 * holds once, at its start, and never releases. */
void sp__signals_hold(sp_held_signals *h);
void sp__signals_release(const sp_held_signals *h);

#endif
