/* Pointwise ops: values against plain loops; bits that depend on neither layout, position, size,
 * threads nor fusion.
 */
#include "tests/backends/support.h"

#include "backends/cpu/tile.h"

typedef struct op_case {
    int op, n_in;
    sp_ref_fn ref;
    double low, high, tolerance;
    bool to_bool, exact; /* exact: the same bits on every instruction set */
} op_case;

#define REF(name, expr)                                                                            \
    static double ref_##name(double x, double y, double z)                                         \
    {                                                                                              \
        (void)x, (void)y, (void)z;                                                                 \
        return expr;                                                                               \
    }
REF(add, x + y)
REF(sub, x - y)
REF(mul, x *y)
REF(div, x / y)
REF(maximum, isnan(x) || x > y ? x : y)
REF(neg, -x)
REF(relu, x < 0 ? 0 : x)
REF(sqrt, sqrt(x))
REF(exp, exp(x))
REF(log, log(x))
REF(tanh, tanh(x))
REF(eq, x == y)
REF(lt, x < y)
REF(ge, x >= y)

static const op_case cases[] = {
    {SP_OP_ADD, 2, ref_add, -3, 3, 1e-7, false, true},
    {SP_OP_SUB, 2, ref_sub, -3, 3, 1e-7, false, true},
    {SP_OP_MUL, 2, ref_mul, -3, 3, 1e-7, false, true},
    {SP_OP_DIV, 2, ref_div, 0.5, 3, 1e-7, false, true},
    {SP_OP_MAXIMUM, 2, ref_maximum, -3, 3, 0, false, true},
    {SP_OP_NEG, 1, ref_neg, -3, 3, 0, false, true},
    {SP_OP_RELU, 1, ref_relu, -3, 3, 0, false, true},
    {SP_OP_SQRT, 1, ref_sqrt, 0, 9, 1e-7, false, true},
    {SP_OP_EXP, 1, ref_exp, -20, 20, 3e-7, false, false},
    {SP_OP_LOG, 1, ref_log, 1e-6, 50, 3e-7, false, false},
    {SP_OP_TANH, 1, ref_tanh, -9, 9, 3e-7, false, false},
    {SP_OP_EQ, 2, ref_eq, 0, 3, 0, true, true},
    {SP_OP_LT, 2, ref_lt, -3, 3, 0, true, true},
    {SP_OP_GE, 2, ref_ge, -3, 3, 0, true, true},
};
enum { N_CASES = sizeof cases / sizeof *cases };

static sp_attr alpha = {.v.i = 1, .kind = SP_ATTR_SCALAR, .tag = SP_INT64};

static void run(const op_case *c, int dtype, const block *b)
{
    sp_kargs k = arguments(c->op, 1, 1 + c->n_in, b, &alpha, 1);
    k.arg = k.room, k.compute = (uint8_t)dtype;
    sp__kargs_coalesce(&k);
    OK(sp__cpu_pointwise(&k));
}

static void random_shape(int *rank, int64_t *shape)
{
    *rank = (int)random_int(0, 3);
    int64_t limit = *rank <= 1 ? 300 : *rank == 2 ? 60 : 12;
    for (int d = 0; d < *rank; d++) shape[d] = random_int(1, limit);
}

static void values_in_every_layout(void)
{
    for (int i = 0; i < 600; i++) {
        const op_case *c = &cases[i % N_CASES];
        int dtype = i % 2 ? SP_FLOAT32 : SP_FLOAT64, rank;
        int64_t shape[3];
        random_shape(&rank, shape);
        block b[3] = {
            make(c->to_bool ? SP_BOOL : dtype, rank, shape, (layout)random_int(0, STEPPED))};
        for (int k = 1; k <= c->n_in; k++) {
            b[k] =
                make_filled(dtype, rank, shape, (layout)random_int(0, EXPANDED), c->low, c->high);
        }
        run(c, dtype, b);
        for (int64_t at = 0; at < b[0].x.numel; at++) {
            double x = sp__ref_get(&b[1].x, at), y = c->n_in > 1 ? sp__ref_get(&b[2].x, at) : 0;
            CHECK(near(sp__ref_get(&b[0].x, at), c->ref(x, y, 0), c->tolerance));
        }
        for (int k = 0; k <= c->n_in; k++) drop(&b[k]);
    }
}

/* The same values dense, in one call of n, must give the bits that any layout gives, and each
 * element alone. */
