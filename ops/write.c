/* Notes of writes in place. */
#include "ops/write.h"

#include <stdio.h>
#include <string.h>

#include "tensor/memory.h"

static sp_write *keep(sp_write *note)
{
    atomic_fetch_add_explicit(&note->refs, 1, memory_order_relaxed);
    return note;
}

void sp__write_drop(sp_write *note)
{
    if (!note || atomic_fetch_sub_explicit(&note->refs, 1, memory_order_acq_rel) > 1) return;
    if (note->where.code && sp__where_hooks.drop) sp__where_hooks.drop(&note->where);
    sp__free(note, sizeof *note);
}

static sp_write *note_new(int op)
{
    sp_write *note = sp__alloc(sizeof *note);
    if (!note) return NULL; /* the write itself is done: it only stays without a name */
    atomic_init(&note->refs, 1);
    note->op = op;
    note->where = (sp__where){NULL, 0};
    if (sp__where_hooks.here) sp__where_hooks.here(&note->where);
    return note;
}

/* Later writes, until a node saves again, are of no interest: what they overwrite nobody misses. */
void sp__write_note(sp_storage *s, int op, sp_write **shared)
{
    s->flags &= (uint8_t)~SP_S_SAVED;
    sp_write *note = shared && *shared ? *shared : note_new(op);
    if (!note) return;
    if (s->flags & SP_S_NOTED) sp__write_drop(s->write);
    s->flags |= SP_S_NOTED;
    s->noted = s->version;
    s->write = shared ? keep(note) : note;
    if (shared) *shared = note;
}

sp_write *sp__write_after(const sp_storage *s, uint32_t version, bool *first)
{
    if (!(s->flags & SP_S_NOTED) || (int32_t)(s->noted - version) <= 0) return NULL;
    *first = s->noted == version + 1;
    return keep(s->write);
}

/* "add_" for add.scalar, "copy_" for copy. */
static void written_name(int op, char *buf, size_t n)
{
    const char *name = op == SP_WRITE_BY_OTHERS ? "other code" : sp_op_table[op].name;
    int length = (int)strcspn(name, ".");
    bool mark = op != SP_WRITE_BY_OTHERS && length && name[length - 1] != '_';
    snprintf(buf, n, "%.*s%s", length, name, mark ? "_" : "");
}

const char *sp__write_text(const sp_write *note, char *buf, size_t n)
{
    char line[128] = "", function[64] = "";
    written_name(note->op, buf, n);
    if (!note->where.code || !sp__where_hooks.text) return buf;
    sp__where_hooks.text(&note->where, line, sizeof line);
    if (sp__where_hooks.function) sp__where_hooks.function(&note->where, function, sizeof function);
    size_t at = strlen(buf);
    snprintf(buf + at, n - at, " at %s%s%s", line, function[0] ? " in " : "", function);
    return buf;
}
