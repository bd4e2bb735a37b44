/* Inference: shapes, promotion, geometry of views, and what mistakes are told. No kernel runs here.
 */
#include "ops/attr.h"
#include "ops/random.h"
#include "ops_gen.h"
#include "tests/check.h"

enum { MAX_ROOM = 64 };
static sp_tensor *room[MAX_ROOM]; /* dropped after each test */
static int n_room;

/* A dense tensor; sizes end with -1. */
#define T(dtype, ...) dense(dtype, (int64_t[]){__VA_ARGS__, -1})
#define F(...)        T(SP_FLOAT32, __VA_ARGS__)
#define NUMBER(dtype) dense(dtype, (int64_t[]){-1})

static sp_tensor *keep(sp_tensor *t)
{
    NEED(n_room < MAX_ROOM);
    return room[n_room++] = t;
}

static void drop_room(void)
{
    while (n_room) sp_drop(&room[--n_room]);
}

static sp_tensor *dense(sp_dtype dtype, const int64_t *shape)
{
    sp_meta m = {.dtype = (uint8_t)dtype, .view_of = -1};
    sp_tensor *t = NULL;
    for (; *shape >= 0; shape++) m.shape[m.rank++] = *shape;
    OK(sp__meta_dense(&m, "test"));
    OK(sp__handle_new(&m, NULL, &t));
    return keep(t);
}

typedef struct inputs {
    sp_tensor *t[3];
} inputs;

/* Infers op(in..., attr...) into *m. */
static sp_status infer(int op, inputs in, const sp_attr *attr, sp_meta *m)
{
    const sp_op_info *info = &sp_op_table[op];
    sp_call c = {.op = (uint16_t)op, .n_out = 1, .n_attr = info->n_attr, .n_in = info->n_in};
    c.in = in.t;
    for (int i = 0; i < info->n_attr; i++) c.attr[i] = attr[i];
    memset(m, 0xa5, sizeof *m); /* nothing may rely on what was there */
    return info->infer(&c, m);
}

#define IN(...)    ((inputs){{__VA_ARGS__}})
#define ATTRS(...) ((sp_attr[]){__VA_ARGS__})
#define INTS(...)                                                                                  \
    sp__attr_ints((int64_t[]){__VA_ARGS__},                                                        \
                  (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)))
#define NO_INTS    sp__attr_ints(NULL, 0)
#define NONE(kind) sp__attr_absent(SP_ATTR_##kind)

static sp_meta result(int op, inputs in, const sp_attr *attr)
{
    sp_meta m, checked;
    OK(infer(op, in, attr, &m));
    checked = m;
    sp__meta_update(&checked);
    CHECK(checked.numel == m.numel && checked.contiguous == m.contiguous);
    return m;
}

static bool shaped(sp_meta m, const char *shape)
{
    char text[SP_SHAPE_TEXT];
    bool same = strcmp(sp__shape_text(m.rank, m.shape, text, sizeof text), shape) == 0;
    if (!same) fprintf(stderr, "\n  shape %s, expected %s\n", text, shape);
    return same;
}

static bool strided(sp_meta m, const char *stride, int64_t offset)
{
    char text[SP_SHAPE_TEXT];
    sp__shape_text(m.rank, m.stride, text, sizeof text);
    bool same = strcmp(text, stride) == 0 && m.offset == offset && m.view_of == 0;
    if (!same) fprintf(stderr, "\n  strides %s from %lld\n", text, (long long)m.offset);
    return same;
}

static bool fresh(sp_meta m)
{
    return m.contiguous && m.view_of == -1 && m.offset == 0;
}

/* ---- pointwise ----- */

static void pointwise_broadcasts(void)
{
    sp_meta m = result(SP_OP_ADD, IN(F(2, 3), F(2, 3)), NULL);
    CHECK(shaped(m, "(2, 3)") && fresh(m) && m.stride[0] == 3 && m.stride[1] == 1 && m.numel == 6);
    CHECK(shaped(result(SP_OP_ADD, IN(F(2, 1, 3), F(4, 1)), NULL), "(2, 4, 3)"));
    CHECK(shaped(result(SP_OP_ADD, IN(F(0, 3), F(1, 1)), NULL), "(0, 3)"));
    CHECK(shaped(result(SP_OP_MUL, IN(NUMBER(SP_FLOAT32), NUMBER(SP_FLOAT32)), NULL), "()"));
    CHECK(shaped(result(SP_OP_WHERE, IN(T(SP_BOOL, 4), F(3, 1), NUMBER(SP_FLOAT32)), NULL),
                 "(3, 4)"));
    FAILS(infer(SP_OP_ADD, IN(F(2, 3), F(4)), NULL, &m), SP_ESHAPE,
          "add: (2, 3) and (4,) do not broadcast");
}