static void bits_do_not_depend_on_layout(void)
{
    for (int i = 0; i < 400; i++) {
        const op_case *c = &cases[i % N_CASES];
        int dtype = i / N_CASES % 2 ? SP_FLOAT32 : SP_FLOAT64, rank,
            out_dtype = c->to_bool ? SP_BOOL : dtype;
        int64_t shape[3];
        random_shape(&rank, shape);
        block dense[3] = {make(out_dtype, rank, shape, DENSE)}, odd[3];
        odd[0] = make(out_dtype, rank, shape, (layout)random_int(MISALIGNED, STEPPED));
        for (int k = 1; k <= c->n_in; k++) {
            dense[k] = make_filled(dtype, rank, shape, DENSE, c->low, c->high);
            odd[k] = make(dtype, rank, shape, (layout)random_int(MISALIGNED, STEPPED));
            for (int64_t at = 0; at < dense[k].x.numel; at++) {
                memcpy(sp__element_at(&odd[k].x, at), sp__element_at(&dense[k].x, at),
                       (size_t)sp__size_of(dtype));
            }
        }
        run(c, dtype, dense), run(c, dtype, odd);
        CHECK(same_bits(&dense[0].x, &odd[0].x));
        int64_t one = random_int(0, dense[0].x.numel - 1);
        block single[3] = {0};
        for (int k = 0; k <= c->n_in; k++) {
            single[k] = make(dense[k].x.dtype, 0, NULL, DENSE);
            memcpy(single[k].x.data, sp__element_at(&dense[k].x, one),
                   (size_t)sp__size_of(dense[k].x.dtype));
        }
        run(c, dtype, single);
        CHECK(memcmp(single[0].x.data, sp__element_at(&dense[0].x, one),
                     (size_t)sp__size_of(out_dtype)) == 0);
        for (int k = 0; k <= c->n_in; k++) drop(&dense[k]), drop(&odd[k]), drop(&single[k]);
    }
}

static void bits_do_not_depend_on_threads(void)
{
    int64_t shape[1] = {300001};
    for (int i = 0; i < N_CASES; i++) {
        const op_case *c = &cases[i];
        block b[3], other = make(c->to_bool ? SP_BOOL : SP_FLOAT32, 1, shape, DENSE);
        b[0] = make(c->to_bool ? SP_BOOL : SP_FLOAT32, 1, shape, DENSE);
        for (int k = 1; k < 3; k++)
            b[k] = make_filled(SP_FLOAT32, 1, shape, MISALIGNED, c->low, c->high);
        OK(sp_set_num_threads(1));
        run(c, SP_FLOAT32, b);
        OK(sp_set_num_threads(2));
        block first = b[0];
        b[0] = other;
        run(c, SP_FLOAT32, b);
        CHECK(same_bits(&first.x, &other.x));
        drop(&first), drop(&other), drop(&b[1]), drop(&b[2]);
    }
}

static void instruction_sets_agree(void)
{
    const sp_isa *before = sp__isa;
    for (int i = 0; i < N_CASES; i++) {
        const op_case *c = &cases[i];
        if (!c->exact) continue;
        for (int64_t n = 1; n < 300; n = n * 3 / 2 + 1) {
            block b[3], first = {0};
            for (int k = 1; k < 3; k++)
                b[k] = make_filled(SP_FLOAT32, 1, &n, DENSE, c->low, c->high);
            FOR_EACH_ISA(name)
            {
                b[0] = make(c->to_bool ? SP_BOOL : SP_FLOAT32, 1, &n, DENSE);
                run(c, SP_FLOAT32, b);
                if (first.memory == NULL)
                    first = b[0];
                else {
                    CHECK(same_bits(&first.x, &b[0].x));
                    drop(&b[0]);
                }
            }
            drop(&first), drop(&b[1]), drop(&b[2]);
        }
    }
    sp__isa = before;
}

/* ---- complex numbers ----- */

typedef struct complex_case {
    int op, n_in;
    bool to_bool, to_real;
} complex_case;

static const complex_case complex_cases[] = {
    {SP_OP_ADD, 2, false, false},     {SP_OP_SUB, 2, false, false},
    {SP_OP_MUL, 2, false, false},     {SP_OP_DIV, 2, false, false},
    {SP_OP_NEG, 1, false, false},     {SP_OP_CONJ_PHYSICAL, 1, false, false},
    {SP_OP_SQUARE, 1, false, false},  {SP_OP_RECIPROCAL, 1, false, false},
    {SP_OP_SGN, 1, false, false},     {SP_OP_LERP, 3, false, false},
    {SP_OP_ADDCMUL, 3, false, false}, {SP_OP_ADDCDIV, 3, false, false},
    {SP_OP_ABS, 1, false, true},      {SP_OP_EQ, 2, true, false},
    {SP_OP_ISFINITE, 1, true, false}, {SP_OP_ADD_ALPHA, 2, false, false},
    {SP_OP_COMPLEX, 2, false, false},
};

