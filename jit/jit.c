/* jit functions: their life, and entering and leaving calls. */
#include "jit/jit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/region_int.h"
#include "tensor/memory.h"

enum { MAX_STRAYS = 32 };

static bool is_off(void)
{
    static int off = -1;
    if (off < 0) {
        const char *text = getenv("SPOOL_JIT");
        off = text && strcmp(text, "0") == 0;
    }
    return off;
}

/* ---- life ----- */

sp_status sp__jit_new(const char *name, sp_jit **out)
{
    sp_jit *j = sp__alloc_zero(sizeof *j);
    *out = NULL;
    if (!j) return sp_fail(SP_EMEMORY, "jit: no memory for a function");
    if (sp__step_root(&j->entry) != SP_OK) {
        sp__free(j, sizeof *j);
        return SP_EMEMORY;
    }
    j->refs = 1;
    snprintf(j->name, sizeof j->name, "%s", name);
    *out = j;
    return SP_OK;
}

void sp__jit_retain(sp_jit *j)
{
    j->refs++;
}

void sp__jit_drop(sp_jit *j)
{
    if (!j || --j->refs > 0) return;
    if (j->idle) sp__region_free(j->idle);
    sp__step_free_tree(j->entry);
    for (int i = 0; i < j->n_reasons; i++) sp__free(j->reasons[i], strlen(j->reasons[i]) + 1);
    sp__free(j, sizeof *j);
}

void sp__jit_reason(sp_jit *j, const char *text)
{
    for (int i = 0; i < j->n_reasons; i++)
        if (strcmp(j->reasons[i], text) == 0) return;
    if (j->n_reasons == SP_JIT_REASONS) return;
    char *copy = sp__dup(text, strlen(text) + 1);
    if (copy) j->reasons[j->n_reasons++] = copy;
}

/* ---- regions of a function ----- */

/* An open or stuck region keeps its function alive; an idle one belongs to it. */
static sp_status take_region(sp_jit *j, sp_region **out)
{
    *out = j->idle;
    j->idle = NULL;
    if (!*out) SP_RETURN_IF(sp__region_new(j, out));
    sp__jit_retain(j);
    return SP_OK;
}

static void give_region(sp_region *r)
{
    sp_jit *j = r->jit;
    r->open = false;
    if (r->mode == SP_REGION_STUCK) {
        r->next = j->stuck, j->stuck = r;
        return;
    }
    if (j->idle)
        sp__region_free(r);
    else
        j->idle = r;
    sp__jit_drop(j);
}

void sp__jit_region_done(sp_region *r)
{
    sp_region **at = &r->jit->stuck;
    while (*at && *at != r) at = &(*at)->next;
    if (!*at) return;
    *at = r->next;
    give_region(r);
}

static void retry_stuck(sp_jit *j)
{
    for (sp_region *r = j->stuck, *next; r; r = next) {
        next = r->next;
        if (sp__region_end(r, SP_END_CALL) == SP_OK) sp__jit_region_done(r);
    }
}

/* ---- calls ----- */

sp_status sp__jit_open(sp_jit *j, sp_region **out)
{
    sp_region *r;
    *out = NULL;
    if (SP_UNLIKELY(j->stuck != NULL)) retry_stuck(j);
    SP_RETURN_IF(take_region(j, &r));
    sp_status status = sp__region_begin(r);
    if (SP_LIKELY(status == SP_OK))
        *out = r;
    else
        give_region(r);
    return status;
}

/* When call after call gives up at once, not even entering a region pays. */
static void judge(sp_jit *j, const sp_region *r)
{
    j->strays = r->mode == SP_REGION_OFF && r->compiled_ops == 0 ? j->strays + 1 : 0;
    if (j->strays < MAX_STRAYS) return;
    j->dropped = true;
    sp__jit_reason(j, "dropped: it ran eagerly so often that it is no longer followed");
}

static void count_call(sp_jit *j, const sp_region *r)
{
    judge(j, r);
    j->calls++;
    j->ops = r->ops, j->compiled_ops = r->compiled_ops, j->breaks = r->breaks;
}

sp_status sp__jit_close(sp_region *r, sp_region_why why)
{
    sp_status status = sp__region_end(r, why);
    count_call(r->jit, r);
    give_region(r);
    return status;
}

sp_status sp__jit_enter(sp_jit *j, sp_jit_frame *f)
{
    f->region = NULL, f->outer = sp__tls.tracer;
    if (j->dropped || is_off()) return SP_OK;
    if (f->outer && !sp__hot_is(f->outer)) return SP_OK; /* part of the outer region or capture */
    if (f->outer) SP_RETURN_IF(sp__hot_flush());
    SP_RETURN_IF(sp__jit_open(j, &f->region));
    sp__tls.tracer = &f->region->tracer;
    return SP_OK;
}

sp_status sp__jit_leave(sp_jit_frame *f, bool failed)
{
    if (!f->region) return SP_OK;
    sp__tls.tracer = f->outer;
    return sp__jit_close(f->region, failed ? SP_END_ERROR : SP_END_CALL);
}

void sp__jit_register(void)
{
    sp__region_register();
    sp__hot_register();
}