static int promoted(sp_tensor *x, sp_tensor *y)
{
    return result(SP_OP_ADD, IN(x, y), NULL).dtype;
}

static void tensors_promote(void)
{
    for (int a = 0; a < SP_DTYPE_COUNT; a++)
        for (int b = 0; b < SP_DTYPE_COUNT; b++) {
            CHECK(promoted(T((sp_dtype)a, 2), T((sp_dtype)b, 2)) ==
                  (int)sp_promote((sp_dtype)a, (sp_dtype)b));
            CHECK(promoted(NUMBER((sp_dtype)a), NUMBER((sp_dtype)b)) ==
                  (int)sp_promote((sp_dtype)a, (sp_dtype)b));
            drop_room();
        }
    CHECK(promoted(F(2), NUMBER(SP_FLOAT64)) ==
          SP_FLOAT32); /* of one kind: the one with dimensions */
    CHECK(promoted(T(SP_INT64, 2), NUMBER(SP_FLOAT64)) == SP_FLOAT64);
    CHECK(promoted(NUMBER(SP_INT64), T(SP_BOOL, 2)) == SP_INT64);
    CHECK(promoted(NUMBER(SP_FLOAT64), T(SP_FLOAT32, 0)) == SP_FLOAT32);
}

static int with_number(sp_tensor *x, sp_scalar y)
{
    return result(SP_OP_MUL_SCALAR, IN(x), ATTRS(sp__attr_scalar(y))).dtype;
}

static void numbers_are_weak(void)
{
    sp_scalar yes = {.v.i = 1, .kind = SP_BOOL};
    CHECK(with_number(T(SP_BOOL, 2), yes) == SP_BOOL);
    CHECK(with_number(T(SP_BOOL, 2), SP_INT(3)) == SP_INT64);
    CHECK(with_number(T(SP_BOOL, 2), SP_FLOAT(3)) == SP_FLOAT32);
    CHECK(with_number(T(SP_INT64, 2), SP_INT(3)) == SP_INT64);
    CHECK(with_number(T(SP_INT64, 2), SP_FLOAT(3)) == SP_FLOAT32);
    CHECK(with_number(F(2), SP_FLOAT(1e300)) == SP_FLOAT32);
    CHECK(with_number(T(SP_FLOAT64, 2), SP_INT(3)) == SP_FLOAT64);
    CHECK(with_number(NUMBER(SP_FLOAT32), SP_FLOAT(3)) == SP_FLOAT32);
}

static void integers_become_floating(void)
{
    CHECK(result(SP_OP_DIV, IN(T(SP_INT64, 2), T(SP_INT64, 2)), NULL).dtype == SP_FLOAT32);
    CHECK(result(SP_OP_DIV, IN(T(SP_INT64, 2), T(SP_FLOAT64, 2)), NULL).dtype == SP_FLOAT64);
    CHECK(result(SP_OP_EXP, IN(T(SP_BOOL, 2)), NULL).dtype == SP_FLOAT32);
    CHECK(result(SP_OP_EXP, IN(T(SP_FLOAT64, 2)), NULL).dtype == SP_FLOAT64);
    CHECK(result(SP_OP_POW_SCALAR, IN(T(SP_INT64, 2)), ATTRS(sp__attr_scalar(SP_INT(2)))).dtype ==
          SP_INT64);
    CHECK(result(SP_OP_POW_SCALAR, IN(T(SP_INT64, 2)), ATTRS(sp__attr_scalar(SP_FLOAT(2)))).dtype ==
          SP_FLOAT32);
}

static sp_dtype computes_in(int op, inputs in, const sp_attr *attr)
{
    sp_call c = {.op = (uint16_t)op,
                 .n_attr = sp_op_table[op].n_attr,
                 .n_in = sp_op_table[op].n_in,
                 .in = in.t};
    for (int i = 0; i < c.n_attr; i++) c.attr[i] = attr[i];
    return sp__pointwise_compute(&c);
}