static block random_numbers(int dtype, int64_t n, layout how)
{
    block b = make(dtype, 1, &n, how);
    for (int64_t i = 0; i < n; i++) {
        double part[2] = {random_int(-9, 9) / 4.0, random_int(0, 9) ? random_unit() : INFINITY};
        char *at = sp__element_at(&b.x, i);
        if (dtype == SP_COMPLEX64 || dtype == SP_COMPLEX128)
            sp__complex_to(part, dtype, at);
        else
            sp__ref_set(&b.x, i, part[0]);
    }
    return b;
}

static void run_complex(const complex_case *c, int dtype, block *out, const block *in)
{
    block b[4] = {*out};
    for (int k = 0; k < c->n_in; k++) b[1 + k] = in[k];
    op_case plain = {.op = c->op, .n_in = c->n_in};
    run(&plain, dtype, b);
}

/* Arithmetic on complex numbers has the same bits on every instruction set, for any number of
 * elements and steps between them. */
static void complex_numbers_have_one_result(void)
{
    const sp_isa *before = sp__isa;
    for (size_t i = 0; i < 2 * sizeof complex_cases / sizeof *complex_cases; i++) {
        const complex_case *c = &complex_cases[i / 2];
        int dtype = i % 2 ? SP_COMPLEX64 : SP_COMPLEX128, part = sp__dtypes[dtype].real;
        int in_dtype = c->op == SP_OP_COMPLEX ? part : dtype, out_dtype = c->to_bool   ? SP_BOOL
                                                                          : c->to_real ? part
                                                                                       : dtype;
        for (int64_t n = 1; n < 70; n = n * 4 / 3 + 1) {
            block in[3], first = {0};
            for (int k = 0; k < 3; k++) in[k] = random_numbers(in_dtype, n, (layout)(n % 2));
            FOR_EACH_ISA(name)
            {
                block out = make(out_dtype, 1, &n, DENSE), odd = make(out_dtype, 1, &n, STEPPED);
                run_complex(c, dtype, &out, in), run_complex(c, dtype, &odd, in);
                CHECK(same_bits(&out.x, &odd.x));
                if (first.memory == NULL) first = out, out.memory = NULL;
                CHECK(same_bits(&first.x, out.memory ? &out.x : &first.x));
                drop(&out), drop(&odd);
            }
            drop(&first);
            for (int k = 0; k < 3; k++) drop(&in[k]);
        }
    }
    sp__isa = before;
}

static void mixed_dtypes_are_converted_first(void)
{
    static const int dtypes[] = {SP_BOOL, SP_INT64, SP_FLOAT32, SP_FLOAT64};
    const op_case *add = &cases[0];
    for (int i = 0; i < 64; i++) {
        int64_t shape[2] = {random_int(1, 40), random_int(1, 40)};
        int out = dtypes[2 + i % 2], x = dtypes[i / 2 % 4], y = dtypes[i / 8 % 4];
        block b[3] = {make(out, 2, shape, DENSE), make_filled(x, 2, shape, (layout)(i % 4), -9, 9),
                      make_filled(y, 2, shape, (layout)(i / 16), -9, 9)};
        run(add, SP_FLOAT64, b);
        for (int64_t at = 0; at < b[0].x.numel; at++) {
            CHECK(near(sp__ref_get(&b[0].x, at),
                       sp__ref_get(&b[1].x, at) + sp__ref_get(&b[2].x, at), 1e-6));
        }
        for (int k = 0; k < 3; k++) drop(&b[k]);
    }
}

static double run_f32(int op, double x, double y)
{
    block b[3] = {make(SP_FLOAT32, 0, NULL, DENSE), make(SP_FLOAT32, 0, NULL, DENSE),
                  make(SP_FLOAT32, 0, NULL, DENSE)};
    op_case c = {.op = op, .n_in = op == SP_OP_MAXIMUM ? 2 : 1};
    sp__ref_set(&b[1].x, 0, x), sp__ref_set(&b[2].x, 0, y);
    run(&c, SP_FLOAT32, b);
    double result = sp__ref_get(&b[0].x, 0);
    for (int k = 0; k < 3; k++) drop(&b[k]);
    return result;
}

