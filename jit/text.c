/* The textual form of a graph, which parse.c reads back.
 *
 *     meta "producer" = "spool"
 *     graph "net"(%0 "x": float32[64,784], $0: float = 0.1) {
 *       %1 "w": float32[2,2] = const [1, 2, 3, 4]
 *       %2: float32[2] = const base64 "AACAPwAAAEA="
 *       %3: float32[784,64]{1,784} = transpose(%0) {dim0=0, dim1=1}   # train.py:12
 *       %4: float32[784,64] = mul.scalar(%3) {y=$0} @1
 *       return %4
 *     }
 *
 * Invariants
 * 1. Values are numbered in the order in which they are defined: inputs, constants, nodes.
 * 2. {strides} stand where they are not row-major, +n behind them is a view's offset from its root.
 * 3. Attributes that are absent are left out; numbers have the digits to read the same bits back; a
 *    float has a point, an exponent, or is inf, nan or bits:<16 hex digits>.
 * 4. Constants list their elements in row-major order, or hold the machine's bytes of them in
 *    base64, in the same order.
 * 5. @n is the fusion group. What follows # is for people.
 */
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/ir.h"
#include "tensor/memory.h"

enum { INLINE_ELEMENTS = 16 };

typedef struct text {
    char *at;
    size_t n, cap;
    const sp_graph *g;
    sp_vid *number;   /* printed numbers of values */
    sp_status status; /* the first failure; later writes do nothing */
} text;

/* ---- writing ----- */

static bool reserve(text *t, size_t more)
{
    if (t->status) return false;
    if (t->n + more <= t->cap) return true;
    size_t cap = t->cap ? t->cap : 1024;
    while (cap < t->n + more) cap *= 2;
    char *grown = t->at ? sp__realloc(t->at, t->cap, cap) : sp__alloc(cap);
    if (!grown) {
        t->status = sp_fail(SP_EMEMORY, "graph text: out of memory for %zu bytes", cap);
        return false;
    }
    t->at = grown, t->cap = cap;
    return true;
}

static void put(text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(text *t, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n >= (int)sizeof line) n = (int)sizeof line - 1;
    if (n <= 0 || !reserve(t, (size_t)n)) return;
    memcpy(t->at + t->n, line, (size_t)n);
    t->n += (size_t)n;
}