static void what_ops_compute_in(void)
{
    CHECK(result(SP_OP_LT, IN(F(2), T(SP_INT64, 2)), NULL).dtype == SP_BOOL);
    CHECK(computes_in(SP_OP_LT, IN(F(2), T(SP_INT64, 2)), NULL) == SP_FLOAT32);
    CHECK(computes_in(SP_OP_LT, IN(F(2), NUMBER(SP_FLOAT64)), NULL) == SP_FLOAT32);
    CHECK(computes_in(SP_OP_LT_SCALAR, IN(T(SP_INT64, 2)), ATTRS(sp__attr_scalar(SP_FLOAT(1.5)))) ==
          SP_FLOAT32);
    CHECK(computes_in(SP_OP_DIV, IN(T(SP_INT64, 2), T(SP_INT64, 2)), NULL) == SP_FLOAT32);
    CHECK(computes_in(SP_OP_WHERE, IN(T(SP_BOOL, 2), F(2), T(SP_INT64, 2)), NULL) == SP_FLOAT32);
    CHECK(computes_in(SP_OP_CAST, IN(T(SP_INT64, 2)), ATTRS(sp__attr_dtype(SP_BOOL))) == SP_INT64);
    CHECK(computes_in(SP_OP_FILL_SCALAR, IN(T(SP_INT64, 2)),
                      ATTRS(sp__attr_scalar(SP_FLOAT(2.5)))) == SP_INT64);
}

static void pointwise_mistakes(void)
{
    sp_meta m;
    sp_tensor *truth = T(SP_BOOL, 2), *ints = T(SP_INT64, 2);
    FAILS(infer(SP_OP_SUB, IN(ints, truth), NULL, &m), SP_EDTYPE,
          "sub: y is bool, expected numbers");
    FAILS(infer(SP_OP_NEG, IN(truth), NULL, &m), SP_EDTYPE, "neg: x is bool");
    FAILS(infer(SP_OP_WHERE, IN(ints, ints, ints), NULL, &m), SP_EDTYPE,
          "where: cond is int64, expected bool");
    FAILS(infer(SP_OP_ADD_ALPHA, IN(ints, ints), ATTRS(sp__attr_scalar(SP_FLOAT(0.5))), &m),
          SP_EDTYPE, "add.alpha: alpha is 0.5 and the result is int64");
    FAILS(infer(SP_OP_POW_SCALAR, IN(ints), ATTRS(sp__attr_scalar(SP_INT(-1))), &m), SP_EVALUE,
          "power of -1");
    FAILS(infer(SP_OP_COPY, IN(F(3), F(2, 3)), NULL, &m), SP_ESHAPE,
          "copy: src of shape (2, 3) does not broadcast to x of shape (3,)");
    CHECK(shaped(result(SP_OP_COPY, IN(T(SP_INT64, 2, 3), F(1, 3)), NULL), "(2, 3)"));
    drop_room();
}

/* ---- reductions ----- */

static sp_meta summed(sp_tensor *x, sp_attr dim, bool keepdim)
{
    return result(SP_OP_SUM, IN(x), ATTRS(dim, sp__attr_bool(keepdim), NONE(DTYPE)));
}

static void reductions_drop_dimensions(void)
{
    sp_tensor *x = F(2, 3, 4);
    CHECK(shaped(summed(x, NONE(INTS), false), "()"));
    CHECK(shaped(summed(x, NONE(INTS), true), "(1, 1, 1)"));
    CHECK(shaped(summed(x, NO_INTS, false), "()"));
    CHECK(shaped(summed(x, INTS(1), false), "(2, 4)"));
    CHECK(shaped(summed(x, INTS(-1, 0), true), "(1, 3, 1)"));
    CHECK(shaped(summed(F(0, 3), INTS(0), false), "(3,)"));
    CHECK(shaped(summed(NUMBER(SP_FLOAT32), INTS(-1), false), "()"));
    CHECK(summed(T(SP_BOOL, 3), NONE(INTS), false).dtype == SP_INT64);
    sp_meta m = result(SP_OP_SUM, IN(x),
                       ATTRS(NONE(INTS), sp__attr_bool(false), sp__attr_dtype(SP_FLOAT64)));
    CHECK(m.dtype == SP_FLOAT64);
    m = result(SP_OP_ARGMAX, IN(x), ATTRS(sp__attr_int(-2), sp__attr_bool(false)));
    CHECK(shaped(m, "(2, 4)") && m.dtype == SP_INT64);
    CHECK(shaped(result(SP_OP_ARGMAX, IN(x), ATTRS(NONE(INT), sp__attr_bool(true))), "(1, 1, 1)"));
    CHECK(shaped(result(SP_OP_AMAX, IN(F(2, 0)), ATTRS(INTS(0), sp__attr_bool(false))), "(0,)"));
    drop_room();
}

