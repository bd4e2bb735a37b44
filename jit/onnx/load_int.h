/* What the loaders of operators share: looking at an ONNX node, making nodes of a graph.
 */
#ifndef SP_ONNX_LOAD_INT_H
#define SP_ONNX_LOAD_INT_H

#include <string.h>

#include "jit/onnx/load.h"
#include "ops/attr.h"
#include "ops_gen.h"

typedef struct sp_load_row { /* ends with an operator of NULL */
    const char *onnx;
    sp_status (*load)(sp_loader *l);
} sp_load_row;

extern const sp_load_row sp__load_rows_shapes[], sp__load_rows_images[], sp__load_rows_norm[];

/* ---- looking at the node ---- */

static inline sp_status unsupported(const sp_loader *l, const char *why)
{
    char text[192];
    return sp_fail(SP_EUNSUPPORTED, "onnx.load: operator %s: %s",
                   sp__onnx_node_text(l->node, text, sizeof text), why);
}

static inline sp_status malformed(const sp_loader *l, const char *why)
{
    char text[192];
    return sp_fail(SP_EFORMAT, "onnx.load: broken file: operator %s: %s",
                   sp__onnx_node_text(l->node, text, sizeof text), why);
}

static inline const sp_onnx_attr *attr(const sp_loader *l, const char *name)
{
    for (int i = 0; i < l->node->n_attr; i++)
        if (sp__bytes_are(l->node->attr[i].name, name)) return &l->node->attr[i];
    return NULL;
}

static inline int64_t attr_int(const sp_loader *l, const char *name, int64_t fallback)
{
    const sp_onnx_attr *a = attr(l, name);
    return a != NULL ? a->i : fallback;
}

static inline bool has_input(const sp_loader *l, int i)
{
    return i < l->node->n_in && l->node->in[i] >= 0;
}

static inline const sp_meta *type_of(const sp_loader *l, sp_vid v)
{
    return &l->g->values[v].type;
}

static inline sp_status need_inputs(const sp_loader *l, int n)
{
    for (int i = 0; i < n; i++)
        if (!has_input(l, i)) return malformed(l, "an input is missing");
    return l->node->n_out < 1 ? malformed(l, "it has no output") : SP_OK;
}

/* ---- making nodes ---- */

typedef struct given { /* an attribute by name */
    const char *name;
    sp_attr value;
} given;

#define GIVE_INT(attr_name, x) ((given){attr_name, {.v.i = (x), .kind = SP_ATTR_INT}})
#define GIVE_INTS(attr_name, list, count)                                                          \
    ((given){attr_name, {.v.ints = (list), .n = (count), .kind = SP_ATTR_INTS}})
#define GIVE_NUMBER(attr_name, x)                                                                  \
    ((given){attr_name, {.v.i = (x), .kind = SP_ATTR_SCALAR, .tag = SP_INT64}})
#define GIVEN(...)                                                                                 \
    (const given[]){__VA_ARGS__}, (int)(sizeof((const given[]){__VA_ARGS__}) / sizeof(given))

/* `results` receives all of the op's results, SP_MAX_OUT at most. */
static inline sp_status node_of_many(sp_loader *l, const char *op_name, const sp_vid *in, int n_in,
                                     const given *list, int n_given, sp_vid *results)
{
    int op = sp__op_by_name(op_name);
    sp_attr attrs[SP_MAX_ATTR];
    if (op < 0) return unsupported(l, "this build has no op for it");
    const sp_op_info *info = &sp_op_table[op];
    for (int i = 0; i < info->n_attr; i++) {
        uint8_t kind = info->attr_kinds[i]; /* flags are false unless given, the rest is absent */
        attrs[i] = (sp_attr){.kind = kind, .absent = kind != SP_ATTR_BOOL};
        for (int k = 0; k < n_given; k++) {
            if (strcmp(list[k].name, info->attr_names[i]) != 0) continue;
            attrs[i] = list[k].value;
            attrs[i].kind = info->attr_kinds[i];
        }
    }
    return sp__graph_node(l->g, op, in, n_in, attrs, info->n_attr, NULL, NULL, results);
}