static void put_quoted(text *t, const char *s)
{
    put(t, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            put(t, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            put(t, "\\x%02x", c);
        else
            put(t, "%c", c);
    }
    put(t, "\"");
}

/* A float64 whose text is never taken for an integer's. */
static void put_float(text *t, double f)
{
    uint64_t bits, plain_nan;
    double nan_value = NAN;
    memcpy(&bits, &f, sizeof bits);
    memcpy(&plain_nan, &nan_value, sizeof plain_nan);
    char digits[40];
    snprintf(digits, sizeof digits, "%.17g", f);
    for (int precision = 6; precision < 17; precision++) { /* the shortest that reads back */
        char tried[40];
        snprintf(tried, sizeof tried, "%.*g", precision, f);
        if (strtod(tried, NULL) == f) {
            memcpy(digits, tried, sizeof digits);
            break;
        }
    }
    if (isnan(f) && bits != plain_nan)
        put(t, "bits:%016" PRIx64, bits);
    else if (isnan(f))
        put(t, "nan");
    else
        put(t, "%s%s", digits, strpbrk(digits, ".einf") ? "" : ".0");
}

/* ---- types ----- */

static void put_list(text *t, char open, int n, const int64_t *list, char close)
{
    put(t, "%c", open);
    for (int i = 0; i < n; i++) put(t, "%s%" PRId64, i ? "," : "", list[i]);
    put(t, "%c", close);
}

static void put_type(text *t, const sp_meta *m)
{
    put(t, "%s", sp_dtype_name((sp_dtype)m->dtype));
    put_list(t, '[', m->rank, m->shape, ']');
    if (!m->contiguous) put_list(t, '{', m->rank, m->stride, '}');
    if (m->offset) put(t, "+%" PRId64, m->offset);
}

static void put_value_name(text *t, sp_vid v)
{
    put(t, "%%%d", t->number[v]);
    if (!t->g->values[v].name) return;
    put(t, " ");
    put_quoted(t, t->g->values[v].name);
}

static void put_definition(text *t, sp_vid v)
{
    put_value_name(t, v);
    put(t, ": ");
    put_type(t, &t->g->values[v].type);
}

/* ---- attributes ----- */

static void put_scalar(text *t, sp_scalar s)
{
    if (s.kind == SP_FLOAT64)
        put_float(t, s.v.f);
    else if (s.kind == SP_BOOL)
        put(t, s.v.i ? "true" : "false");
    else
        put(t, "%" PRId64, s.v.i);
}

static void put_attr_value(text *t, const sp_attr *a)
{
    if (a->n && a->kind != SP_ATTR_INTS) {
        put(t, "$%d", a->n - 1);
        return;
    }
    switch (a->kind) {
    case SP_ATTR_INT: put(t, "%" PRId64, a->v.i); break;
    case SP_ATTR_FLOAT: put_float(t, a->v.f); break;
    case SP_ATTR_BOOL: put(t, a->v.i ? "true" : "false"); break;
    case SP_ATTR_DTYPE: put(t, "%s", sp_dtype_name((sp_dtype)a->v.i)); break;
    case SP_ATTR_INTS: put_list(t, '[', a->n, a->v.ints, ']'); break;
    case SP_ATTR_SCALAR:
        if (a->tag == SP_FLOAT64)
            put_scalar(t, SP_FLOAT(a->v.f));
        else
            put_scalar(t, (sp_scalar){.v.i = a->v.i, .kind = (sp_dtype)a->tag});
        break;
    default: put(t, "?"); break;
    }
}

static void put_attrs(text *t, const sp_ir_node *node)
{
    const char *before = " {";
    for (int i = 0; i < node->n_attr; i++) {
        if (node->attr[i].absent) continue;
        put(t, "%s%s=", before, sp_op_table[node->op].attr_names[i]);
        put_attr_value(t, &node->attr[i]);
        before = ", ";
    }
    if (*before == ',') put(t, "}");
}

/* ---- constants ----- */

/* The elements in row-major order, dense; freed by the caller with the same size. */
static sp_status constant_bytes(const sp_tensor *c, char **out, size_t *bytes)
{
    *bytes = (size_t)c->numel * sp_dtype_size((sp_dtype)c->dtype);
    *out = sp__alloc(*bytes);
    if (!*out)
        return sp_fail(SP_EMEMORY, "graph text: out of memory for a constant of %zu bytes", *bytes);
    sp_status status = sp_copy_out(c, *out, *bytes);
    if (status) {
        sp__free(*out, *bytes);
        *out = NULL;
    }
    return status;
}

static bool fits_inline(const sp_tensor *c, const char *bytes)
{
    if (c->numel > INLINE_ELEMENTS || sp__dtype_is_complex(c->dtype)) return false;
    for (int64_t i = 0; i < c->numel; i++) { /* a NaN's payload needs its bits */
        const char *at = bytes + (size_t)i * sp_dtype_size((sp_dtype)c->dtype);
        if (sp__dtype_is_floating(c->dtype) && isnan(sp__scalar_from(at, c->dtype).v.f))
            return false;
        if (c->dtype == SP_BOOL && *(const unsigned char *)at > 1) return false;
    }
    return true;
}

static void put_elements(text *t, const sp_tensor *c, const char *bytes)
{
    size_t size = sp_dtype_size((sp_dtype)c->dtype);
    put(t, "[");
    for (int64_t i = 0; i < c->numel; i++) {
        sp_scalar s = sp__scalar_from(bytes + (size_t)i * size, c->dtype);
        if (i) put(t, ", ");
        if (s.kind == SP_FLOAT64) /* 9 digits tell any float32 from the next */
            put(t, c->dtype == SP_FLOAT64 ? "%.17g" : "%.9g", s.v.f);
        else
            put_scalar(t, s);
    }
    put(t, "]");
}

static void put_base64(text *t, const unsigned char *bytes, size_t n)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (!reserve(t, (n + 2) / 3 * 4)) return;
    for (size_t i = 0; i < n; i += 3) {
        unsigned left = (unsigned)(n - i), word = (unsigned)bytes[i] << 16;
        if (left > 1) word |= (unsigned)bytes[i + 1] << 8;
        if (left > 2) word |= bytes[i + 2];
        t->at[t->n++] = digit[word >> 18];
        t->at[t->n++] = digit[word >> 12 & 63];
        t->at[t->n++] = left > 1 ? digit[word >> 6 & 63] : '=';
        t->at[t->n++] = left > 2 ? digit[word & 63] : '=';
    }
}