static void reduction_mistakes(void)
{
    sp_meta m;
    sp_tensor *x = F(2, 3);
    sp_attr keep = sp__attr_bool(false);
    FAILS(infer(SP_OP_SUM, IN(x), ATTRS(INTS(0, -2), keep, NONE(DTYPE)), &m), SP_EVALUE,
          "sum: dimension 0 is named twice");
    FAILS(infer(SP_OP_SUM, IN(x), ATTRS(INTS(2), keep, NONE(DTYPE)), &m), SP_EINDEX,
          "sum: dim 2 is out of range");
    FAILS(infer(SP_OP_AMAX, IN(F(0, 3)), ATTRS(INTS(0), keep), &m), SP_EVALUE,
          "amax: dimension 0 of x of shape (0, 3) is empty");
    FAILS(infer(SP_OP_ARGMAX, IN(T(SP_BOOL, 3)), ATTRS(NONE(INT), keep), &m), SP_EDTYPE,
          "argmax: x is bool");
    drop_room();
}

/* ---- products ----- */

static void matmul_shapes(void)
{
    static const struct {
        int64_t x[5], y[5];
        const char *out;
    } cases[] = {
        {{4, -1}, {4, -1}, "()"},
        {{3, 4, -1}, {4, 5, -1}, "(3, 5)"},
        {{4, -1}, {4, 5, -1}, "(5,)"},
        {{3, 4, -1}, {4, -1}, "(3,)"},
        {{2, 3, 4, -1}, {4, -1}, "(2, 3)"},
        {{4, -1}, {2, 4, 5, -1}, "(2, 5)"},
        {{2, 1, 3, 4, -1}, {6, 4, 5, -1}, "(2, 6, 3, 5)"},
        {{3, 4, -1}, {2, 4, 5, -1}, "(2, 3, 5)"},
        {{3, 0, -1}, {0, 5, -1}, "(3, 5)"},
        {{0, 3, 4, -1}, {1, 4, 5, -1}, "(0, 3, 5)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sp_meta m = result(SP_OP_MATMUL,
                           IN(dense(SP_FLOAT32, cases[i].x), dense(SP_FLOAT32, cases[i].y)), NULL);
        CHECK(shaped(m, cases[i].out) && fresh(m));
    }
    drop_room();
}

static void product_mistakes(void)
{
    sp_meta m;
    FAILS(infer(SP_OP_MATMUL, IN(F(3, 4), F(5, 6)), NULL, &m), SP_ESHAPE,
          "matmul: (3, 4) @ (5, 6): inner sizes 4 and 5 differ");
    FAILS(infer(SP_OP_MATMUL, IN(F(2, 3, 4), F(3, 4, 5)), NULL, &m), SP_ESHAPE,
          "batch sizes 2 and 3 do not broadcast");
    FAILS(infer(SP_OP_MATMUL, IN(NUMBER(SP_FLOAT32), F(3)), NULL, &m), SP_ESHAPE,
          "at least one dimension");
    FAILS(infer(SP_OP_MATMUL, IN(F(3, 4), T(SP_FLOAT64, 4, 2)), NULL, &m), SP_EDTYPE,
          "x is float32 and y is float64");
    CHECK(shaped(result(SP_OP_LINEAR, IN(F(2, 3, 4), F(5, 4), F(5)), NULL), "(2, 3, 5)"));
    CHECK(shaped(result(SP_OP_LINEAR, IN(F(4), F(5, 4), NULL), NULL), "(5,)"));
    FAILS(infer(SP_OP_LINEAR, IN(F(3, 4), F(5, 6), NULL), NULL, &m), SP_ESHAPE,
          "expected (..., k) and (n, k)");
    FAILS(infer(SP_OP_LINEAR, IN(F(3, 4), F(5, 4), F(4)), NULL, &m), SP_ESHAPE,
          "expected b of shape (5,)");
    drop_room();
}

/* ---- views ----- */

/* x as a view of another geometry on its own storage. */
static sp_tensor *as_view(sp_tensor *x, sp_meta m)
{
    sp_tensor *t = NULL;
    OK(sp__handle_new(&m, x->storage, &t));
    return keep(t);
}

static sp_tensor *turned(sp_tensor *x)
{
    return as_view(x, result(SP_OP_TRANSPOSE, IN(x), ATTRS(sp__attr_int(0), sp__attr_int(1))));
}

