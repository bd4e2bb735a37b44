/* A text that grows: for everything that sp_text_free() frees, and for messages without a bound.
 *
 * Invariant: after a failed allocation the builder swallows what follows; sp__text_take() reports
 * it once, at the end.
 */
#ifndef SP_TEXT_H
#define SP_TEXT_H

#include "tensor/status.h"

typedef struct sp_text {
    char *buf; /* NULL at first; zero-terminated otherwise */
    size_t len, room;
    bool failed;
} sp_text;

/* Appends, like printf. */
void sp__text_add(sp_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Appends n copies of c. */
void sp__text_pad(sp_text *t, char c, int64_t n);
/* Hands the text over, to be freed with sp_text_free(), and empties t. EMEMORY, naming `op`,
 * when anything got lost. */
SP_MUST_USE sp_status sp__text_take(sp_text *t, const char *op, char **out);
/* Gives the text up. */
void sp__text_drop(sp_text *t);

#endif