static inline sp_status node_of(sp_loader *l, const char *op_name, const sp_vid *in, int n_in,
                                const given *list, int n_given, sp_vid *out)
{
    sp_vid results[SP_MAX_OUT];
    SP_RETURN_IF(node_of_many(l, op_name, in, n_in, list, n_given, results));
    *out = results[0];
    return SP_OK;
}

static inline sp_status make1(sp_loader *l, const char *op_name, sp_vid x, const given *list, int n,
                              sp_vid *out)
{
    return node_of(l, op_name, &x, 1, list, n, out);
}

static inline sp_status make2(sp_loader *l, const char *op_name, sp_vid x, sp_vid y, sp_vid *out)
{
    return node_of(l, op_name, (sp_vid[]){x, y}, 2, NULL, 0, out);
}

static inline sp_status make_cast(sp_loader *l, sp_vid x, sp_dtype dtype, sp_vid *out)
{
    given to = {"dtype", {.v.i = dtype, .kind = SP_ATTR_DTYPE}};
    return make1(l, "cast", x, &to, 1, out);
}

static inline sp_status make_reshape(sp_loader *l, sp_vid x, const int64_t *shape, int rank,
                                     sp_vid *out)
{
    const char *name = sp_op_table[SP_OP_RESHAPE].attr_names[0];
    return make1(l, "reshape", x, GIVEN(GIVE_INTS(name, shape, rank)), out);
}

/* The mean over dims, as the sum and what it is divided by. */
static inline sp_status make_mean(sp_loader *l, sp_vid x, const int64_t *dims, int n, bool keepdim,
                                  sp_vid *out)
{
    const sp_meta *m = type_of(l, x);
    int64_t count = 1;
    for (int i = 0; i < n; i++) {
        int64_t d = dims[i] < 0 ? dims[i] + m->rank : dims[i];
        if (d < 0 || d >= m->rank) return malformed(l, "an axis out of range");
        count *= m->shape[d];
    }
    SP_RETURN_IF(
        make1(l, "sum", x, GIVEN(GIVE_INTS("dim", dims, n), GIVE_INT("keepdim", keepdim)), &x));
    return make1(l, "div.scalar", x, GIVEN(GIVE_NUMBER("y", count)), out);
}

/* ---- constants ---- */

static inline sp_status const_ints(sp_loader *l, int i, int64_t *out, int max, int *n)
{
    const sp_value *v = &l->g->values[l->node->in[i]];
    if (v->kind != SP_VALUE_CONST)
        return unsupported(l, "an operand that decides the shape must be a constant of the file");
    if (v->constant->dtype != SP_INT64 || v->constant->rank > 1)
        return malformed(l, "a list of int64 was expected");
    if (v->constant->numel > max)
        return unsupported(l, "a list is longer than the most dimensions a tensor has");
    *n = (int)v->constant->numel;
    return sp_copy_out(v->constant, out, (size_t)*n * sizeof *out);
}

/* The number that input i is, as an attribute; `what` starts the message where it is none. */
static inline sp_status const_number(sp_loader *l, int i, const char *what, const char *name,
                                     given *out)
{
    const sp_value *v = &l->g->values[l->node->in[i]];
    sp_scalar value;
    if (v->kind != SP_VALUE_CONST || v->constant->numel != 1) return unsupported(l, what);
    SP_RETURN_IF(sp_item(v->constant, &value));
    *out = (given){name, sp__attr_scalar(value)};
    return SP_OK;
}

/* Axes from the input at `i`, or, in older opsets, from the attribute. n stays -1 when there are
 * none. */
static inline sp_status read_axes(sp_loader *l, int i, int64_t *axes, int *n)
{
    const sp_onnx_attr *a = attr(l, "axes");
    *n = -1;
    if (has_input(l, i)) return const_ints(l, i, axes, SP_MAX_RANK, n);
    if (a == NULL) return SP_OK;
    if (a->n_ints > SP_MAX_RANK) return malformed(l, "too many axes");
    *n = a->n_ints;
    memcpy(axes, a->ints, (size_t)*n * sizeof *axes);
    return SP_OK;
}

#endif