static void shapes_follow(void)
{
    sp_meta m;
    sp_tensor *x = F(3, 4), *t = turned(x);
    CHECK(shaped(result(SP_OP_VIEW, IN(x), ATTRS(INTS(2, -1))), "(2, 6)"));
    CHECK(strided(result(SP_OP_RESHAPE, IN(x), ATTRS(INTS(12))), "(1,)", 0));
    CHECK(fresh(result(SP_OP_RESHAPE, IN(t), ATTRS(INTS(-1)))));
    CHECK(strided(result(SP_OP_VIEW, IN(t), ATTRS(INTS(2, 2, 3))), "(2, 1, 4)", 0));
    CHECK(shaped(result(SP_OP_RESHAPE, IN(F(0, 4)), ATTRS(INTS(-1, 4))), "(0, 4)"));
    FAILS(infer(SP_OP_VIEW, IN(t), ATTRS(INTS(12)), &m), SP_EVALUE,
          "x of shape (4, 3) and strides (1, 4) has no view");
    FAILS(infer(SP_OP_VIEW, IN(x), ATTRS(INTS(5, -1)), &m), SP_ESHAPE,
          "view: shape (5, -1) does not fit the 12 elements");
    FAILS(infer(SP_OP_RESHAPE, IN(x), ATTRS(INTS(-1, -1)), &m), SP_ESHAPE, "does not fit");
    FAILS(infer(SP_OP_RESHAPE, IN(F(0, 4)), ATTRS(INTS(-1, 0)), &m), SP_ESHAPE, "does not fit");
    FAILS(infer(SP_OP_RESHAPE, IN(x), ATTRS(INTS(INT64_MAX, INT64_MAX)), &m), SP_ESHAPE,
          "does not fit");
    drop_room();
}

static void dimensions_move(void)
{
    sp_meta m;
    sp_tensor *x = F(2, 3, 4), *ones = F(3, 1, 4, 1);
    CHECK(strided(result(SP_OP_TRANSPOSE, IN(x), ATTRS(sp__attr_int(-1), sp__attr_int(0))),
                  "(1, 4, 12)", 0));
    CHECK(strided(result(SP_OP_PERMUTE, IN(x), ATTRS(INTS(2, 0, -2))), "(1, 12, 4)", 0));
    CHECK(shaped(result(SP_OP_UNSQUEEZE, IN(x), ATTRS(sp__attr_int(-1))), "(2, 3, 4, 1)"));
    CHECK(shaped(result(SP_OP_UNSQUEEZE, IN(x), ATTRS(sp__attr_int(0))), "(1, 2, 3, 4)"));
    CHECK(shaped(result(SP_OP_SQUEEZE, IN(ones), ATTRS(NONE(INTS))), "(3, 4)"));
    CHECK(shaped(result(SP_OP_SQUEEZE, IN(ones), ATTRS(INTS(-1, 0))), "(3, 1, 4)"));
    FAILS(infer(SP_OP_PERMUTE, IN(x), ATTRS(INTS(0, 1, 1)), &m), SP_EVALUE,
          "permute: dimension 1 is named twice");
    FAILS(infer(SP_OP_PERMUTE, IN(x), ATTRS(INTS(0, 1)), &m), SP_ESHAPE,
          "permute: 2 dims for x of shape (2, 3, 4), expected 3");
    FAILS(infer(SP_OP_UNSQUEEZE, IN(x), ATTRS(sp__attr_int(4)), &m), SP_EINDEX,
          "unsqueeze: dim 4 is out of range");
    drop_room();
}

static void expanding(void)
{
    sp_meta m = result(SP_OP_EXPAND, IN(F(3, 1)), ATTRS(INTS(2, -1, 4)));
    CHECK(shaped(m, "(2, 3, 4)") && strided(m, "(0, 1, 0)", 0));
    CHECK(shaped(result(SP_OP_EXPAND, IN(F(1)), ATTRS(INTS(0))), "(0,)"));
    FAILS(infer(SP_OP_EXPAND, IN(F(3)), ATTRS(INTS(4)), &m), SP_ESHAPE,
          "expand: x of shape (3,) does not expand to (4,)");
    FAILS(infer(SP_OP_EXPAND, IN(F(3)), ATTRS(INTS(-1, 3)), &m), SP_ESHAPE, "does not expand");
    FAILS(infer(SP_OP_EXPAND, IN(F(3, 1)), ATTRS(INTS(3)), &m), SP_ESHAPE, "does not expand");
    FAILS(infer(SP_OP_EXPAND, IN(F(1, 1)), ATTRS(INTS(INT64_MAX, 3)), &m), SP_EMEMORY,
          "more elements");
    drop_room();
}

static sp_meta sliced(sp_tensor *x, int64_t dim, int64_t start, int64_t end, int64_t step)
{
    return result(
        SP_OP_SLICE, IN(x),
        ATTRS(sp__attr_int(dim), sp__attr_int(start), sp__attr_int(end), sp__attr_int(step)));
}