static void put_constant(text *t, sp_vid v)
{
    const sp_tensor *c = t->g->values[v].constant;
    char *bytes;
    size_t n;
    if (t->status || (t->status = constant_bytes(c, &bytes, &n))) return;
    put(t, "  ");
    put_definition(t, v);
    put(t, " = const ");
    if (fits_inline(c, bytes)) {
        put_elements(t, c, bytes);
    } else {
        put(t, "base64 \"");
        put_base64(t, (unsigned char *)bytes, n);
        put(t, "\"");
    }
    put(t, "\n");
    sp__free(bytes, n);
}

/* ---- graphs ----- */

static void put_node(text *t, const sp_ir_node *node)
{
    char where[256];
    put(t, "  ");
    for (int i = 0; i < node->n_out; i++) {
        put(t, "%s", i ? ", " : "");
        put_definition(t, node->out[i]);
    }
    put(t, " = %s(", sp_op_table[node->op].name);
    for (int i = 0; i < node->n_in; i++) {
        put(t, "%s", i ? ", " : "");
        if (node->in[i] < 0)
            put(t, "none");
        else
            put(t, "%%%d", t->number[node->in[i]]);
    }
    put(t, ")");
    put_attrs(t, node);
    if (node->group) put(t, " @%d", node->group);
    if (*sp__where_text(&node->where, where, sizeof where)) put(t, "   # %s", where);
    put(t, "\n");
}

static void put_params(text *t)
{
    static const char *const kind_name[] = {"bool", "int", "float"};
    const sp_graph *g = t->g;
    for (int i = 0; i < g->n_inputs; i++) {
        put(t, "%s", i ? ", " : "");
        put_definition(t, g->inputs[i]);
    }
    for (int i = 0; i < g->n_scalars; i++) {
        put(t, "%s$%d: %s = ", i || g->n_inputs ? ", " : "", i,
            kind_name[sp__dtype_kind(g->scalars[i].kind)]);
        put_scalar(t, g->scalars[i]);
    }
}

static void put_graph(text *t)
{
    const sp_graph *g = t->g;
    for (int i = 0; i < g->n_metadata; i++) {
        put(t, "meta ");
        put_quoted(t, g->metadata[2 * i]);
        put(t, " = ");
        put_quoted(t, g->metadata[2 * i + 1]);
        put(t, "\n");
    }
    put(t, "graph ");
    put_quoted(t, g->name);
    put(t, "(");
    put_params(t);
    put(t, ") {\n");
    for (int i = 0; i < g->n_values; i++)
        if (g->values[i].kind == SP_VALUE_CONST) put_constant(t, i);
    for (int i = 0; i < g->n_nodes; i++) put_node(t, &g->nodes[i]);
    put(t, "  return");
    for (int i = 0; i < g->n_outputs; i++)
        put(t, "%s%%%d", i ? ", " : " ", t->number[g->outputs[i]]);
    put(t, "\n}\n");
}

/* Printed numbers: inputs, constants, nodes' outputs. */
static void number_values(const sp_graph *g, sp_vid *number)
{
    sp_vid n = 0;
    for (int i = 0; i < g->n_inputs; i++) number[g->inputs[i]] = n++;
    for (int i = 0; i < g->n_values; i++)
        if (g->values[i].kind == SP_VALUE_CONST) number[i] = n++;
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_out; k++) number[g->nodes[i].out[k]] = n++;
}

sp_status sp_graph_text(const sp_graph *graph, char **out)
{
    *out = NULL;
    sp_remap number;
    SP_RETURN_IF(sp__remap_new(graph, &number));
    number_values(graph, number.to);
    text t = {.g = graph, .number = number.to};
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0); /* a point is a point */
    locale_t before = uselocale(plain);
    put_graph(&t);
    uselocale(before);
    if (plain) freelocale(plain);
    if (reserve(&t, 1)) {
        t.at[t.n] = '\0';
        *out = sp__dup(t.at, t.n + 1);
        if (!*out)
            t.status = sp_fail(SP_EMEMORY, "graph text: out of memory for %zu bytes", t.n + 1);
    }
    if (t.at) sp__free(t.at, t.cap);
    sp__remap_free(&number);
    return t.status;
}
