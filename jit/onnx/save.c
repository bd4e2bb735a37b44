/* A graph as an ONNX model: the frame around the ops (model, graph, inputs, constants, names), and
 * the file. */
#include "jit/onnx/save.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ops/dispatch.h"
#include "tensor/memory.h"

int64_t sp__onnx_type(sp_dtype dtype)
{
    static const int64_t types[SP_DTYPE_COUNT] = {
        [SP_BOOL] = ONNX_BOOL,       [SP_UINT8] = ONNX_UINT8,       [SP_INT8] = ONNX_INT8,
        [SP_INT16] = ONNX_INT16,     [SP_INT32] = ONNX_INT32,       [SP_INT64] = ONNX_INT64,
        [SP_FLOAT16] = ONNX_FLOAT16, [SP_BFLOAT16] = ONNX_BFLOAT16, [SP_FLOAT32] = ONNX_FLOAT,
        [SP_FLOAT64] = ONNX_DOUBLE};
    return types[dtype];
}

/* ---- names ---- */

static bool looks_generated(const char *name)
{
    return strchr("vtco", name[0]) != NULL && strpbrk(name, "0123456789") != NULL;
}

sp_name sp__save_value(const sp_saver *s, sp_vid v)
{
    sp_name name;
    const char *own = s->g->values[v].name;
    if (own != NULL && strlen(own) < sizeof name.text && !looks_generated(own))
        snprintf(name.text, sizeof name.text, "%s", own);
    else
        snprintf(name.text, sizeof name.text, "v%d", v);
    return name;
}

sp_name sp__save_temp(sp_saver *s)
{
    sp_name name;
    snprintf(name.text, sizeof name.text, "t%d", s->n_temps++);
    return name;
}

static sp_name const_name(sp_saver *s)
{
    sp_name name;
    snprintf(name.text, sizeof name.text, "c%d", s->n_consts++);
    return name;
}

/* ---- nodes ---- */

void sp__save_begin(sp_saver *s, const char *op_type, const char *domain)
{
    s->node.size = 0;
    sp__out_text(&s->node, NODE_OP_TYPE, op_type);
    if (domain[0] == '\0') return;
    sp__out_text(&s->node, NODE_DOMAIN, domain);
    s->custom_domain = true;
}

void sp__save_in(sp_saver *s, sp_name name)
{
    sp__out_text(&s->node, NODE_INPUT, name.text);
}

static void attr_begin(sp_saver *s, const char *name, int type)
{
    s->attr.size = 0;
    sp__out_text(&s->attr, ATTR_NAME, name);
    sp__out_varint(&s->attr, ATTR_TYPE, (uint64_t)type);
}

void sp__save_attr_int(sp_saver *s, const char *name, int64_t value)
{
    attr_begin(s, name, ATTR_TYPE_INT);
    sp__out_varint(&s->attr, ATTR_I, (uint64_t)value);
    sp__out_message(&s->node, NODE_ATTRIBUTE, &s->attr);
}

void sp__save_attr_float(sp_saver *s, const char *name, float value)
{
    attr_begin(s, name, ATTR_TYPE_FLOAT);
    sp__out_float(&s->attr, ATTR_F, value);
    sp__out_message(&s->node, NODE_ATTRIBUTE, &s->attr);
}

void sp__save_attr_ints(sp_saver *s, const char *name, const int64_t *values, int n)
{
    attr_begin(s, name, ATTR_TYPE_INTS);
    for (int i = 0; i < n; i++) sp__out_varint(&s->attr, ATTR_INTS, (uint64_t)values[i]);
    sp__out_message(&s->node, NODE_ATTRIBUTE, &s->attr);
}

void sp__save_attr_text(sp_saver *s, const char *name, const char *text)
{
    attr_begin(s, name, ATTR_TYPE_STRING);
    sp__out_text(&s->attr, ATTR_S, text);
    sp__out_message(&s->node, NODE_ATTRIBUTE, &s->attr);
}

void sp__save_end(sp_saver *s, sp_name out)
{
    sp__save_end_many(s, &out, 1);
}

void sp__save_end_many(sp_saver *s, const sp_name *out, int n)
{
    char where[256] = "";
    for (int i = 0; i < n; i++) sp__out_text(&s->node, NODE_OUTPUT, out[i].text);
    sp__where_text(&s->current->where, where, sizeof where);
    if (where[0] != '\0') sp__out_text(&s->node, NODE_DOC, where);
    sp__out_message(&s->graph, GRAPH_NODE, &s->node);
}