static void slices_and_elements(void)
{
    sp_meta m;
    sp_tensor *x = F(5, 4);
    m = sliced(x, 0, 1, 4, 2);
    CHECK(shaped(m, "(2, 4)") && strided(m, "(8, 1)", 4) && !m.contiguous);
    m = sliced(x, 0, 1, 3, 1);
    CHECK(strided(m, "(4, 1)", 4) && m.contiguous);
    CHECK(shaped(sliced(x, 1, -3, -1, 1), "(5, 2)"));
    CHECK(shaped(sliced(x, 0, INT64_MIN, INT64_MAX, 1), "(5, 4)"));
    CHECK(shaped(sliced(x, 0, 4, 2, 1), "(0, 4)"));
    CHECK(shaped(sliced(x, 0, 0, 5, INT64_MAX), "(1, 4)"));
    m = result(SP_OP_SELECT, IN(x), ATTRS(sp__attr_int(1), sp__attr_int(-1)));
    CHECK(shaped(m, "(5,)") && strided(m, "(4,)", 3));
    FAILS(infer(SP_OP_SELECT, IN(x), ATTRS(sp__attr_int(0), sp__attr_int(5)), &m), SP_EINDEX,
          "select: index 5 is out of range for dimension 0 of size 5");
    FAILS(infer(SP_OP_SELECT, IN(NUMBER(SP_FLOAT32)), ATTRS(sp__attr_int(0), sp__attr_int(0)), &m),
          SP_EINDEX, "x has no dimensions");
    sp_attr zero = sp__attr_int(0);
    FAILS(infer(SP_OP_SLICE, IN(x), ATTRS(zero, zero, zero, zero), &m), SP_EVALUE,
          "slice: step is 0");
    drop_room();
}

static void replacing_parts(void)
{
    sp_meta m;
    sp_tensor *x = F(5, 4);
    sp_attr slice[] = {sp__attr_int(0), sp__attr_int(1), sp__attr_int(3), sp__attr_int(1)};
    m = result(SP_OP_SLICE_SCATTER, IN(x, F(2, 4)), slice);
    CHECK(shaped(m, "(5, 4)") && fresh(m));
    FAILS(infer(SP_OP_SLICE_SCATTER, IN(x, F(3, 4)), slice, &m), SP_ESHAPE,
          "slice_scatter: src has shape (3, 4), expected that of the part it replaces, (2, 4)");
    FAILS(infer(SP_OP_SLICE_SCATTER, IN(x, T(SP_INT64, 2, 4)), slice, &m), SP_EDTYPE,
          "src is int64");
    CHECK(
        shaped(result(SP_OP_SELECT_SCATTER, IN(x, F(5)), ATTRS(sp__attr_int(-1), sp__attr_int(2))),
               "(5, 4)"));
    drop_room();
}

static void strides_by_hand(void)
{
    sp_meta m;
    sp_tensor *x = F(3, 4);
    sp_attr two = INTS(2, 2), step = INTS(4, 1), twice = INTS(1, 0), none = NONE(INT);
    CHECK(strided(result(SP_OP_AS_STRIDED, IN(x), ATTRS(two, step, sp__attr_int(3))), "(4, 1)", 3));
    sp_tensor *late = as_view(x, sliced(x, 0, 1, 3, 1));
    CHECK(strided(result(SP_OP_AS_STRIDED, IN(late), ATTRS(two, step, none)), "(4, 1)", 4));
    CHECK(strided(result(SP_OP_AS_STRIDED, IN(late), ATTRS(two, step, sp__attr_int(0))), "(4, 1)",
                  0));
    FAILS(infer(SP_OP_AS_STRIDED, IN(x), ATTRS(two, step, sp__attr_int(7)), &m), SP_EINDEX,
          "elements 7 to 12 are asked for, the storage has 12");
    FAILS(infer(SP_OP_AS_STRIDED, IN(x), ATTRS(two, INTS(INT64_MAX, 1), none), &m), SP_EMEMORY,
          "beyond any memory");
    FAILS(infer(SP_OP_AS_STRIDED, IN(x), ATTRS(two, INTS(-1, 1), none), &m), SP_EVALUE,
          "stride -1 is negative");
    FAILS(infer(SP_OP_AS_STRIDED, IN(x), ATTRS(two, INTS(1), none), &m), SP_ESHAPE,
          "2 sizes and 1 strides");
    CHECK(fresh(result(SP_OP_AS_STRIDED_SCATTER, IN(x, F(2, 2)), ATTRS(two, step, none))));
    FAILS(infer(SP_OP_AS_STRIDED_SCATTER, IN(x, F(2, 2)), ATTRS(two, twice, none), &m), SP_EVALUE,
          "name an element twice");
    FAILS(infer(SP_OP_AS_STRIDED_SCATTER, IN(turned(x), F(2, 2)), ATTRS(two, step, none), &m),
          SP_EVALUE, "contiguous()");
    FAILS(infer(SP_OP_AS_STRIDED_SCATTER, IN(late, F(2, 2)), ATTRS(two, step, sp__attr_int(3)), &m),
          SP_EINDEX, "x has 8");
    drop_room();
}