static void nan_propagates(void)
{
    CHECK(isnan(run_f32(SP_OP_MAXIMUM, NAN, 1)));
    CHECK(isnan(run_f32(SP_OP_MAXIMUM, 1, NAN)));
    CHECK(isnan(run_f32(SP_OP_RELU, NAN, 0)));
    CHECK(run_f32(SP_OP_MAXIMUM, -INFINITY, -5) == -5);
    CHECK(run_f32(SP_OP_EXP, -INFINITY, 0) == 0);
    CHECK(run_f32(SP_OP_LOG, 0, 0) == -INFINITY);
    CHECK(isnan(run_f32(SP_OP_LOG, -1, 0)));
}

static int64_t run_int(int op, int64_t x, int64_t y)
{
    int64_t shape[1] = {1};
    block b[3];
    for (int k = 0; k < 3; k++) b[k] = make(SP_INT64, 1, shape, DENSE);
    memcpy(b[1].x.data, &x, 8), memcpy(b[2].x.data, &y, 8);
    op_case c = {.op = op, .n_in = op == SP_OP_NEG || op == SP_OP_POW_SCALAR ? 1 : 2};
    sp_attr number = alpha;
    if (op == SP_OP_POW_SCALAR) number.v.i = y;
    sp_kargs k = arguments(op, 1, 1 + c.n_in, b, &number, 1);
    k.arg = k.room, k.compute = SP_INT64;
    sp__kargs_coalesce(&k);
    OK(sp__cpu_pointwise(&k));
    memcpy(&x, b[0].x.data, 8);
    for (int i = 0; i < 3; i++) drop(&b[i]);
    return x;
}

static void integers_wrap(void)
{
    CHECK(run_int(SP_OP_ADD, INT64_MAX, 1) == INT64_MIN);
    CHECK(run_int(SP_OP_SUB, INT64_MIN, 1) == INT64_MAX);
    CHECK(run_int(SP_OP_MUL, INT64_MAX, 2) == -2);
    CHECK(run_int(SP_OP_NEG, INT64_MIN, 0) == INT64_MIN);
    CHECK(run_int(SP_OP_POW_SCALAR, 3, 4) == 81);
    CHECK(run_int(SP_OP_POW_SCALAR, 2, 64) == 0);
    CHECK(run_int(SP_OP_POW_SCALAR, -1, -3) == -1);
    CHECK(run_int(SP_OP_POW_SCALAR, 5, -1) == 0);
}

/* relu(x * y + x) > 0.5 ? exp(x) : y, as one program, has the bits of one op after the other. */
static void fused_equals_eager(void)
{
    sp_tile_instr instr[] = {
        {SP_OP_MUL, SP_FLOAT32, SP_FLOAT32, {0, 1, -1}, {-1, -1}},
        {SP_OP_ADD, SP_FLOAT32, SP_FLOAT32, {2, 0, -1}, {0, -1}},
        {SP_OP_RELU, SP_FLOAT32, SP_FLOAT32, {3, -1, -1}, {-1, -1}},
        {SP_OP_GT_SCALAR, SP_FLOAT32, SP_BOOL, {4, -1, -1}, {1, -1}},
        {SP_OP_EXP, SP_FLOAT32, SP_FLOAT32, {0, -1, -1}, {-1, -1}},
        {SP_OP_WHERE, SP_FLOAT32, SP_FLOAT32, {5, 6, 1}, {-1, -1}},
    };
    uint8_t in_dtype[] = {SP_FLOAT32, SP_FLOAT32};
    int16_t outs[] = {7, 5};
    sp_scalar scalars[] = {SP_INT(1), SP_FLOAT(0.5)};
    sp_tile_prog *prog;
    OK(sp__tile_build(instr, 6, in_dtype, 2, outs, 2, &prog));
    for (int i = 0; i < 60; i++) {
        int64_t shape[2] = {random_int(1, 300), random_int(1, 300)};
        block b[4] = {make(SP_FLOAT32, 2, shape, (layout)(i % 3)),
                      make(SP_BOOL, 2, shape, (layout)(i / 3 % 3)),
                      make_filled(SP_FLOAT32, 2, shape, (layout)(i % 5), -2, 2),
                      make_filled(SP_FLOAT32, 2, shape, (layout)(i / 5 % 5), -2, 2)};
        sp_kargs k = arguments(SP_OP_ADD, 2, 4, b, NULL, 0);
        k.arg = k.room;
        OK(sp__tile_run(prog, &k, scalars));
        block t[5], x = b[2], y = b[3];
        for (int j = 0; j < 5; j++) t[j] = make(SP_FLOAT32, 2, shape, DENSE);
        run(&(op_case){.op = SP_OP_MUL, .n_in = 2}, SP_FLOAT32, (block[]){t[0], x, y});
        run(&(op_case){.op = SP_OP_ADD, .n_in = 2}, SP_FLOAT32, (block[]){t[1], t[0], x});
        run(&(op_case){.op = SP_OP_RELU, .n_in = 1}, SP_FLOAT32, (block[]){t[2], t[1]});
        run(&(op_case){.op = SP_OP_EXP, .n_in = 1}, SP_FLOAT32, (block[]){t[3], x});
        for (int64_t at = 0; at < x.x.numel; at++) {
            bool over = sp__ref_get(&t[2].x, at) > 0.5;
            CHECK(sp__ref_get(&b[1].x, at) == over);
            CHECK(memcmp(sp__element_at(&b[0].x, at), sp__element_at(over ? &t[3].x : &y.x, at),
                         4) == 0);
        }
        for (int j = 0; j < 5; j++) drop(&t[j]);
        for (int j = 0; j < 4; j++) drop(&b[j]);
    }
    sp__tile_drop(&prog);
}

