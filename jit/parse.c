/* Reads the textual form of a graph (text.c describes it).
 *
 * The text may come from anywhere: every number is range-checked, every list bounded by the text's
 * length, and the graph must pass sp__graph_verify(). Errors say line and column.
 */
#include <ctype.h>
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/ir.h"
#include "tensor/backend.h"
#include "tensor/memory.h"

enum { MAX_INTS = 64, MAX_WORD = 64, MAX_STRING = 4096, MAX_SPARSE = 64 };

typedef struct parser {
    const char *text, *at;
    sp_graph *g;
    sp_vid *list; /* values of an argument list or of `return` */
    int32_t n_list, cap_list;
} parser;

/* ---- errors ----- */

static sp_status fail_at(const parser *p, const char *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static sp_status fail_at(const parser *p, const char *at, const char *format, ...)
{
    char what[400];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    int line = 1, column = 1;
    for (const char *s = p->text; s < at && *s; s++, column++)
        if (*s == '\n') line++, column = 0;
    return sp_fail(SP_EFORMAT, "graph text:%d:%d: %s", line, column, what);
}

/* The last error with the place in front; what a wrong text causes is a wrong text. */
static sp_status fail_again(const parser *p, const char *at, sp_status status)
{
    char what[400];
    snprintf(what, sizeof what, "%s", sp_last_error());
    return status == SP_EMEMORY ? status : fail_at(p, at, "%s", what);
}

/* ---- tokens ----- */

static void skip(parser *p)
{
    for (;; p->at++) {
        if (*p->at == '#')
            while (*p->at && *p->at != '\n') p->at++;
        if (!*p->at || !isspace((unsigned char)*p->at)) return;
    }
}

static bool accept(parser *p, char c)
{
    skip(p);
    if (*p->at != c) return false;
    p->at++;
    return true;
}

static sp_status expect(parser *p, char c)
{
    return accept(p, c) ? SP_OK : fail_at(p, p->at, "expected '%c'", c);
}

/* Letters, digits, '_' and '.' into out, which holds MAX_WORD. */
static sp_status word(parser *p, const char *what, char *out)
{
    skip(p);
    size_t n = 0;
    while (isalnum((unsigned char)p->at[n]) || p->at[n] == '_' || p->at[n] == '.') n++;
    if (n == 0 || n >= MAX_WORD) return fail_at(p, p->at, "expected %s", what);
    memcpy(out, p->at, n);
    out[n] = '\0';
    p->at += n;
    return SP_OK;
}

static bool accept_word(parser *p, const char *expected)
{
    size_t n = strlen(expected);
    skip(p);
    if (strncmp(p->at, expected, n) || isalnum((unsigned char)p->at[n]) || p->at[n] == '_')
        return false;
    p->at += n;
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

/* One character of a quoted string; *done at its end. */
static sp_status string_char(parser *p, char *out, bool *done)
{
    char c = *p->at;
    *done = c == '"';
    if (c == '\0' || c == '\n') return fail_at(p, p->at, "a string without its closing '\"'");
    p->at++;
    if (c != '\\') {
        *out = c;
        return SP_OK;
    }
    c = *p->at;
    if (c == '"' || c == '\\') {
        *out = c;
        p->at++;
        return SP_OK;
    }
    int high = c == 'x' ? hex_digit(p->at[1]) : -1, low = high < 0 ? -1 : hex_digit(p->at[2]);
    if (low < 0 || high + low == 0)
        return fail_at(p, p->at, "expected '\"', '\\' or x and two hex digits after '\\'");
    *out = (char)(high * 16 + low);
    p->at += 3;
    return SP_OK;
}

static sp_status string(parser *p, char out[static MAX_STRING])
{
    SP_RETURN_IF(expect(p, '"'));
    for (size_t n = 0; n < MAX_STRING; n++) {
        bool done;
        out[n] = '\0';
        SP_RETURN_IF(string_char(p, &out[n], &done));
        if (!done) continue;
        out[n] = '\0';
        return SP_OK;
    }
    return fail_at(p, p->at, "a string of more than %d characters", MAX_STRING - 1);
}

static sp_status integer(parser *p, int64_t *out)
{
    skip(p);
    char *end;
    if (!isdigit((unsigned char)*p->at) && *p->at != '-')
        return fail_at(p, p->at, "expected an integer");
    errno = 0;
    *out = strtoll(p->at, &end, 10);
    if (end == p->at) return fail_at(p, p->at, "expected an integer");
    if (errno) return fail_at(p, p->at, "an integer beyond 64 bits");
    p->at = end;
    return SP_OK;
}

/* An integer in [low, high]. */
static sp_status bounded(parser *p, const char *what, int64_t low, int64_t high, int64_t *out)
{
    const char *at = p->at;
    SP_RETURN_IF(integer(p, out));
    if (*out < low || *out > high)
        return fail_at(p, at, "%s %lld is not between %lld and %lld", what, (long long)*out,
                       (long long)low, (long long)high);
    return SP_OK;
}

static sp_status float_bits(parser *p, double *out)
{
    uint64_t bits = 0;
    for (int i = 0; i < 16; i++) {
        int digit = hex_digit(p->at[i]);
        if (digit < 0) return fail_at(p, p->at, "expected 16 hex digits after 'bits:'");
        bits = bits << 4 | (uint64_t)digit;
    }
    memcpy(out, &bits, sizeof bits);
    p->at += 16;
    return SP_OK;
}

/* true, 3, 0.5, inf, nan, bits:...: the kind is in the spelling. */
static sp_status number(parser *p, sp_scalar *out)
{
    bool is_true = accept_word(p, "true");
    if (is_true || accept_word(p, "false")) {
        *out = (sp_scalar){.v.i = is_true, .kind = SP_BOOL};
        return SP_OK;
    }
    *out = SP_FLOAT(0);
    if (!strncmp(p->at, "bits:", 5)) {
        p->at += 5;
        return float_bits(p, &out->v.f);
    }
    size_t n = strspn(p->at, "-+0123456789.einfa");
    char *end;
    out->v.f = strtod(p->at, &end);
    if (n == 0 || end == p->at || (size_t)(end - p->at) > n)
        return fail_at(p, p->at, "expected a number");
    if (!memchr(p->at, '.', n) && !memchr(p->at, 'e', n) && !memchr(p->at, 'n', n)) {
        out->kind = SP_INT64;
        return integer(p, &out->v.i);
    }
    p->at = end;
    return SP_OK;
}

/* [1, 2, 3] */
static sp_status integers(parser *p, char open, char close, int max, int64_t *out, int *n)
{
    *n = 0;
    SP_RETURN_IF(expect(p, open));
    if (accept(p, close)) return SP_OK;
    do {
        if (*n == max) return fail_at(p, p->at, "more than %d entries", max);
        SP_RETURN_IF(integer(p, &out[(*n)++]));
    } while (accept(p, ','));
    return expect(p, close);
}

/* ---- types ----- */

static sp_status dtype(parser *p, uint8_t *out)
{
    char name[MAX_WORD];
    const char *at = p->at;
    SP_RETURN_IF(word(p, "a dtype", name));
    for (int i = 0; i < SP_DTYPE_COUNT; i++)
        if (!strcmp(name, sp_dtype_name((sp_dtype)i))) {
            *out = (uint8_t)i;
            return SP_OK;
        }
    return fail_at(p, at, "'%s' is no dtype", name);
}

static sp_status strides(parser *p, const char *at, sp_meta *m)
{
    int n;
    SP_RETURN_IF(integers(p, '{', '}', SP_MAX_RANK, m->stride, &n));
    if (n != m->rank) return fail_at(p, at, "%d strides for %d dimensions", n, m->rank);
    for (int i = 0; i < n; i++)
        if (m->stride[i] < 0) return fail_at(p, at, "a negative stride");
    if (sp__meta_extent(m) < 0) return fail_at(p, at, "strides beyond 64 bits");
    sp__meta_update(m);
    return SP_OK;
}

static sp_status type(parser *p, sp_meta *m)
{
    int rank;
    *m = (sp_meta){.view_of = -1};
    SP_RETURN_IF(dtype(p, &m->dtype));
    const char *at = p->at;
    SP_RETURN_IF(integers(p, '[', ']', SP_MAX_RANK, m->shape, &rank));
    m->rank = (uint8_t)rank;
    if (sp__meta_dense(m, "type")) return fail_again(p, at, SP_EFORMAT);
    if (*p->at == '{') SP_RETURN_IF(strides(p, p->at, m));
    if (*p->at != '+') return SP_OK;
    p->at++;
    return bounded(p, "offset", 0, INT64_MAX, &m->offset);
}

/* ---- values ----- */

static sp_status value_definition(parser *p, sp_vid expected, char name[static MAX_STRING],
                                  sp_meta *m)
{
    int64_t n;
    SP_RETURN_IF(expect(p, '%'));
    const char *at = p->at;
    SP_RETURN_IF(integer(p, &n));
    if (n != expected)
        return fail_at(p, at, "expected %%%d: values are numbered in order", expected);
    name[0] = '\0';
    skip(p);
    if (*p->at == '"') SP_RETURN_IF(string(p, name));
    SP_RETURN_IF(expect(p, ':'));
    return type(p, m);
}

static sp_status value_use(parser *p)
{
    int64_t v = -1;
    const char *at = p->at;
    if (!accept_word(p, "none")) {
        SP_RETURN_IF(expect(p, '%'));
        SP_RETURN_IF(integer(p, &v));
        if (v < 0 || v >= p->g->n_values)
            return fail_at(p, at, "%%%lld is not defined here", (long long)v);
    }
    if (p->n_list == p->cap_list) {
        int32_t cap = p->cap_list ? 2 * p->cap_list : 16;
        size_t old = (size_t)p->cap_list * sizeof *p->list, bytes = (size_t)cap * sizeof *p->list;
        sp_vid *grown = p->list ? sp__realloc(p->list, old, bytes) : sp__alloc(bytes);
        if (!grown)
            return sp_fail(SP_EMEMORY, "graph text: out of memory for a list of %d values", cap);
        p->list = grown, p->cap_list = cap;
    }
    p->list[p->n_list++] = (sp_vid)v;
    return SP_OK;
}

static sp_status set_name(parser *p, sp_vid v, const char *name)
{
    return *name ? sp__graph_name_value(p->g, v, name) : SP_OK;
}

/* ---- constants ----- */

static sp_status store_element(parser *p, uint8_t dt, char *to)
{
    sp_scalar s;
    skip(p);
    const char *at = p->at;
    SP_RETURN_IF(number(p, &s));
    if (dt == SP_BOOL && s.kind != SP_BOOL) return fail_at(p, at, "expected true or false");
    if (sp__dtype_is_integer(dt) && s.kind == SP_FLOAT64)
        return fail_at(p, at, "expected an integer");
    if (sp__dtype_is_integer(dt) && (s.v.i < sp__dtypes[dt].least || s.v.i > sp__dtypes[dt].most))
        return fail_at(p, at, "expected a number that the dtype holds");
    if (*at == '-' && s.kind != SP_FLOAT64 && s.v.i == 0) s = SP_FLOAT(-0.0);
    sp__scalar_to(s, dt, to);
    return SP_OK;
}

static sp_status elements(parser *p, const sp_meta *m, char *to)
{
    size_t size = sp_dtype_size((sp_dtype)m->dtype);
    SP_RETURN_IF(expect(p, '['));
    for (int64_t i = 0; i < m->numel; i++) {
        if (i) SP_RETURN_IF(expect(p, ','));
        SP_RETURN_IF(store_element(p, m->dtype, to + (size_t)i * size));
    }
    return expect(p, ']');
}

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static sp_status base64(parser *p, size_t bytes, char *to)
{
    SP_RETURN_IF(expect(p, '"'));
    unsigned word_ = 0;
    int bits = 0;
    for (size_t n = 0; n < bytes; p->at++) {
        int digit = base64_digit(*p->at);
        if (digit < 0)
            return fail_at(p, p->at, "expected base64 digits for %zu bytes, found %zu", bytes, n);
        word_ = word_ << 6 | (unsigned)digit, bits += 6;
        if (bits < 8) continue;
        bits -= 8;
        to[n++] = (char)(word_ >> bits & 255);
    }
    while (*p->at == '=') p->at++;
    return expect(p, '"');
}

/* A tensor of geometry m from its elements in row-major order. */
static sp_status scatter_tensor(const sp_meta *m, const char *bytes, sp_tensor **out)
{
    if (m->contiguous) return sp_from_data(bytes, (sp_dtype)m->dtype, m->rank, m->shape, out);
    size_t size = sp_dtype_size((sp_dtype)m->dtype);
    int64_t extent = sp__meta_extent(m), index[SP_MAX_RANK] = {0};
    sp_storage *s;
    SP_RETURN_IF(sp__storage_new((size_t)extent * size, SP_DEVICE_CPU, &s));
    memset(s->data, 0, (size_t)extent * size);
    for (int64_t i = 0; i < m->numel; i++) {
        int64_t at = 0;
        for (int d = 0; d < m->rank; d++) at += index[d] * m->stride[d];
        memcpy(s->data + (size_t)at * size, bytes + (size_t)i * size, size);
        for (int d = m->rank - 1; d >= 0 && ++index[d] == m->shape[d]; d--) index[d] = 0;
    }
    sp_status status = sp__handle_new(m, s, out);
    sp__storage_drop(s);
    return status;
}

/* After "const". The text must be long enough for the elements before memory is taken for them. */
static sp_status constant(parser *p, const char *at, const sp_meta *m, const char *name)
{
    sp_status status = SP_OK;
    sp_tensor *t = NULL;
    sp_vid v;
    size_t bytes = (size_t)m->numel * sp_dtype_size((sp_dtype)m->dtype);
    if (m->offset) return fail_at(p, at, "a constant has no offset");
    if ((uint64_t)m->numel > strlen(p->at) || sp__meta_extent(m) / MAX_SPARSE > m->numel)
        return fail_at(p, at, "the type wants %lld elements, which are not there",
                       (long long)m->numel);
    char *to = sp__alloc(bytes);
    if (!to)
        return sp_fail(SP_EMEMORY, "graph text: out of memory for a constant of %zu bytes", bytes);
    SP_TRY(accept_word(p, "base64") ? base64(p, bytes, to) : elements(p, m, to));
    SP_TRY(scatter_tensor(m, to, &t));
    SP_TRY(sp__graph_const(p->g, t, &v));
    SP_TRY(set_name(p, v, name));
out:
    sp_drop(&t);
    sp__free(to, bytes);
    return status;
}

/* ---- nodes ----- */

typedef struct attrs { /* with the memory that INTS point to */
    sp_attr at[SP_MAX_ATTR];
    int64_t ints[SP_MAX_ATTR][MAX_INTS];
} attrs;

static sp_status scalar_use(parser *p, sp_attr *a)
{
    int64_t k;
    const char *at = p->at;
    p->at++;
    SP_RETURN_IF(integer(p, &k));
    if (k < 0 || k >= p->g->n_scalars)
        return fail_at(p, at, "$%lld is no scalar of this graph", (long long)k);
    sp_scalar s = p->g->scalars[k];
    if (a->kind == SP_ATTR_FLOAT)
        a->v.f = s.kind == SP_FLOAT64 ? s.v.f : (double)s.v.i;
    else if (a->kind == SP_ATTR_INT && s.kind != SP_INT64)
        return fail_at(p, at, "$%lld is no int", (long long)k);
    else if (a->kind == SP_ATTR_SCALAR && s.kind == SP_FLOAT64)
        a->v.f = s.v.f;
    else
        a->v.i = s.v.i;
    a->tag = a->kind == SP_ATTR_SCALAR ? (uint8_t)s.kind : 0;
    a->n = (int32_t)k + 1;
    return SP_OK;
}

static sp_status number_attr(parser *p, sp_attr *a)
{
    sp_scalar s;
    const char *at = p->at;
    SP_RETURN_IF(number(p, &s));
    switch (a->kind) {
    case SP_ATTR_SCALAR: a->tag = (uint8_t)s.kind; break;
    case SP_ATTR_FLOAT:
        if (s.kind != SP_FLOAT64) s = SP_FLOAT((double)s.v.i);
        break;
    case SP_ATTR_BOOL:
        if (s.kind != SP_BOOL) return fail_at(p, at, "expected true or false");
        break;
    default:
        if (s.kind != SP_INT64) return fail_at(p, at, "expected an integer");
    }
    if (s.kind == SP_FLOAT64)
        a->v.f = s.v.f;
    else
        a->v.i = s.v.i;
    return SP_OK;
}

static sp_status attr_value(parser *p, sp_attr *a, int64_t *ints)
{
    skip(p);
    bool liftable = a->kind == SP_ATTR_SCALAR || a->kind == SP_ATTR_INT || a->kind == SP_ATTR_FLOAT;
    if (*p->at == '$' && liftable) return scalar_use(p, a);
    if (a->kind == SP_ATTR_DTYPE) {
        uint8_t d;
        SP_RETURN_IF(dtype(p, &d));
        a->v.i = d;
        return SP_OK;
    }
    if (a->kind != SP_ATTR_INTS) return number_attr(p, a);
    int n;
    SP_RETURN_IF(integers(p, '[', ']', MAX_INTS, ints, &n));
    a->v.ints = ints, a->n = n;
    return SP_OK;
}

static sp_status attribute(parser *p, const sp_op_info *info, attrs *out)
{
    char name[MAX_WORD];
    const char *at = p->at;
    SP_RETURN_IF(word(p, "an attribute's name", name));
    int i = 0;
    while (i < info->n_attr && strcmp(info->attr_names[i], name)) i++;
    if (i == info->n_attr) return fail_at(p, at, "%s has no attribute '%s'", info->name, name);
    if (!out->at[i].absent) return fail_at(p, at, "'%s' is given twice", name);
    out->at[i].absent = false;
    SP_RETURN_IF(expect(p, '='));
    return attr_value(p, &out->at[i], out->ints[i]);
}

static sp_status attributes(parser *p, const sp_op_info *info, attrs *out)
{
    for (int i = 0; i < info->n_attr; i++)
        out->at[i] = (sp_attr){.kind = info->attr_kinds[i], .absent = true};
    if (!accept(p, '{')) return SP_OK;
    if (accept(p, '}')) return SP_OK;
    do SP_RETURN_IF(attribute(p, info, out));
    while (accept(p, ','));
    return expect(p, '}');
}

static sp_status arguments(parser *p)
{
    p->n_list = 0;
    SP_RETURN_IF(expect(p, '('));
    if (accept(p, ')')) return SP_OK;
    do SP_RETURN_IF(value_use(p));
    while (accept(p, ','));
    return expect(p, ')');
}

typedef struct results { /* what stands left of '=' */
    int n;
    sp_meta type[SP_MAX_OUT];
    char name[SP_MAX_OUT][MAX_STRING];
} results;

static sp_status check_results(parser *p, const char *at, const results *r, const sp_vid *out)
{
    for (int i = 0; i < r->n; i++) {
        const sp_meta *got = &p->g->values[out[i]].type;
        if (sp__meta_same(got, &r->type[i])) continue;
        return fail_at(p, at, "result %d is %s%s, the text says %s%s (or strides or offset differ)",
                       i, sp_dtype_name((sp_dtype)got->dtype), SP_SHAPE(got),
                       sp_dtype_name((sp_dtype)r->type[i].dtype), SP_SHAPE(&r->type[i]));
    }
    return SP_OK;
}

static sp_status node(parser *p, const results *r, const char *name, const char *at)
{
    int op = sp__op_by_name(name);
    if (op < 0) return fail_at(p, at, "there is no op '%s'", name);
    const sp_op_info *info = &sp_op_table[op];
    if (info->n_out != r->n)
        return fail_at(p, at, "%s has %d results, not %d", name, info->n_out, r->n);
    attrs a;
    sp_vid out[SP_MAX_OUT];
    int64_t group = 0;
    SP_RETURN_IF(arguments(p));
    SP_RETURN_IF(attributes(p, info, &a));
    if (accept(p, '@')) SP_RETURN_IF(bounded(p, "group", 1, INT32_MAX, &group));
    sp_status status =
        sp__graph_node(p->g, op, p->list, p->n_list, a.at, info->n_attr, NULL, NULL, out);
    if (status) return fail_again(p, at, status);
    p->g->nodes[p->g->n_nodes - 1].group = (int32_t)group;
    SP_RETURN_IF(check_results(p, at, r, out));
    for (int i = 0; i < r->n; i++) SP_RETURN_IF(set_name(p, out[i], r->name[i]));
    return SP_OK;
}

static sp_status statement(parser *p, results *r)
{
    char name[MAX_WORD];
    r->n = 0;
    do {
        if (r->n == SP_MAX_OUT) return fail_at(p, p->at, "more than %d results", SP_MAX_OUT);
        SP_RETURN_IF(value_definition(p, p->g->n_values + r->n, r->name[r->n], &r->type[r->n]));
        r->n++;
    } while (accept(p, ','));
    SP_RETURN_IF(expect(p, '='));
    skip(p);
    const char *at = p->at;
    SP_RETURN_IF(word(p, "an op's name", name));
    if (strcmp(name, "const")) return node(p, r, name, at);
    if (r->n != 1) return fail_at(p, at, "a constant is one value");
    if (p->g->n_nodes) return fail_at(p, at, "constants stand before the first op");
    return constant(p, at, &r->type[0], r->name[0]);
}

/* ---- graphs ----- */

static sp_status scalar_param(parser *p)
{
    char kind[MAX_WORD];
    int64_t n;
    int32_t k;
    sp_scalar s;
    const char *at = p->at++;
    SP_RETURN_IF(integer(p, &n));
    if (n != p->g->n_scalars)
        return fail_at(p, at, "expected $%d: scalars are numbered in order", p->g->n_scalars);
    SP_RETURN_IF(expect(p, ':'));
    SP_RETURN_IF(word(p, "bool, int or float", kind));
    SP_RETURN_IF(expect(p, '='));
    SP_RETURN_IF(number(p, &s));
    const char *spelled = s.kind == SP_FLOAT64 ? "float" : s.kind == SP_BOOL ? "bool" : "int";
    if (strcmp(kind, spelled))
        return fail_at(p, at, "$%lld is said to be %s, its value is %s", (long long)n, kind,
                       spelled);
    return sp__graph_scalar(p->g, s, &k);
}

static sp_status param(parser *p)
{
    char name[MAX_STRING];
    sp_meta m;
    sp_vid v;
    skip(p);
    if (*p->at == '$') return scalar_param(p);
    const char *at = p->at;
    SP_RETURN_IF(value_definition(p, p->g->n_values, name, &m));
    if (m.offset) return fail_at(p, at, "an input has no offset");
    SP_RETURN_IF(sp__graph_input(p->g, &m, &v));
    return set_name(p, v, name);
}

static sp_status params(parser *p)
{
    SP_RETURN_IF(expect(p, '('));
    if (accept(p, ')')) return SP_OK;
    do SP_RETURN_IF(param(p));
    while (accept(p, ','));
    return expect(p, ')');
}

static sp_status header(parser *p)
{
    char key[MAX_STRING], value[MAX_STRING], *name = key;
    SP_RETURN_IF(sp__graph_new("", &p->g));
    while (accept_word(p, "meta")) {
        SP_RETURN_IF(string(p, key));
        SP_RETURN_IF(expect(p, '='));
        SP_RETURN_IF(string(p, value));
        SP_RETURN_IF(sp__graph_metadata(p->g, key, value));
    }
    if (!accept_word(p, "graph")) return fail_at(p, p->at, "expected 'graph'");
    SP_RETURN_IF(string(p, name));
    char *copy = sp__dup(name, strlen(name) + 1);
    if (!copy) return sp_fail(SP_EMEMORY, "graph text: out of memory for a name");
    sp__free(p->g->name, strlen(p->g->name) + 1);
    p->g->name = copy;
    return params(p);
}

static sp_status body(parser *p, results *r)
{
    SP_RETURN_IF(expect(p, '{'));
    while (!accept_word(p, "return")) SP_RETURN_IF(statement(p, r));
    p->n_list = 0;
    skip(p);
    if (*p->at == '%') {
        do {
            SP_RETURN_IF(value_use(p));
            if (p->list[p->n_list - 1] < 0) return fail_at(p, p->at, "'none' is no output");
        } while (accept(p, ','));
    }
    SP_RETURN_IF(expect(p, '}'));
    skip(p);
    if (*p->at) return fail_at(p, p->at, "text after the graph");
    return sp__graph_outputs(p->g, p->list, p->n_list);
}

static sp_status parse(parser *p)
{
    sp_status status = SP_OK;
    results *r = sp__alloc(sizeof *r);
    if (!r) return sp_fail(SP_EMEMORY, "graph text: out of memory");
    SP_TRY(header(p));
    SP_TRY(body(p, r));
    status = sp__graph_verify(p->g);
    if (status) status = fail_again(p, p->at, status);
out:
    sp__free(r, sizeof *r);
    return status;
}

sp_status sp_graph_parse(const char *text, sp_graph **out)
{
    *out = NULL;
    parser p = {.text = text, .at = text};
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0); /* a point is a point */
    locale_t before = uselocale(plain);
    sp_status status = parse(&p);
    uselocale(before);
    if (plain) freelocale(plain);
    if (p.list) sp__free(p.list, (size_t)p.cap_list * sizeof *p.list);
    if (status)
        sp_graph_drop(&p.g);
    else
        *out = p.g;
    return status;
}