/* ---- indexing, losses, creation ----- */

static void indexing(void)
{
    sp_meta m;
    sp_tensor *x = F(3, 4), *list = T(SP_INT64, 5), *per_element = T(SP_INT64, 2, 6);
    sp_attr dim0 = sp__attr_int(0), dim1 = sp__attr_int(-1);
    CHECK(shaped(result(SP_OP_GATHER, IN(x, per_element), ATTRS(dim1)), "(2, 6)"));
    CHECK(shaped(result(SP_OP_SCATTER_ADD, IN(x, per_element, F(2, 6)), ATTRS(dim1)), "(3, 4)"));
    CHECK(shaped(result(SP_OP_INDEX_SELECT, IN(x, list), ATTRS(dim1)), "(3, 5)"));
    CHECK(shaped(result(SP_OP_INDEX_ADD, IN(x, list, F(5, 4)), ATTRS(dim0)), "(3, 4)"));
    FAILS(infer(SP_OP_GATHER, IN(x, per_element), ATTRS(dim0), &m), SP_ESHAPE,
          "index has shape (2, 6) and x (3, 4)");
    FAILS(infer(SP_OP_GATHER, IN(x, F(2, 2)), ATTRS(dim0), &m), SP_EDTYPE,
          "gather: index is float32, expected int64");
    FAILS(infer(SP_OP_SCATTER_ADD, IN(x, per_element, F(2, 5)), ATTRS(dim1), &m), SP_ESHAPE,
          "expected one shape");
    FAILS(infer(SP_OP_INDEX_SELECT, IN(x, per_element), ATTRS(dim0), &m), SP_ESHAPE,
          "expected one dimension");
    FAILS(infer(SP_OP_INDEX_ADD, IN(x, list, F(4, 4)), ATTRS(dim0), &m), SP_ESHAPE,
          "with 5 in dimension 0");
    drop_room();
}

static void losses(void)
{
    sp_meta m;
    sp_attr none = sp__attr_int(SP_REDUCTION_NONE), mean = sp__attr_int(SP_REDUCTION_MEAN),
            ignored = sp__attr_int(-100);
    CHECK(shaped(result(SP_OP_NLL_LOSS, IN(F(3, 4), T(SP_INT64, 3)), ATTRS(mean, ignored)), "()"));
    CHECK(shaped(result(SP_OP_NLL_LOSS, IN(F(2, 4, 3), T(SP_INT64, 2, 3)), ATTRS(none, ignored)),
                 "(2, 3)"));
    CHECK(shaped(result(SP_OP_NLL_LOSS, IN(F(4), NUMBER(SP_INT64)), ATTRS(none, ignored)), "()"));
    FAILS(infer(SP_OP_NLL_LOSS, IN(F(3, 4), T(SP_INT64, 4)), ATTRS(mean, ignored), &m), SP_ESHAPE,
          "target of shape (4,)");
    FAILS(infer(SP_OP_NLL_LOSS, IN(F(3, 4), F(3)), ATTRS(mean, ignored), &m), SP_EDTYPE,
          "target is float32, expected int64");
    FAILS(infer(SP_OP_LOG_SOFTMAX, IN(T(SP_INT64, 3)), ATTRS(sp__attr_int(0)), &m), SP_EDTYPE,
          "x is int64");
    drop_room();
}

static sp_status range(sp_scalar start, sp_scalar end, sp_scalar step, sp_meta *m)
{
    return infer(
        SP_OP_ARANGE, IN(NULL),
        ATTRS(sp__attr_scalar(start), sp__attr_scalar(end), sp__attr_scalar(step), NONE(DTYPE)), m);
}