/* ---- constants ---- */

static void put_tensor(sp_saver *s, sp_name name, sp_dtype dtype, int rank, const int64_t *shape,
                       const void *data, size_t bytes)
{
    s->tensor.size = 0;
    for (int i = 0; i < rank; i++) sp__out_varint(&s->tensor, TENSOR_DIMS, (uint64_t)shape[i]);
    sp__out_varint(&s->tensor, TENSOR_DATA_TYPE, (uint64_t)sp__onnx_type(dtype));
    sp__out_text(&s->tensor, TENSOR_NAME, name.text);
    sp__out_bytes(&s->tensor, TENSOR_RAW_DATA, data, bytes);
    sp__out_message(&s->graph, GRAPH_INITIALIZER, &s->tensor);
}

sp_name sp__save_const_ints(sp_saver *s, const int64_t *values, int n)
{
    sp_name name = const_name(s);
    put_tensor(s, name, SP_INT64, 1, &(int64_t){n}, values, (size_t)n * sizeof *values);
    return name;
}

sp_name sp__save_const_scalar(sp_saver *s, sp_scalar value, sp_dtype dtype)
{
    sp_name name = const_name(s);
    char data[8];
    sp__scalar_to(value, dtype, data);
    put_tensor(s, name, dtype, 0, NULL, data, sp_dtype_size(dtype));
    return name;
}

static sp_status save_constant(sp_saver *s, sp_vid v)
{
    const sp_tensor *t = s->g->values[v].constant;
    size_t bytes = (size_t)t->numel * sp_dtype_size(t->dtype);
    void *data = sp__alloc(bytes);
    if (data == NULL)
        return sp_fail(SP_EMEMORY, "onnx.save: no memory for a constant of %zu bytes", bytes);
    sp_status status = sp_copy_out(t, data, bytes);
    if (status == SP_OK)
        put_tensor(s, sp__save_value(s, v), t->dtype, t->rank, t->shape, data, bytes);
    sp__free(data, bytes);
    return status;
}

sp_name sp__save_cast(sp_saver *s, sp_name name, sp_dtype from, sp_dtype to)
{
    if (from == to) return name;
    sp_name out = sp__save_temp(s);
    sp__save_begin(s, "Cast", "");
    sp__save_in(s, name);
    sp__save_attr_int(s, "to", sp__onnx_type(to));
    sp__save_end(s, out);
    return out;
}

/* ---- inputs, outputs ---- */

static void put_value_info(sp_saver *s, uint32_t field, sp_name name, const sp_meta *type)
{
    s->shape.size = s->tensor.size = s->scratch.size = 0;
    for (int i = 0; i < type->rank; i++) {
        sp__out_varint(&s->scratch, DIM_VALUE, (uint64_t)type->shape[i]);
        sp__out_message(&s->shape, SHAPE_DIM, &s->scratch);
    }
    sp__out_varint(&s->tensor, TENSOR_TYPE_ELEM, (uint64_t)sp__onnx_type(type->dtype));
    sp__out_message(&s->tensor, TENSOR_TYPE_SHAPE, &s->shape);
    sp__out_message(&s->scratch, TYPE_TENSOR, &s->tensor);
    sp__out_text(&s->tensor, VALUE_NAME, name.text);
    sp__out_message(&s->tensor, VALUE_TYPE, &s->scratch);
    sp__out_message(&s->graph, field, &s->tensor);
}

/* An ONNX output must be a node's own result and have its own name: an input, a constant or a
 * repeated value goes out through an Identity. */
static void save_outputs(sp_saver *s)
{
    static const sp_ir_node nowhere = {0};
    for (int i = 0; i < s->g->n_outputs; i++) {
        sp_vid v = s->g->outputs[i];
        sp_name name = sp__save_value(s, v);
        bool own = s->g->values[v].kind == SP_VALUE_NODE;
        for (int j = 0; j < i; j++) own &= s->g->outputs[j] != v;
        if (!own) {
            sp_name inner = name;
            snprintf(name.text, sizeof name.text, "out%d", i);
            s->current = &nowhere;
            sp__save_begin(s, "Identity", "");
            sp__save_in(s, inner);
            sp__save_end(s, name);
        }
        put_value_info(s, GRAPH_OUTPUT, name, &s->g->values[v].type);
    }
}

