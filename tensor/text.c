/* The text builder. */
#include "tensor/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tensor/memory.h"

/* Room for `more` characters and the final zero. */
static bool make_room(sp_text *t, size_t more)
{
    if (t->failed) return false;
    size_t need = t->len + more + 1;
    if (need <= t->room) return true;
    size_t room = t->room * 2 > need ? t->room * 2 : need + 64;
    char *buf = sp__realloc(t->buf, t->room, room);
    t->failed = !buf;
    if (t->failed) return false;
    t->buf = buf;
    t->room = room;
    t->buf[t->len] = '\0';
    return true;
}

void sp__text_add(sp_text *t, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n =
        vsnprintf(t->buf ? t->buf + t->len : NULL, t->failed ? 0 : t->room - t->len, format, args);
    if (n >= 0 && make_room(t, (size_t)n)) {
        vsnprintf(t->buf + t->len, t->room - t->len, format, again);
        t->len += (size_t)n;
    }
    va_end(again);
    va_end(args);
}

void sp__text_pad(sp_text *t, char c, int64_t n)
{
    if (n <= 0 || !make_room(t, (size_t)n)) return;
    memset(t->buf + t->len, c, (size_t)n);
    t->len += (size_t)n;
    t->buf[t->len] = '\0';
}

/* sp_text_free() knows only the string, so the block must be as long as the string is. */
sp_status sp__text_take(sp_text *t, const char *op, char **out)
{
    *out = t->failed ? NULL : sp__dup(t->buf ? t->buf : "", t->len + 1);
    size_t bytes = t->room;
    sp__text_drop(t);
    return *out ? SP_OK : sp_fail(SP_EMEMORY, "%s: out of memory: a text of %zu bytes", op, bytes);
}

void sp__text_drop(sp_text *t)
{
    sp__free(t->buf, t->room);
    *t = (sp_text){0};
}

void sp_text_free(char *text)
{
    if (text) sp__free(text, strlen(text) + 1);
}