static void creation(void)
{
    sp_meta m;
    OK(range(SP_INT(5), SP_INT(0), SP_INT(-2), &m));
    CHECK(shaped(m, "(3,)") && m.dtype == SP_INT64);
    OK(range(SP_INT(1), SP_FLOAT(2), SP_FLOAT(0.25), &m));
    CHECK(shaped(m, "(4,)") && m.dtype == SP_FLOAT32);
    OK(range(SP_INT(3), SP_INT(3), SP_INT(1), &m));
    CHECK(shaped(m, "(0,)"));
    FAILS(range(SP_INT(0), SP_INT(5), SP_INT(0), &m), SP_EVALUE, "arange: step is 0");
    FAILS(range(SP_INT(0), SP_INT(5), SP_INT(-1), &m), SP_EVALUE, "leads away from the end");
    FAILS(range(SP_INT(INT64_MIN), SP_INT(INT64_MAX), SP_INT(1), &m), SP_EMEMORY, "too large");
    FAILS(range(SP_FLOAT(0), SP_FLOAT(1e300), SP_INT(1), &m), SP_EMEMORY, "too large");
    m = result(SP_OP_FULL, IN(NULL), ATTRS(INTS(2, 3), sp__attr_scalar(SP_FLOAT(1)), NONE(DTYPE)));
    CHECK(shaped(m, "(2, 3)") && m.dtype == SP_FLOAT32);
    FAILS(infer(SP_OP_FULL, IN(NULL), ATTRS(INTS(2, -3), sp__attr_scalar(SP_INT(1)), NONE(DTYPE)),
                &m),
          SP_ESHAPE, "full: shape (2, -3) has a negative size");
}

/* ---- random numbers, attributes ----- */

/* Known answers of the reference implementation, Random123's kat_vectors: counter and key all
 * zeros, all ones. */
static void philox_known_answers(void)
{
    uint32_t w[4];
    sp__philox(0, 0, w);
    CHECK(w[0] == 0x6627e8d5 && w[1] == 0xe169c58d && w[2] == 0xbc57ac4c && w[3] == 0x9b00dbd8);
}

static void issuing_advances(void)
{
    sp_call c = {.op = SP_OP_RAND, .n_out = 1, .n_attr = 4};
    sp_call again = c;
    c.attr[0] = again.attr[0] = INTS(5);
    c.attr[1] = again.attr[1] = NONE(DTYPE);
    c.attr[2] = c.attr[3] = again.attr[2] = again.attr[3] = NONE(INT);
    sp_manual_seed(7);
    sp__random_issue(&c);
    sp__random_issue(&again);
    CHECK(c.attr[2].v.i == 7 && c.attr[3].v.i == 0 &&
          again.attr[3].v.i == 2); /* 5 numbers are 2 blocks */
    sp__random_issue(&c);
    CHECK(c.attr[3].v.i == 0); /* a call issued before keeps what it has */
    CHECK(sp__random_blocks(5, SP_FLOAT64) == 3 && sp__random_blocks(0, SP_FLOAT32) == 0);
}

static void a_stream_goes_on_from_its_state(void)
{
    uint64_t seed, offset, again, at;
    sp_manual_seed(11);
    sp__random_take(3, &again, &at);
    sp_random_state(&seed, &offset);
    CHECK(seed == 11 && offset == 3);
    sp__random_take(5, &again, &at);
    sp_random_state_set(seed, offset);
    sp__random_take(1, &again, &at);
    CHECK(again == 11 && at == 3);
}

static void attributes_copy_and_compare(void)
{
    int64_t sizes[] = {2, 3};
    sp_attr from[] = {sp__attr_ints(sizes, 2), sp__attr_scalar(SP_FLOAT(0.5)), NONE(INTS), NO_INTS},
            to[4], other[4];
    OK(sp__attrs_copy(from, 4, to));
    CHECK(to[0].v.ints != sizes && sp__attrs_equal(from, to, 4, false));
    sizes[1] = 4;
    CHECK(!sp__attrs_equal(from, to, 4, false));
    sp__attrs_free(to, 4);
    memcpy(other, from, sizeof from);
    other[1] = sp__attr_scalar(SP_FLOAT(0.25));
    CHECK(!sp__attrs_equal(from, other, 4, false) && sp__attrs_equal(from, other, 4, true));
    other[1] = sp__attr_scalar(SP_INT(1));
    CHECK(!sp__attrs_equal(from, other, 4, true));
    CHECK(!sp__attrs_equal(&from[2], &from[3], 1, false)); /* absent is not empty */
}

SUITE("ops/infer", TEST(pointwise_broadcasts), TEST(tensors_promote), TEST(numbers_are_weak),
      TEST(integers_become_floating), TEST(what_ops_compute_in), TEST(pointwise_mistakes),
      TEST(reductions_drop_dimensions), TEST(reduction_mistakes), TEST(matmul_shapes),
      TEST(product_mistakes), TEST(shapes_follow), TEST(dimensions_move), TEST(expanding),
      TEST(slices_and_elements), TEST(replacing_parts), TEST(strides_by_hand), TEST(indexing),
      TEST(losses), TEST(creation), TEST(philox_known_answers), TEST(issuing_advances),
      TEST(a_stream_goes_on_from_its_state), TEST(attributes_copy_and_compare))
