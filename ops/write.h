/* Writes in place: counted for each storage, and, where a node of the tape has saved what is
 * overwritten, noted with the user's line, so that a backward that misses the old value can name
 * it. Others cost one look at the storage's flags.
 */
#ifndef SP_WRITE_H
#define SP_WRITE_H

#include "ops/dispatch.h"

/* One noted write, shared by the storages that it wrote and by those who ask later. */
typedef struct sp_write {
    _Atomic int32_t refs;
    int32_t op; /* -1: other code than an op */
    sp__where where;
} sp_write;

enum { SP_WRITE_BY_OTHERS = -1 };

void sp__write_note(sp_storage *s, int op, sp_write **note);
void sp__write_drop(sp_write *note);

/* s was written once more by op. `note`, NULL at first, is shared by the writes of one call, and
 * dropped by the caller after the last. */
static inline void sp__written_with(sp_storage *s, int op, sp_write **note)
{
    s->version++;
    if (SP_UNLIKELY(s->flags & SP_S_SAVED)) sp__write_note(s, op, note);
}
static inline void sp__written(sp_storage *s, int op)
{
    s->version++;
    if (SP_UNLIKELY(s->flags & SP_S_SAVED)) sp__write_note(s, op, NULL);
}

/* The write that made a later version than this of s out of it, as one more reference; NULL: it was
 * not noted. *first: it is the very next. */
sp_write *sp__write_after(const sp_storage *s, uint32_t version, bool *first);
/* "add_ at train.py:12 in step" into buf, which is returned. */
const char *sp__write_text(const sp_write *note, char *buf, size_t n);
#define SP_WRITE_TEXT 256

#endif
