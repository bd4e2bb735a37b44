/* Tensors as text, laid out like PyTorch's:
 *
 *     tensor([[1.0000, 2.5000],
 *             [3.0000, 4.2500]], dtype=spool.float64)
 *
 * All elements share one width and one style: whole numbers as `3.`, fractions with 4 digits,
 * scientific when magnitudes lie too far apart. More than THRESHOLD elements: the first and last
 * EDGE along each dimension.
 *
 * Two walks over the same elements: one to choose style and width, one to write.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tensor/backend.h"
#include "tensor/tensor.h"
#include "tensor/text.h"

enum {
    THRESHOLD = 1000,
    EDGE = 3,
    LINE = 80,
    INDENT = 7 /* "tensor(" */,
    NUMBER_TEXT = 352 /* DBL_MAX in full */
};

typedef struct style {
    bool whole, scientific; /* floating point: no fractions; exponents */
    bool any;               /* a finite number other than zero was seen */
    double least, most;     /* of their magnitudes */
    int width;
} style;

typedef struct printer {
    const sp_tensor *t; /* strided over `values` */
    const char *values;
    bool summarize;
    style style[2]; /* of numbers; of the imaginary parts of complex ones */
    int part;       /* which of them is looked at */
    sp_text text;
} printer;

/* ---- one element ----- */

static const char *address_of(const printer *p, int64_t at)
{
    return p->values + (at << sp__dtype_shift(p->t->dtype));
}

/* Of floating and complex numbers, the part looked at. */
static double as_double(const printer *p, int64_t at)
{
    double part[2];
    sp__complex_from(address_of(p, at), p->t->dtype, part);
    return part[p->part];
}

static int format_real(const style *s, double x, char *out)
{
    if (isnan(x)) return snprintf(out, NUMBER_TEXT, "nan");
    if (s->scientific) return snprintf(out, NUMBER_TEXT, "%.4e", x);
    if (!s->whole) return snprintf(out, NUMBER_TEXT, "%.4f", x);
    return snprintf(out, NUMBER_TEXT, isinf(x) ? "%.0f" : "%.0f.", x);
}

/* The element, of a complex one the part looked at. */
static int format_element(const printer *p, int64_t at, char *out)
{
    if (sp__dtype_is_inexact(p->t->dtype))
        return format_real(&p->style[p->part], as_double(p, at), out);
    sp_scalar number = sp__scalar_from(address_of(p, at), p->t->dtype);
    if (number.kind == SP_BOOL)
        return snprintf(out, NUMBER_TEXT, "%s", number.v.i ? "True" : "False");
    return snprintf(out, NUMBER_TEXT, "%lld", (long long)number.v.i);
}

/* ---- walking what is shown ----- */

/* The index after i along dimension d: jumps over the middle when that is left out. */
static int64_t next_shown(const printer *p, int d, int64_t i)
{
    int64_t n = p->t->shape[d];
    return p->summarize && n > 2 * EDGE && i == EDGE - 1 ? n - EDGE : i + 1;
}

static void for_each_shown(printer *p, int d, int64_t at, void (*see)(printer *p, int64_t at))
{
    if (d == p->t->rank) {
        see(p, at);
        return;
    }
    for (int64_t i = 0; i < p->t->shape[d]; i = next_shown(p, d, i))
        for_each_shown(p, d + 1, at + i * p->t->stride[d], see);
}

static void see_magnitude(printer *p, int64_t at)
{
    style *s = &p->style[p->part];
    double x = fabs(as_double(p, at));
    if (!isfinite(x) || x == 0) return;
    if (x != ceil(x)) s->whole = false;
    if (!s->any || x < s->least) s->least = x;
    if (!s->any || x > s->most) s->most = x;
    s->any = true;
}

static void see_width(printer *p, int64_t at)
{
    char text[NUMBER_TEXT];
    style *s = &p->style[p->part];
    if (sp__dtype_is_inexact(p->t->dtype)) { /* inf, nan and 0 do not widen the column */
        double x = as_double(p, at);
        if (!isfinite(x) || x == 0) return;
    }
    int n = format_element(p, at, text);
    if (n > s->width) s->width = n;
}

static void choose_style(printer *p)
{
    style *s = &p->style[p->part];
    s->whole = true;
    s->width = 1;
    if (sp__dtype_is_inexact(p->t->dtype)) {
        for_each_shown(p, 0, 0, see_magnitude);
        s->scientific = s->any && (s->most / s->least > 1000 || s->most > 1e8 ||
                                   (!s->whole && s->least < 1e-4));
    }
    for_each_shown(p, 0, 0, see_width);
}

/* ---- writing ----- */

/* Imaginary parts follow without padding, with a sign. */
static void write_element(printer *p, int64_t at)
{
    char text[NUMBER_TEXT];
    p->part = 0;
    int n = format_element(p, at, text);
    sp__text_pad(&p->text, ' ', p->style[0].width - n);
    sp__text_add(&p->text, "%s", text);
    if (!sp__dtype_is_complex(p->t->dtype)) return;
    p->part = 1;
    format_element(p, at, text);
    sp__text_add(&p->text, "%s%sj", *text == '-' ? "" : "+", text);
}

