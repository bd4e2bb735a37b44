/* What an op is: the call every layer passes down, and the row of the op table behind its opcode.
 *
 * The rows come from the YAML files beside this header (tools/opgen.py); see ops/TABLE.md for their
 * language.
 */
#ifndef SP_OP_H
#define SP_OP_H

#include "tensor/tensor.h"

enum { SP_MAX_OUT = 4, SP_MAX_ATTR = 8 };

typedef enum sp_attr_kind {
    SP_ATTR_INT,
    SP_ATTR_FLOAT,
    SP_ATTR_BOOL,
    SP_ATTR_SCALAR, /* weakly typed number; a tracer lifts it to an input */
    SP_ATTR_INTS,
    SP_ATTR_DTYPE
} sp_attr_kind;

typedef struct sp_attr {
    union {
        int64_t i;           /* INT, BOOL, DTYPE, SCALAR of kind SP_BOOL or SP_INT64 */
        double f;            /* FLOAT, SCALAR of kind SP_FLOAT64 */
        const int64_t *ints; /* INTS: borrowed; sp__attrs_copy() keeps them */
    } v;
    int32_t n;    /* INTS: how many */
    uint8_t kind; /* sp_attr_kind */
    uint8_t tag;  /* SCALAR: its sp_dtype kind */
    bool absent;  /* optional and not given; v is zero */
} sp_attr;

/* sp_call.flags */
enum {
    SP_CALL_INPLACE = 1, /* out[0] is in[0]: x.add_(y) */
    SP_CALL_OUT = 2      /* the caller gave out[] */
};

/* One call of one op. Lives on the caller's stack; nobody below keeps a pointer to it. */
typedef struct sp_call {
    uint16_t op;
    uint8_t n_out, n_attr, flags;
    int32_t n_in;
    sp_tensor **in;             /* borrowed, never written; NULL for an optional one not given */
    sp_tensor *out[SP_MAX_OUT]; /* new references; in place and out=: the given ones */
    sp_attr attr[SP_MAX_ATTR];
} sp_call;

struct sp_kargs;
typedef sp_status (*sp_infer_fn)(const sp_call *c, sp_meta *out);

/* sp_op_info.flags; SP_OPF_, because SP_OP_VIEW and SP_OP_LINEAR are opcodes */
enum {
    SP_OPF_POINTWISE = 1, /* elementwise with broadcasting: the tile VM runs it, fusion takes it */
    SP_OPF_VIEW = 2,      /* result shares the input's storage */
    SP_OPF_CHECKS_DATA = 4, /* fails on values of in[index_in], at the call and never later */
    SP_OPF_RANDOM = 8,      /* consumes Philox offsets; attr[n_attr-2], attr[n_attr-1] hold seed and
                               offset, filled at issue */
    SP_OPF_COMPOSITE = 16,  /* has a body over other ops */
    SP_OPF_MAY_VIEW = 32,   /* view if geometry allows, copy otherwise (reshape, contiguous) */
    SP_OPF_REDUCE = 64,
    SP_OPF_LINEAR = 128, /* linear in each input of linear_mask: jvp is the op itself */
    SP_OPF_EFFECT = 256, /* dead-code elimination keeps it */
    SP_OPF_BODY = 512,   /* composite and nothing else, no kernel and no rules: sp__dispatch() runs
                            its body, so that nobody below or above ever sees the op itself */
    SP_OPF_UPDATES = 1024,     /* elementwise over inputs of one shape, result j is what becomes of
                                 input j: out= may be those inputs, sp__dispatch_each() takes many */
    SP_OPF_ROUNDS_ONCE = 2048, /* BODY, of several roundings: on halves it computes in float32 */
    SP_OPF_COMPLEX = 4096,     /* takes and yields complex numbers; others refuse them */
    SP_OPF_HOLOMORPHIC = 8192  /* and its vjp formulas are derivatives in the complex sense, to be
                                * conjugated (autograd/tape.c) */
};

typedef struct sp_op_info {
    const char *name;   /* "max.dim": base name and overload */
    const char *c_name; /* "max_dim" */
    int8_t n_in;        /* tensor inputs; -1: variadic */
    uint8_t n_out, n_attr;
    uint16_t flags;
    uint32_t diff_mask; /* bit i: a gradient flows to input i */
    uint32_t linear_mask;
    int8_t dims_attr; /* index of the attribute holding dims (DIMS) or a shape (SHAPE); -1: none */
    int8_t index_in;  /* CHECKS_DATA: the input that holds positions or classes; -1: none */
    sp_infer_fn infer;
    sp_status (*body)(sp_call *c); /* COMPOSITE */
    const char *onnx; /* ONNX operator, "custom" (jit/onnx/save_*.c knows), or NULL: domain spool */
    const char *const *in_names;
    const char *const *attr_names;
    const uint8_t *attr_kinds;
    const char *signature; /* as in the table, for messages and the textual IR */
} sp_op_info;

/* Indexed by opcode (ops_gen.h: SP_OP_ADD, ..., SP_OP_COUNT). */
extern const sp_op_info sp_op_table[];

/* Opcode of a table name ("sum", "max.dim"); -1 when there is none. */
SP_API int sp__op_by_name(const char *name);

/* The op's inference, or its body: EDTYPE before either for a complex input or dtype= of an op that
 * has no meaning for complex numbers. The only ways in. */
SP_MUST_USE sp_status sp__infer(const sp_call *c, sp_meta *out);
SP_MUST_USE sp_status sp__body(sp_call *c);

/* The dtype that a pointwise call computes in (pointwise.c): that of its result, but for
 * comparisons, which yield bool, and for conversions, which compute in the dtype they read. */
sp_dtype sp__pointwise_compute(const sp_call *c);

/* Deep copies of attributes, for the tape and the tracer; free with the same n. */
SP_MUST_USE sp_status sp__attrs_copy(const sp_attr *from, int n, sp_attr *to);
void sp__attrs_free(sp_attr *attrs, int n);
/* Equality, scalars compared by kind only when `scalars_by_kind`. */
bool sp__attrs_equal(const sp_attr *a, const sp_attr *b, int n, bool scalars_by_kind);

#endif