static sp_status save_graph(sp_saver *s)
{
    const sp_graph *g = s->g;
    sp__out_text(&s->graph, GRAPH_NAME, g->name != NULL ? g->name : "graph");
    for (int i = 0; i < g->n_inputs; i++)
        put_value_info(s, GRAPH_INPUT, sp__save_value(s, g->inputs[i]),
                       &g->values[g->inputs[i]].type);
    for (sp_vid v = 0; v < g->n_values; v++)
        if (g->values[v].kind == SP_VALUE_CONST) SP_RETURN_IF(save_constant(s, v));
    for (int i = 0; i < g->n_nodes; i++) {
        s->current = &g->nodes[i];
        SP_RETURN_IF(sp__save_op(s, s->current));
    }
    save_outputs(s);
    return sp__out_finish(&s->graph);
}

static void put_opset(sp_out *model, sp_out *scratch, const char *domain, uint64_t version)
{
    scratch->size = 0;
    sp__out_text(scratch, OPSET_DOMAIN, domain);
    sp__out_varint(scratch, OPSET_VERSION, version);
    sp__out_message(model, MODEL_OPSET_IMPORT, scratch);
}

static sp_status build_model(sp_saver *s, sp_out *model)
{
    SP_RETURN_IF(save_graph(s));
    sp__out_varint(model, MODEL_IR_VERSION, ONNX_IR_VERSION);
    sp__out_text(model, MODEL_PRODUCER_NAME, "spool");
    sp__out_text(model, MODEL_PRODUCER_VERSION, SP_VERSION);
    put_opset(model, &s->scratch, "", ONNX_OPSET);
    if (s->custom_domain) put_opset(model, &s->scratch, ONNX_SPOOL_DOMAIN, 1);
    for (int i = 0; i + 1 < s->g->n_metadata; i += 2) {
        s->scratch.size = 0;
        sp__out_text(&s->scratch, ENTRY_KEY, s->g->metadata[i]);
        sp__out_text(&s->scratch, ENTRY_VALUE, s->g->metadata[i + 1]);
        sp__out_message(model, MODEL_METADATA, &s->scratch);
    }
    sp__out_message(model, MODEL_GRAPH, &s->graph);
    return sp__out_finish(model);
}

/* ---- the file ---- */

static sp_status io_error(const char *doing, const char *path)
{
    return sp_fail(SP_EIO, "onnx.save: cannot %s '%s': %s", doing, path, strerror(errno));
}

static sp_status write_all(FILE *file, const sp_out *model, const char *path)
{
    bool good = fwrite(model->data, 1, model->size, file) == model->size;
    int error = errno;
    good &= fclose(file) == 0;
    if (good) return SP_OK;
    errno = errno != 0 ? errno : error;
    return io_error("write", path);
}

/* Into a file beside the target, then renamed: the target is either the old file or the whole new
 * one. */
static sp_status write_file(const sp_out *model, const char *path)
{
    size_t size = strlen(path) + 32;
    char *beside = sp__alloc(size);
    if (beside == NULL) return sp_fail(SP_EMEMORY, "onnx.save: no memory for a path");
    snprintf(beside, size, "%s.%d.part", path, (int)getpid());
    FILE *file = fopen(beside, "wb");
    sp_status status = file == NULL ? io_error("create", path) : write_all(file, model, path);
    if (status == SP_OK && rename(beside, path) != 0) status = io_error("write", path);
    if (status != SP_OK && file != NULL) unlink(beside);
    sp__free(beside, size);
    return status;
}

/* ONNX has complex dtypes, but next to no operators that take them. */
static sp_status check_real(const sp_graph *g)
{
    for (sp_vid v = 0; v < g->n_values; v++)
        if (sp__dtype_is_complex(g->values[v].type.dtype))
            return sp_fail(SP_EUNSUPPORTED,
                           "onnx.save: a value of the graph is %s, which ONNX's operators do not "
                           "take; write the function in real numbers (view_as_real)",
                           sp_dtype_name((sp_dtype)g->values[v].type.dtype));
    return SP_OK;
}

sp_status sp_onnx_save(const sp_graph *graph, const char *path)
{
    sp_saver s = {.g = graph};
    sp_out model = {0};
    sp_status status;
    SP_TRY(check_real(graph));
    SP_TRY(build_model(&s, &model));
    SP_TRY(write_file(&model, path));
out:
    sp__out_free(&model);
    sp__out_free(&s.graph);
    sp__out_free(&s.node);
    sp__out_free(&s.attr);
    sp__out_free(&s.tensor);
    sp__out_free(&s.shape);
    sp__out_free(&s.scratch);
    return status;
}
