/* What the per-op loaders (load_ops.c) see of a model: one node at a time, its operands already
 * values of the graph.
 *
 * Invariant: everything here borrows from the file's bytes, which the caller holds until loading is
 * done. Nothing is trusted: counts, sizes, names and indices are checked where they are read.
 */
#ifndef SP_ONNX_LOAD_H
#define SP_ONNX_LOAD_H

#include "jit/ir.h"
#include "jit/onnx/schema.h"
#include "jit/onnx/wire.h"

enum { ONNX_MAX_NODE_IO = 64, ONNX_MAX_NODE_ATTR = 32, ONNX_MAX_INTS = 64 };

typedef struct sp_onnx_attr {
    sp_bytes name, text, tensor;
    int64_t i;
    float f;
    int64_t ints[ONNX_MAX_INTS];
    int n_ints;
} sp_onnx_attr;

typedef struct sp_onnx_node {
    sp_bytes op_type, domain, name, doc;
    sp_bytes input[ONNX_MAX_NODE_IO], output[ONNX_MAX_NODE_IO];
    sp_vid in[ONNX_MAX_NODE_IO]; /* -1: optional input left out */
    sp_vid out[ONNX_MAX_NODE_IO];
    int n_in, n_out;
    sp_onnx_attr attr[ONNX_MAX_NODE_ATTR];
    int n_attr;
} sp_onnx_node;

typedef struct sp_loader {
    sp_graph *g;
    int64_t opset;
    sp_onnx_node *node; /* the one being loaded */
} sp_loader;

bool sp__bytes_are(sp_bytes s, const char *text);
/* "'Relu' (node 'r1')" into buf. */
const char *sp__onnx_node_text(const sp_onnx_node *n, char *buf, size_t size);

/* A TensorProto as a tensor of its own. EFORMAT, EUNSUPPORTED, EMEMORY. */
SP_MUST_USE sp_status sp__onnx_tensor(sp_bytes message, sp_bytes *name, sp_tensor **out);
/* Spool's dtype of a TensorProto.DataType. */
SP_MUST_USE sp_status sp__onnx_dtype(int64_t code, sp_dtype *out);

/* Loads l->node: appends graph nodes and sets its out[]. EUNSUPPORTED names the operator. */
SP_MUST_USE sp_status sp__load_op(sp_loader *l);

#endif