/* x's own memory takes the result while x is still read by a later instruction. */
static void an_output_may_take_an_inputs_memory(void)
{
    sp_tile_instr instr[] = {{SP_OP_EXP, SP_FLOAT32, SP_FLOAT32, {0, -1, -1}, {-1, -1}},
                             {SP_OP_NEG, SP_FLOAT32, SP_FLOAT32, {0, -1, -1}, {-1, -1}}};
    uint8_t in_dtype[] = {SP_FLOAT32};
    int16_t outs[] = {1, 2};
    sp_tile_prog *prog;
    int64_t n = 5000;
    OK(sp__tile_build(instr, 2, in_dtype, 1, outs, 2, &prog));
    block x = make_filled(SP_FLOAT32, 1, &n, DENSE, -1, 1), y = make(SP_FLOAT32, 1, &n, DENSE);
    block before = make(SP_FLOAT32, 1, &n, DENSE);
    memcpy(before.x.data, x.x.data, (size_t)n * 4);
    sp_kargs k = arguments(SP_OP_ADD, 2, 3, (block[]){x, y, x}, NULL, 0);
    k.arg = k.room;
    OK(sp__tile_run(prog, &k, NULL));
    for (int64_t at = 0; at < n; at++) {
        CHECK(near(sp__ref_get(&x.x, at), exp(sp__ref_get(&before.x, at)), 3e-7));
        CHECK(sp__ref_get(&y.x, at) == -sp__ref_get(&before.x, at));
    }
    drop(&x), drop(&y), drop(&before);
    sp__tile_drop(&prog);
}

static void what_cannot_be_built_is_refused(void)
{
    sp_tile_prog *prog;
    uint8_t in_dtype[] = {SP_INT64};
    int16_t outs[] = {1};
    sp_tile_instr exp_of_int = {SP_OP_EXP, SP_INT64, SP_INT64, {0, -1, -1}, {-1, -1}};
    FAILS(sp__tile_build(&exp_of_int, 1, in_dtype, 1, outs, 1, &prog), SP_EUNSUPPORTED, "exp");
    CHECK(prog == NULL);
    CHECK(!sp__tile_can(SP_OP_MATMUL, SP_FLOAT32));
    CHECK(sp__tile_can(SP_OP_EXP, SP_FLOAT64));
}

int main(void)
{
    sp__cpu_register();
    static const test_case all[] = {
        TEST(values_in_every_layout),
        TEST(bits_do_not_depend_on_layout),
        TEST(bits_do_not_depend_on_threads),
        TEST(instruction_sets_agree),
        TEST(complex_numbers_have_one_result),
        TEST(mixed_dtypes_are_converted_first),
        TEST(nan_propagates),
        TEST(integers_wrap),
        TEST(fused_equals_eager),
        TEST(an_output_may_take_an_inputs_memory),
        TEST(what_cannot_be_built_is_refused),
    };
    return run_suite("backends/pointwise", all, sizeof all / sizeof *all);
}