/* Columns that an element takes, with what stands between two. */
static int column_width(const printer *p)
{
    bool parts = sp__dtype_is_complex(p->t->dtype);
    return p->style[0].width + 2 + (parts ? p->style[1].width + 1 : 0);
}

/* The innermost dimension, broken into lines that fit. */
static void write_row(printer *p, int indent, int64_t at)
{
    int d = p->t->rank - 1, a_line = (LINE - indent) / column_width(p), column = 0;
    if (a_line < 1) a_line = 1;
    sp__text_add(&p->text, "[");
    for (int64_t i = 0, next; i < p->t->shape[d]; i = next) {
        next = next_shown(p, d, i);
        for (int dots = 0; dots < (next > i + 1 ? 2 : 1); dots++, column++) {
            if (column) sp__text_add(&p->text, column % a_line ? ", " : ",\n");
            if (column && column % a_line == 0) sp__text_pad(&p->text, ' ', indent + 1);
            if (dots)
                sp__text_add(&p->text, " ...");
            else
                write_element(p, at + i * p->t->stride[d]);
        }
    }
    sp__text_add(&p->text, "]");
}

static void write_dim(printer *p, int d, int indent, int64_t at)
{
    if (d == p->t->rank - 1) {
        write_row(p, indent, at);
        return;
    }
    sp__text_add(&p->text, "[");
    for (int64_t i = 0, next; i < p->t->shape[d]; i = next) {
        next = next_shown(p, d, i);
        write_dim(p, d + 1, indent + 1, at + i * p->t->stride[d]);
        for (int dots = 0; next < p->t->shape[d] && dots < (next > i + 1 ? 2 : 1); dots++) {
            sp__text_add(&p->text, ",");
            sp__text_pad(&p->text, '\n', p->t->rank - 1 - d);
            sp__text_pad(&p->text, ' ', indent + 1);
            if (dots == 0 && next > i + 1) sp__text_add(&p->text, "...");
        }
    }
    sp__text_add(&p->text, "]");
}

/* `column` is where the line stands, two columns further than it does: PyTorch counts so, until
 * it breaks the line. */
static int write_suffix(printer *p, const char *suffix, int column)
{
    int n = (int)strlen(suffix);
    bool wraps = column + n + 2 > LINE;
    sp__text_add(&p->text, wraps ? ",\n" : ", ");
    if (wraps) sp__text_pad(&p->text, ' ', INDENT);
    sp__text_add(&p->text, "%s", suffix);
    return wraps ? INDENT + n : column + n + 2;
}

static void write_suffixes(printer *p, const sp_tensor *t, const char *more)
{
    char text[SP_SHAPE_TEXT + 32];
    const char *line = p->text.buf ? strrchr(p->text.buf, '\n') : NULL;
    int column = line ? (int)(p->text.buf + p->text.len - line) + 1 : (int)p->text.len + 2;
    if (t->numel == 0 && t->rank != 1) {
        snprintf(text, sizeof text, "size=%s", SP_SHAPE(t));
        column = write_suffix(p, text, column);
    }
    /* float32 goes without saying; int64, bool and complex64 show in the values, if there are any
     */
    bool shows = t->numel > 0 && (t->dtype == SP_INT64 || t->dtype == SP_BOOL);
    if (t->dtype != SP_FLOAT32 && !(t->dtype == SP_COMPLEX64 && t->numel > 0) && !shows) {
        snprintf(text, sizeof text, "dtype=spool.%s", sp_dtype_name((sp_dtype)t->dtype));
        column = write_suffix(p, text, column);
    }
    if (more && *more) (void)write_suffix(p, more, column);
    sp__text_add(&p->text, ")");
}

static void write_values(printer *p)
{
    if (p->t->numel == 0) {
        sp__text_add(&p->text, "[]");
        return;
    }
    for (p->part = 0; p->part < 1 + sp__dtype_is_complex(p->t->dtype); p->part++) choose_style(p);
    if (p->t->rank)
        write_dim(p, 0, INDENT, 0);
    else
        write_element(p, 0);
}

sp_status sp__to_text(const sp_tensor *t, const char *suffix, char **out)
{
    printer p = {.t = t, .summarize = t->numel > THRESHOLD};
    *out = NULL;
    if (sp__handle_hooks.value_ready) SP_RETURN_IF(sp__handle_hooks.value_ready(t, "to_text"));
    if (!t->storage)
        return sp_fail(SP_EUNSUPPORTED,
                       "to_text: a tensor of a transform has no values of its own");
    if (t->device != SP_DEVICE_CPU)
        return sp_fail(SP_EUNSUPPORTED,
                       "to_text: the tensor is on another device; copy it to the host first");
    p.values = sp__data(t);
    sp__text_add(&p.text, "tensor(");
    write_values(&p);
    write_suffixes(&p, t, suffix);
    return sp__text_take(&p.text, "to_text", out);
}

sp_status sp_to_text(const sp_tensor *t, char **out)
{
    return sp__to_text(t, t->flags & SP_T_REQUIRES_GRAD ? "requires_grad=True" : NULL, out);
}
