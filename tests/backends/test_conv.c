/* Convolutions and their transposes against sums written out, on random geometries.
 */
#include "tests/backends/support.h"

typedef struct problem {
    int64_t x[4], w[4], y[4], stride[2], padding[2], dilation[2], groups;
} problem;

static problem random_problem(void)
{
    problem p = {.groups = random_int(1, 3)};
    p.x[0] = random_int(1, 6), p.x[1] = p.groups * random_int(1, 4);
    p.w[0] = p.groups * random_int(1, 7), p.w[1] = p.x[1] / p.groups;
    p.y[0] = p.x[0], p.y[1] = p.w[0];
    for (int d = 0; d < 2; d++) {
        p.stride[d] = random_int(1, 3), p.padding[d] = random_int(0, 3);
        p.dilation[d] = random_int(1, 3), p.w[d + 2] = random_int(1, 4);
        int64_t reach = p.dilation[d] * (p.w[d + 2] - 1) + 1;
        p.y[d + 2] = d == 0 ? random_int(1, 6) : random_int(1, 40);
        p.x[d + 2] = (p.y[d + 2] - 1) * p.stride[d] + reach - 2 * p.padding[d];
        if (p.x[d + 2] < 1) p.padding[d] = 0, p.x[d + 2] = (p.y[d + 2] - 1) * p.stride[d] + reach;
        p.x[d + 2] += random_int(0, p.stride[d] - 1); /* what no kernel reaches */
    }
    return p;
}

/* The place of an element of x, or -1: outside. */
static int64_t place_in_x(const problem *p, int64_t n, int64_t c, const int64_t *at,
                          const int64_t *q)
{
    int64_t place = n * p->x[1] + c;
    for (int d = 0; d < 2; d++) {
        int64_t i = at[d] * p->stride[d] - p->padding[d] + q[d] * p->dilation[d];
        if (i < 0 || i >= p->x[d + 2]) return -1;
        place = place * p->x[d + 2] + i;
    }
    return place;
}

/* Which array's element a product is added to, and of which two it is the product. */
typedef struct sums {
    const sp_operand *x, *w, *y;
    double *to_x, *to_w, *to_y;
} sums;

static void add_products(const problem *p, int64_t n, int64_t o, const int64_t *at, int64_t place,
                         const sums *s)
{
    int64_t c, q[2], outs = p->w[0] / p->groups;
    for (c = 0; c < p->w[1]; c++)
        for (q[0] = 0; q[0] < p->w[2]; q[0]++)
            for (q[1] = 0; q[1] < p->w[3]; q[1]++) {
                int64_t x = place_in_x(p, n, o / outs * p->w[1] + c, at, q),
                        w = ((o * p->w[1] + c) * p->w[2] + q[0]) * p->w[3] + q[1];
                if (x < 0) continue;
                double xv = sp__ref_get(s->x, x), wv = sp__ref_get(s->w, w),
                       yv = sp__ref_get(s->y, place);
                s->to_y[place] += xv * wv, s->to_x[x] += yv * wv, s->to_w[w] += yv * xv;
            }
}

static void add_all(const problem *p, const sums *s)
{
    int64_t at[2], place = 0;
    for (int64_t n = 0; n < p->y[0]; n++)
        for (int64_t o = 0; o < p->y[1]; o++)
            for (at[0] = 0; at[0] < p->y[2]; at[0]++)
                for (at[1] = 0; at[1] < p->y[3]; at[1]++) add_products(p, n, o, at, place++, s);
}

static bool all_near(const sp_operand *got, const double *expected)
{
    double tolerance = got->dtype == SP_FLOAT32 ? 2e-4 : 1e-12;
    for (int64_t i = 0; i < got->numel; i++)
        if (!near(sp__ref_get(got, i), expected[i], tolerance)) return false;
    return true;
}

static sp_attr ints(const int64_t *v, int n)
{
    return (sp_attr){.v.ints = v, .n = (uint8_t)n, .kind = SP_ATTR_INTS};
}

/* attr[0] is the size of what is asked for, which convolution() does not take. */
static void run(sp_kernel kernel, int op, const problem *p, const int64_t *size, const block *b,
                int n)
{
    sp_attr attr[5] = {ints(size, 4),
                       ints(p->stride, 2),
                       ints(p->padding, 2),
                       ints(p->dilation, 2),
                       {.v.i = p->groups, .kind = SP_ATTR_INT}};
    int skip = size == p->y;
    sp_kargs k = arguments(op, 1, n, b, attr + skip, 5 - skip);
    k.arg = k.room;
    OK(kernel(&k));
}

static void check_problem(const problem *p, int dtype, layout how)
{
    block x = make_filled(dtype, 4, p->x, how, -1, 1), w = make_filled(dtype, 4, p->w, how, -1, 1),
          y = make_filled(dtype, 4, p->y, how, -1, 1), none = make(dtype, 1, p->w, DENSE);
    block got[3] = {make(dtype, 4, p->y, DENSE), make(dtype, 4, p->x, DENSE),
                    make(dtype, 4, p->w, DENSE)};
    double *expected[3];
    for (int i = 0; i < 3; i++) expected[i] = calloc((size_t)got[i].x.numel, sizeof(double));
    add_all(p, &(sums){&x.x, &w.x, &y.x, expected[1], expected[2], expected[0]});
    run(sp__cpu_convolution, SP_OP_CONVOLUTION, p, p->y, (block[]){got[0], x, w, none}, 4);
    run(sp__cpu_convolution_input, SP_OP_CONVOLUTION_INPUT, p, p->x, (block[]){got[1], y, w}, 3);
    run(sp__cpu_convolution_weight, SP_OP_CONVOLUTION_WEIGHT, p, p->w, (block[]){got[2], y, x}, 3);
    for (int i = 0; i < 3; i++) {
        CHECK(all_near(&got[i].x, expected[i]));
        free(expected[i]), drop(&got[i]);
    }
    drop(&x), drop(&w), drop(&y), drop(&none);
}

static void sums_are_those_written_out(void)
{
    FOR_EACH_ISA(isa)
    {
        for (int round = 0; round < 60; round++) {
            problem p = random_problem();
            check_problem(&p, round & 1 ? SP_FLOAT32 : SP_FLOAT64, (layout)(round / 2 % 4));
        }
    }
}

int main(void)
{
    sp__cpu_register();
    static const test_case all[] = {TEST(sums_are_those_written_out)};
    return run_suite("backends/conv", all, sizeof all / sizeof *all);
}
