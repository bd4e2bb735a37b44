/* An ONNX file as a graph: reading the frame (model, graph, tensors, names) and ordering the nodes.
 *
 * The file is hostile until shown otherwise: messages are opened one level at a time (no
 * recursion), sizes are checked against the bytes that are there before anything is allocated for
 * them, and the nodes are ordered by counting unresolved operands, so that a cycle ends as an error
 * and the file's own order does not matter.
 */
#include "jit/onnx/load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tensor/memory.h"

bool sp__bytes_are(sp_bytes s, const char *text)
{
    return s.size == strlen(text) && (s.size == 0 || memcmp(s.data, text, s.size) == 0);
}

static bool slices_equal(sp_bytes a, sp_bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static int text_width(sp_bytes s)
{
    return s.size > 60 ? 60 : (int)s.size;
}

const char *sp__onnx_node_text(const sp_onnx_node *n, char *buf, size_t size)
{
    snprintf(buf, size, "'%.*s'%s%.*s%s", text_width(n->op_type), (const char *)n->op_type.data,
             n->name.size ? " (node '" : "", text_width(n->name), (const char *)n->name.data,
             n->name.size ? "')" : "");
    return buf;
}

static sp_status broken(const char *what)
{
    return sp_fail(SP_EFORMAT, "onnx.load: broken file: %s", what);
}

/* ---- tensors ---- */

sp_status sp__onnx_dtype(int64_t code, sp_dtype *out)
{
    for (int i = 0; i < SP_DTYPE_COUNT; i++) {
        if (sp__onnx_type((sp_dtype)i) != code) continue;
        *out = (sp_dtype)i;
        return SP_OK;
    }
    return sp_fail(
        SP_EUNSUPPORTED,
        "onnx.load: tensors of ONNX data type %lld are not supported, only those of bool, uint8, "
        "int8 to int64, float16, bfloat16, float and double",
        (long long)code);
}

typedef struct tensor_proto {
    sp_bytes name, raw;
    int64_t shape[SP_MAX_RANK];
    int rank;
    bool too_many_dims, bad_repeat;
    sp_dtype dtype;
    bool typed, external;
    sp_tensor *made; /* filled by listed numbers */
    int64_t n_listed;
} tensor_proto;

static void put_dim(void *ctx, uint64_t bits)
{
    tensor_proto *t = ctx;
    if (t->rank == SP_MAX_RANK)
        t->too_many_dims = true;
    else
        t->shape[t->rank++] = (int64_t)bits;
}

/* First look: everything but numbers listed one by one. */
static sp_status read_tensor_header(sp_bytes message, tensor_proto *t)
{
    sp_wire w = sp__wire_open(message);
    sp_field f;
    while (sp__wire_next(&w, &f)) {
        switch (f.number) {
        case TENSOR_DIMS:
            t->bad_repeat |= !sp__wire_repeated(&f, SP_WIRE_VARINT, put_dim, t);
            break;
        case TENSOR_DATA_TYPE:
            SP_RETURN_IF(sp__onnx_dtype((int64_t)f.varint, &t->dtype));
            t->typed = true;
            break;
        case TENSOR_NAME: t->name = f.bytes; break;
        case TENSOR_RAW_DATA: t->raw = f.bytes; break;
        case TENSOR_EXTERNAL_DATA: t->external = true; break;
        case TENSOR_DATA_LOCATION: t->external |= f.varint == 1; break;
        default: break;
        }
    }
    if (w.broken || t->bad_repeat || !t->typed) return broken("a tensor's header");
    if (t->too_many_dims)
        return sp_fail(SP_EUNSUPPORTED, "onnx.load: a tensor has more than %d dimensions",
                       SP_MAX_RANK);
    if (t->external)
        return sp_fail(
            SP_EUNSUPPORTED,
            "onnx.load: tensors in files of their own (external data) are not supported");
    return SP_OK;
}

/* Element count; EFORMAT when a size is negative or the count cannot fit the file's bytes. */
static sp_status tensor_numel(const tensor_proto *t, sp_bytes message, int64_t *out)
{
    int64_t numel = 1;
    for (int d = 0; d < t->rank; d++)
        if (t->shape[d] < 0 || __builtin_mul_overflow(numel, t->shape[d], &numel))
            return broken("a tensor's sizes");
    if ((uint64_t)numel > message.size)
        return broken("a tensor has fewer bytes than its shape asks for");
    *out = numel;
    return SP_OK;
}

static void put_number(void *ctx, uint64_t bits)
{
    tensor_proto *t = ctx;
    if (t->n_listed >= t->made->numel) {
        t->bad_repeat = true;
        return;
    }
    size_t size = sp_dtype_size(t->dtype);
    uint8_t truth = bits != 0;
    memcpy(t->made->storage->data + (size_t)t->n_listed++ * size,
           t->dtype == SP_BOOL ? (void *)&truth : (void *)&bits, size);
}

/* Second look: numbers in the typed fields. */
static sp_status read_listed(sp_bytes message, tensor_proto *t)
{
    static const struct {
        uint32_t field;
        sp_wire_type type;
    } small = {TENSOR_INT32_DATA, SP_WIRE_VARINT}, /* the halves as their bits */
        where[SP_DTYPE_COUNT] = {[SP_INT64] = {TENSOR_INT64_DATA, SP_WIRE_VARINT},
                                 [SP_FLOAT32] = {TENSOR_FLOAT_DATA, SP_WIRE_FIXED32},
                                 [SP_FLOAT64] = {TENSOR_DOUBLE_DATA, SP_WIRE_FIXED64}};
    uint32_t field = where[t->dtype].field ? where[t->dtype].field : small.field;
    sp_wire_type type = where[t->dtype].field ? where[t->dtype].type : small.type;
    sp_wire w = sp__wire_open(message);
    sp_field f;
    while (sp__wire_next(&w, &f))
        if (f.number == field) t->bad_repeat |= !sp__wire_repeated(&f, type, put_number, t);
    if (t->bad_repeat || t->n_listed != t->made->numel)
        return broken("a tensor's numbers do not match its shape");
    return SP_OK;
}

static sp_status read_raw(const tensor_proto *t)
{
    size_t bytes = (size_t)t->made->numel * sp_dtype_size(t->dtype);
    if (t->raw.size != bytes) return broken("a tensor's bytes do not match its shape");
    memcpy(t->made->storage->data, t->raw.data, bytes);
    if (t->dtype == SP_BOOL)
        for (size_t i = 0; i < bytes; i++)
            t->made->storage->data[i] = t->made->storage->data[i] != 0;
    return SP_OK;
}

sp_status sp__onnx_tensor(sp_bytes message, sp_bytes *name, sp_tensor **out)
{
    tensor_proto t = {0};
    sp_meta meta = {.view_of = -1};
    int64_t numel;
    sp_status status;
    SP_TRY(read_tensor_header(message, &t));
    SP_TRY(tensor_numel(&t, message, &numel));
    meta.dtype = t.dtype, meta.rank = (uint8_t)t.rank;
    memcpy(meta.shape, t.shape, sizeof t.shape);
    SP_TRY(sp__meta_dense(&meta, "onnx.load"));
    SP_TRY(sp__handle_new(&meta, NULL, &t.made));
    if (numel > 0) SP_TRY(t.raw.data != NULL ? read_raw(&t) : read_listed(message, &t));
    if (name != NULL) *name = t.name;
    *out = t.made;
    return SP_OK;
out:
    sp_drop(&t.made);
    return status;
}

/* ---- names ---- */

typedef struct name_entry {
    sp_bytes name;
    sp_vid value;     /* -1 until defined */
    int32_t producer; /* node that defines it; -1: input or initializer */
    int32_t waiting; /* head of the list of nodes that wait for it, through waiter.next; -1: none */
} name_entry;

typedef struct waiter {
    int32_t node, next;
} waiter;

typedef struct model {
    sp_bytes graph;
    int64_t opset;
    name_entry *names;
    size_t n_slots; /* power of two, more than the number of names */
    sp_bytes *nodes;
    int32_t *missing; /* operands a node still waits for */
    int32_t n_nodes, n_waiters, n_outputs;
    size_t n_references; /* operand slots of all nodes */
    waiter *waiters;
    int32_t *ready;
    sp_loader loader;
} model;

static uint64_t hash_of(sp_bytes s)
{
    uint64_t hash = 1469598103934665603u; /* FNV-1a */
    for (size_t i = 0; i < s.size; i++) hash = (hash ^ s.data[i]) * 1099511628211u;
    return hash;
}

/* The entry of a name, made if it is new. The table is sized for every name in the file, so it
 * never fills. */
static name_entry *entry_of(model *m, sp_bytes name)
{
    for (size_t at = hash_of(name) & (m->n_slots - 1);; at = (at + 1) & (m->n_slots - 1)) {
        name_entry *e = &m->names[at];
        if (e->name.data == NULL) {
            *e = (name_entry){.name = name, .value = -1, .producer = -1, .waiting = -1};
            return e;
        }
        if (slices_equal(e->name, name)) return e;
    }
}

static sp_status define(model *m, sp_bytes name, sp_vid value)
{
    name_entry *e = entry_of(m, name);
    if (e->value >= 0)
        return sp_fail(SP_EFORMAT, "onnx.load: broken file: the name '%.*s' is defined twice",
                       text_width(name), (const char *)name.data);
    e->value = value;
    return SP_OK;
}

/* ---- counting and allocating ---- */

static size_t count_fields(sp_bytes message, uint32_t number)
{
    sp_wire w = sp__wire_open(message);
    sp_field f;
    size_t n = 0;
    while (sp__wire_next(&w, &f)) n += f.number == number && f.type == SP_WIRE_BYTES;
    return n;
}

static sp_status collect_nodes(model *m)
{
    sp_wire w = sp__wire_open(m->graph);
    sp_field f;
    size_t names = 0;
    m->nodes = sp__alloc_zero((count_fields(m->graph, GRAPH_NODE) + 1) * sizeof *m->nodes);
    if (m->nodes == NULL) return sp_fail(SP_EMEMORY, "onnx.load: no memory for the list of nodes");
    while (sp__wire_next(&w, &f)) {
        if (f.type != SP_WIRE_BYTES) continue;
        names++;
        m->n_outputs += f.number == GRAPH_OUTPUT;
        if (f.number != GRAPH_NODE) continue;
        m->nodes[m->n_nodes++] = f.bytes;
        m->n_references += count_fields(f.bytes, NODE_INPUT);
        names += count_fields(f.bytes, NODE_INPUT) + count_fields(f.bytes, NODE_OUTPUT);
    }
    if (w.broken) return broken("the graph");
    for (m->n_slots = 16; m->n_slots < 2 * names + 2;) m->n_slots *= 2;
    size_t n = (size_t)m->n_nodes + 1;
    m->names = sp__alloc_zero(m->n_slots * sizeof *m->names);
    m->missing = sp__alloc_zero(n * sizeof *m->missing);
    m->ready = sp__alloc_zero(n * sizeof *m->ready);
    m->waiters = sp__alloc_zero((m->n_references + 1) * sizeof *m->waiters);
    m->loader.node = sp__alloc(sizeof *m->loader.node);
    if (!m->names || !m->missing || !m->ready || !m->waiters || !m->loader.node)
        return sp_fail(SP_EMEMORY, "onnx.load: no memory for %d nodes", m->n_nodes);
    return SP_OK;
}

static void model_free(model *m)
{
    size_t n = (size_t)m->n_nodes + 1;
    if (m->nodes != NULL)
        sp__free(m->nodes, (count_fields(m->graph, GRAPH_NODE) + 1) * sizeof *m->nodes);
    if (m->names != NULL) sp__free(m->names, m->n_slots * sizeof *m->names);
    if (m->missing != NULL) sp__free(m->missing, n * sizeof *m->missing);
    if (m->ready != NULL) sp__free(m->ready, n * sizeof *m->ready);
    if (m->waiters != NULL) sp__free(m->waiters, (m->n_references + 1) * sizeof *m->waiters);
    if (m->loader.node != NULL) sp__free(m->loader.node, sizeof *m->loader.node);
}

/* ---- inputs and initializers ---- */

static sp_bytes field_bytes(sp_bytes message, uint32_t number)
{
    sp_wire w = sp__wire_open(message);
    sp_field f;
    while (sp__wire_next(&w, &f))
        if (f.number == number && f.type == SP_WIRE_BYTES) return f.bytes;
    return (sp_bytes){0};
}

static sp_status load_initializers(model *m)
{
    sp_wire w = sp__wire_open(m->graph);
    sp_field f;
    while (sp__wire_next(&w, &f)) {
        if (f.number != GRAPH_INITIALIZER || f.type != SP_WIRE_BYTES) continue;
        sp_tensor *t = NULL;
        sp_bytes name = {0};
        sp_vid v;
        SP_RETURN_IF(sp__onnx_tensor(f.bytes, &name, &t));
        sp_status status = sp__graph_const(m->loader.g, t, &v);
        sp_drop(&t);
        SP_RETURN_IF(status);
        SP_RETURN_IF(define(m, name, v));
    }
    return SP_OK;
}

static sp_status read_dim(sp_bytes dim, sp_bytes name, int64_t *out)
{
    sp_wire w = sp__wire_open(dim);
    sp_field f;
    *out = -1;
    while (sp__wire_next(&w, &f))
        if (f.number == DIM_VALUE && f.type == SP_WIRE_VARINT) *out = (int64_t)f.varint;
    if (*out >= 0) return SP_OK;
    return sp_fail(
        SP_EUNSUPPORTED,
        "onnx.load: input '%.*s' has a dimension without a size: save the model with fixed shapes",
        text_width(name), (const char *)name.data);
}

static sp_status read_input_type(sp_bytes info, sp_bytes name, sp_meta *type)
{
    sp_bytes tensor = field_bytes(field_bytes(info, VALUE_TYPE), TYPE_TENSOR);
    if (tensor.data == NULL)
        return sp_fail(SP_EUNSUPPORTED, "onnx.load: input '%.*s' is no tensor", text_width(name),
                       (const char *)name.data);
    sp_wire w = sp__wire_open(tensor);
    sp_field f;
    sp_dtype dtype = SP_DTYPE_COUNT;
    while (sp__wire_next(&w, &f))
        if (f.number == TENSOR_TYPE_ELEM) SP_RETURN_IF(sp__onnx_dtype((int64_t)f.varint, &dtype));
    if (dtype == SP_DTYPE_COUNT) return broken("an input without element type");
    *type = (sp_meta){.dtype = (uint8_t)dtype, .view_of = -1};
    w = sp__wire_open(field_bytes(tensor, TENSOR_TYPE_SHAPE));
    while (sp__wire_next(&w, &f)) {
        if (f.number != SHAPE_DIM || f.type != SP_WIRE_BYTES) continue;
        if (type->rank == SP_MAX_RANK)
            return sp_fail(SP_EUNSUPPORTED, "onnx.load: an input has more than %d dimensions",
                           SP_MAX_RANK);
        SP_RETURN_IF(read_dim(f.bytes, name, &type->shape[type->rank]));
        type->rank++;
    }
    return sp__meta_dense(type, "onnx.load");
}

static sp_status name_value(sp_graph *g, sp_vid v, sp_bytes name)
{
    char text[96];
    snprintf(text, sizeof text, "%.*s", (int)(name.size < 95 ? name.size : 95),
             (const char *)name.data);
    return sp__graph_name_value(g, v, text);
}

static sp_status load_inputs(model *m)
{
    sp_wire w = sp__wire_open(m->graph);
    sp_field f;
    while (sp__wire_next(&w, &f)) {
        if (f.number != GRAPH_INPUT || f.type != SP_WIRE_BYTES) continue;
        sp_bytes name = field_bytes(f.bytes, VALUE_NAME);
        if (entry_of(m, name)->value >= 0)
            continue; /* an initializer that is listed as an input too */
        sp_meta type;
        sp_vid v;
        SP_RETURN_IF(read_input_type(f.bytes, name, &type));
        SP_RETURN_IF(sp__graph_input(m->loader.g, &type, &v));
        SP_RETURN_IF(name_value(m->loader.g, v, name));
        SP_RETURN_IF(define(m, name, v));
    }
    return SP_OK;
}

/* ---- nodes ---- */

static void put_int(void *ctx, uint64_t bits)
{
    sp_onnx_attr *a = ctx;
    if (a->n_ints < ONNX_MAX_INTS) a->ints[a->n_ints] = (int64_t)bits;
    a->n_ints++;
}

static sp_status read_attr(sp_bytes message, sp_onnx_attr *a)
{
    sp_wire w = sp__wire_open(message);
    sp_field f;
    bool good = true;
    *a = (sp_onnx_attr){0};
    while (sp__wire_next(&w, &f)) {
        if (f.number == ATTR_NAME && f.type == SP_WIRE_BYTES)
            a->name = f.bytes;
        else if (f.number == ATTR_S && f.type == SP_WIRE_BYTES)
            a->text = f.bytes;
        else if (f.number == ATTR_T && f.type == SP_WIRE_BYTES)
            a->tensor = f.bytes;
        else if (f.number == ATTR_I)
            a->i = (int64_t)f.varint;
        else if (f.number == ATTR_F && f.type == SP_WIRE_FIXED32)
            memcpy(&a->f, &f.varint, sizeof a->f);
        else if (f.number == ATTR_INTS)
            good &= sp__wire_repeated(&f, SP_WIRE_VARINT, put_int, a);
    }
    return w.broken || !good || a->n_ints > ONNX_MAX_INTS ? broken("a node's attribute") : SP_OK;
}

static sp_status add_name(sp_bytes *list, int *n, sp_bytes name)
{
    if (*n == ONNX_MAX_NODE_IO)
        return sp_fail(SP_EUNSUPPORTED, "onnx.load: a node with more than %d inputs or outputs",
                       ONNX_MAX_NODE_IO);
    list[(*n)++] = name;
    return SP_OK;
}

static sp_status read_node(sp_bytes message, sp_onnx_node *n)
{
    sp_wire w = sp__wire_open(message);
    sp_field f;
    n->op_type = n->domain = n->name = n->doc = (sp_bytes){0};
    n->n_in = n->n_out = n->n_attr = 0;
    while (sp__wire_next(&w, &f)) {
        if (f.type != SP_WIRE_BYTES) continue;
        switch (f.number) {
        case NODE_INPUT: SP_RETURN_IF(add_name(n->input, &n->n_in, f.bytes)); break;
        case NODE_OUTPUT: SP_RETURN_IF(add_name(n->output, &n->n_out, f.bytes)); break;
        case NODE_OP_TYPE: n->op_type = f.bytes; break;
        case NODE_DOMAIN: n->domain = f.bytes; break;
        case NODE_NAME: n->name = f.bytes; break;
        case NODE_DOC: n->doc = f.bytes; break;
        case NODE_ATTRIBUTE:
            if (n->n_attr == ONNX_MAX_NODE_ATTR) return broken("a node with too many attributes");
            SP_RETURN_IF(read_attr(f.bytes, &n->attr[n->n_attr++]));
            break;
        default: break;
        }
    }
    return w.broken ? broken("a node") : SP_OK;
}

/* Notes who produces what and who waits for what. */
static sp_status link_nodes(model *m)
{
    sp_onnx_node *n = m->loader.node;
    for (int32_t i = 0; i < m->n_nodes; i++) {
        SP_RETURN_IF(read_node(m->nodes[i], n));
        for (int k = 0; k < n->n_out; k++) {
            name_entry *e = entry_of(m, n->output[k]);
            if (n->output[k].size == 0) continue;
            if (e->producer >= 0 || e->value >= 0)
                return sp_fail(SP_EFORMAT,
                               "onnx.load: broken file: the name '%.*s' is defined twice",
                               text_width(n->output[k]), (const char *)n->output[k].data);
            e->producer = i;
        }
        for (int k = 0; k < n->n_in; k++) {
            name_entry *e = entry_of(m, n->input[k]);
            if (n->input[k].size == 0 || e->value >= 0) continue;
            m->waiters[m->n_waiters] = (waiter){.node = i, .next = e->waiting};
            e->waiting = m->n_waiters++;
            m->missing[i]++;
        }
    }
    return SP_OK;
}

static sp_status load_node(model *m, int32_t i, int32_t *n_ready)
{
    sp_onnx_node *n = m->loader.node;
    SP_RETURN_IF(read_node(m->nodes[i], n));
    for (int k = 0; k < n->n_in; k++)
        n->in[k] = n->input[k].size == 0 ? -1 : entry_of(m, n->input[k])->value;
    for (int k = 0; k < n->n_out; k++) n->out[k] = -1;
    SP_RETURN_IF(sp__load_op(&m->loader));
    for (int k = 0; k < n->n_out; k++) {
        if (n->output[k].size == 0 || n->out[k] < 0) continue;
        name_entry *e = entry_of(m, n->output[k]);
        e->value = n->out[k];
        for (int32_t at = e->waiting; at >= 0; at = m->waiters[at].next)
            if (--m->missing[m->waiters[at].node] == 0)
                m->ready[(*n_ready)++] = m->waiters[at].node;
    }
    return SP_OK;
}

static sp_status load_nodes(model *m)
{
    int32_t n_ready = 0;
    SP_RETURN_IF(link_nodes(m));
    for (int32_t i = 0; i < m->n_nodes; i++)
        if (m->missing[i] == 0) m->ready[n_ready++] = i;
    for (int32_t at = 0; at < n_ready; at++) SP_RETURN_IF(load_node(m, m->ready[at], &n_ready));
    if (n_ready < m->n_nodes)
        return broken("nodes that wait for each other, or for a name that nothing defines");
    return SP_OK;
}

static sp_status load_outputs(model *m)
{
    sp_vid *outputs = sp__alloc(((size_t)m->n_outputs + 1) * sizeof *outputs);
    sp_wire w = sp__wire_open(m->graph);
    sp_field f;
    sp_status status = SP_OK;
    int n = 0;
    if (outputs == NULL)
        return sp_fail(SP_EMEMORY, "onnx.load: no memory for %d outputs", m->n_outputs);
    while (sp__wire_next(&w, &f)) {
        if (f.number != GRAPH_OUTPUT || f.type != SP_WIRE_BYTES) continue;
        outputs[n] = entry_of(m, field_bytes(f.bytes, VALUE_NAME))->value;
        if (outputs[n++] < 0) SP_TRY(broken("an output that nothing defines"));
    }
    status = sp__graph_outputs(m->loader.g, outputs, n);
out:
    sp__free(outputs, ((size_t)m->n_outputs + 1) * sizeof *outputs);
    return status;
}

/* ---- the model ---- */

static sp_status read_opset(sp_bytes message, model *m)
{
    sp_wire w = sp__wire_open(message);
    sp_field f;
    sp_bytes domain = {0};
    int64_t version = 0;
    while (sp__wire_next(&w, &f)) {
        if (f.number == OPSET_DOMAIN) domain = f.bytes;
        if (f.number == OPSET_VERSION) version = (int64_t)f.varint;
    }
    if (domain.size == 0 || sp__bytes_are(domain, "ai.onnx")) m->opset = version;
    return w.broken ? broken("an opset") : SP_OK;
}

static sp_status read_model(sp_bytes file, model *m)
{
    sp_wire w = sp__wire_open(file);
    sp_field f;
    while (sp__wire_next(&w, &f)) {
        if (f.number == MODEL_GRAPH && f.type == SP_WIRE_BYTES) m->graph = f.bytes;
        if (f.number == MODEL_OPSET_IMPORT && f.type == SP_WIRE_BYTES)
            SP_RETURN_IF(read_opset(f.bytes, m));
    }
    if (w.broken) return broken("it ends early or is no ONNX model");
    if (m->graph.data == NULL) return broken("it holds no graph");
    if (m->opset < ONNX_OPSET_OLDEST)
        return sp_fail(SP_EUNSUPPORTED,
                       "onnx.load: the file uses opset %lld; opset %d and newer can be read",
                       (long long)m->opset, ONNX_OPSET_OLDEST);
    m->loader.opset = m->opset;
    return SP_OK;
}

static sp_status load_model(sp_bytes file, sp_graph **out)
{
    model m = {0};
    sp_status status;
    SP_TRY(read_model(file, &m));
    SP_TRY(sp__graph_new("onnx", &m.loader.g));
    SP_TRY(collect_nodes(&m));
    SP_TRY(load_initializers(&m));
    SP_TRY(load_inputs(&m));
    SP_TRY(load_nodes(&m));
    SP_TRY(load_outputs(&m));
    SP_TRY(sp__graph_verify(m.loader.g));
    *out = m.loader.g;
    m.loader.g = NULL;
out:
    model_free(&m);
    sp_graph_drop(&m.loader.g);
    return status;
}

static sp_status read_file(const char *path, uint8_t **data, size_t *size)
{
    struct stat info;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) {
        if (file >= 0 && errno == 0) errno = EISDIR;
        sp_status status = sp_fail(SP_EIO, "onnx.load: cannot read '%s': %s", path,
                                   file < 0 ? strerror(errno) : "not a regular file");
        if (file >= 0) close(file);
        return status;
    }
    *size = (size_t)info.st_size;
    *data = sp__alloc(*size);
    sp_status status =
        *data == NULL
            ? sp_fail(SP_EMEMORY, "onnx.load: no memory for the %zu bytes of '%s'", *size, path)
            : SP_OK;
    size_t at = 0;
    while (status == SP_OK && at < *size) {
        ssize_t got = read(file, *data + at, *size - at);
        if (got <= 0)
            status = sp_fail(SP_EIO, "onnx.load: cannot read '%s': %s", path,
                             got < 0 ? strerror(errno) : "it shrank");
        else
            at += (size_t)got;
    }
    close(file);
    return status;
}

sp_status sp_onnx_load(const char *path, sp_graph **out)
{
    uint8_t *data = NULL;
    size_t size = 0;
    *out = NULL;
    sp_status status = read_file(path, &data, &size);
    if (status == SP_OK) status = load_model((sp_bytes){data, size}, out);
    if (data != NULL) sp__free(data, size);
    return status;
}
