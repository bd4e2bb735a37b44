/* Indexing, copies and scatters: values in every layout; a bad index fails before anything is
 * written.
 */
#include "tests/backends/support.h"

#include "backends/cpu/copy.h"

static sp_attr int_attr(int64_t value)
{
    return (sp_attr){.v.i = value, .kind = SP_ATTR_INT};
}

static sp_status run(sp_kernel kernel, int op, const block *b, int n, sp_attr *attr, int n_attr)
{
    sp_kargs k = arguments(op, 1, n, b, attr, n_attr);
    k.arg = k.room;
    return kernel(&k);
}

static void fill_indices(const block *b, int64_t size)
{
    for (int64_t i = 0; i < b->x.numel; i++)
        sp__ref_set(&b->x, i, (double)random_int(-size, size - 1));
}

/* Row-major position in a rank-3 operand. */
static int64_t position(const sp_operand *x, const int64_t *i)
{
    return (i[0] * x->shape[1] + i[1]) * x->shape[2] + i[2];
}

static void gather_and_scatter_add(void)
{
    for (int round = 0; round < 100; round++) {
        static const int wide[] = {SP_BOOL, SP_INT64, SP_FLOAT32, SP_FLOAT64};
        int dim = round % 3, dtype = wide[round % 4];
        int64_t shape[3], index_shape[3];
        for (int d = 0; d < 3; d++)
            shape[d] = random_int(1, 9), index_shape[d] = random_int(1, shape[d]);
        index_shape[dim] = random_int(1, 12);
        layout how = (layout)(round / 3 % 4);
        block x = make_filled(dtype, 3, shape, how, -9, 9),
              index = make(SP_INT64, 3, index_shape, how);
        block out = make(dtype, 3, index_shape, how), sum = make(dtype, 3, shape, how),
              expected = make(dtype, 3, shape, DENSE);
        fill_indices(&index, shape[dim]);
        sp_attr attr = int_attr(round & 1 ? dim : dim - 3);
        OK(run(sp__cpu_gather, SP_OP_GATHER, (block[]){out, x, index}, 3, &attr, 1));
        OK(run(sp__cpu_scatter_add, SP_OP_SCATTER_ADD, (block[]){sum, x, index, out}, 4, &attr, 1));
        sp__copy_strided(&expected.x, &x.x);
        for (int64_t at = 0; at < index.x.numel; at++) {
            int64_t i[3] = {at / index_shape[2] / index_shape[1],
                            at / index_shape[2] % index_shape[1], at % index_shape[2]};
            int64_t place = (int64_t)sp__ref_get(&index.x, at);
            i[dim] = place < 0 ? place + shape[dim] : place;
            double value = sp__ref_get(&out.x, at),
                   was = sp__ref_get(&expected.x, position(&x.x, i));
            CHECK(value == sp__ref_get(&x.x, position(&x.x, i)));
            sp__ref_set(&expected.x, position(&x.x, i),
                        dtype == SP_FLOAT32 ? (float)was + (float)value : was + value);
        }
        CHECK(same_bits(&sum.x, &expected.x));
        drop(&x), drop(&index), drop(&out), drop(&sum), drop(&expected);
    }
}

static void select_and_add_slices(void)
{
    for (int round = 0; round < 100; round++) {
        int dim = round % 3;
        int64_t shape[3], out_shape[3], n = random_int(0, 9);
        for (int d = 0; d < 3; d++)
            shape[d] = random_int(1, 9), out_shape[d] = d == dim ? n : shape[d];
        layout how = (layout)(round / 3 % 4);
        block x = make_filled(SP_FLOAT64, 3, shape, how, -9, 9), index = make(SP_INT64, 1, &n, how);
        block out = make(SP_FLOAT64, 3, out_shape, how), sum = make(SP_FLOAT64, 3, shape, DENSE);
        block expected = make(SP_FLOAT64, 3, shape, DENSE);
        fill_indices(&index, shape[dim]);
        sp_attr attr = int_attr(dim);
        OK(run(sp__cpu_index_select, SP_OP_INDEX_SELECT, (block[]){out, x, index}, 3, &attr, 1));
        OK(run(sp__cpu_index_add, SP_OP_INDEX_ADD, (block[]){sum, x, index, out}, 4, &attr, 1));
        sp__copy_strided(&expected.x, &x.x);
        for (int64_t at = 0; at < out.x.numel; at++) {
            int64_t i[3] = {at / out_shape[2] / out_shape[1], at / out_shape[2] % out_shape[1],
                            at % out_shape[2]};
            int64_t place = (int64_t)sp__ref_get(&index.x, i[dim]);
            i[dim] = place < 0 ? place + shape[dim] : place;
            double value = sp__ref_get(&out.x, at),
                   was = sp__ref_get(&expected.x, position(&x.x, i));
            CHECK(value == sp__ref_get(&x.x, position(&x.x, i)));
            sp__ref_set(&expected.x, position(&x.x, i), was + value);
        }
        for (int64_t at = 0; at < x.x.numel; at++) {
            CHECK(near(sp__ref_get(&sum.x, at), sp__ref_get(&expected.x, at), 1e-14));
        }
        drop(&x), drop(&index), drop(&out), drop(&sum), drop(&expected);
    }
}

static void bad_indices_change_nothing(void)
{
    int64_t shape[1] = {4}, bad[] = {4, -5, INT64_MAX, INT64_MIN};
    sp_attr attr = int_attr(0);
    for (int i = 0; i < 4; i++) {
        block x = make_filled(SP_FLOAT32, 1, shape, DENSE, 1, 2),
              before = make(SP_FLOAT32, 1, shape, DENSE);
        block index = make(SP_INT64, 1, shape, DENSE),
              src = make_filled(SP_FLOAT32, 1, shape, DENSE, 1, 2);
        memcpy(before.x.data, x.x.data, 16), memcpy(index.x.data + 24, &bad[i], 8);
        FAILS(run(sp__cpu_scatter_add, SP_OP_SCATTER_ADD, (block[]){x, x, index, src}, 4, &attr, 1),
              SP_EINDEX, "scatter_add");
        FAILS(run(sp__cpu_index_add, SP_OP_INDEX_ADD, (block[]){x, x, index, src}, 4, &attr, 1),
              SP_EINDEX, "size 4");
        CHECK(same_bits(&x.x, &before.x));
        FAILS(run(sp__cpu_gather, SP_OP_GATHER, (block[]){src, x, index}, 3, &attr, 1), SP_EINDEX,
              "gather");
        FAILS(run(sp__cpu_index_select, SP_OP_INDEX_SELECT, (block[]){src, x, index}, 3, &attr, 1),
              SP_EINDEX, "index_select");
        drop(&x), drop(&before), drop(&index), drop(&src);
    }
}

static void copies_between_all_layouts(void)
{
    for (int round = 0; round < 300; round++) {
        int rank = (int)random_int(0, 4), dtype = round % SP_DTYPE_COUNT;
        int64_t shape[4], limit = rank < 2 ? 40000 : rank == 2 ? 200 : 20;
        for (int d = 0; d < rank; d++) shape[d] = random_int(1, limit);
        block from = make_filled(dtype, rank, shape, (layout)random_int(0, EXPANDED), -99, 99);
        block to = make(dtype, rank, shape, (layout)random_int(0, STEPPED));
        sp__copy_strided(&to.x, &from.x);
        CHECK(same_bits(&to.x, &from.x));
        drop(&from), drop(&to);
    }
}

static void parts_are_replaced(void)
{
    int64_t shape[2] = {5, 6}, slice[2] = {5, 2}, row[1] = {6}, size[2] = {2, 3},
            stride[2] = {12, 2};
    for (int how = 0; how < 4; how++) {
        block x = make_filled(SP_FLOAT32, 2, shape, (layout)how, 0, 1),
              out = make(SP_FLOAT32, 2, shape, DENSE);
        block a = make_filled(SP_FLOAT32, 2, slice, (layout)how, 5, 6),
              b = make_filled(SP_FLOAT32, 1, row, (layout)how, 5, 6);
        block c = make_filled(SP_FLOAT32, 2, size, (layout)how, 5, 6);
        sp_attr by_slice[] = {int_attr(1), int_attr(-5), int_attr(5), int_attr(3)};
        OK(run(sp__cpu_slice_scatter, SP_OP_SLICE_SCATTER, (block[]){out, x, a}, 3, by_slice, 4));
        for (int64_t i = 0; i < 30; i++) {
            bool in = i % 6 == 1 || i % 6 == 4;
            CHECK(sp__ref_get(&out.x, i) ==
                  (in ? sp__ref_get(&a.x, i / 6 * 2 + i % 6 / 3) : sp__ref_get(&x.x, i)));
        }
        sp_attr by_row[] = {int_attr(0), int_attr(-2)};
        OK(run(sp__cpu_select_scatter, SP_OP_SELECT_SCATTER, (block[]){out, x, b}, 3, by_row, 2));
        for (int64_t i = 0; i < 30; i++) {
            CHECK(sp__ref_get(&out.x, i) ==
                  (i / 6 == 3 ? sp__ref_get(&b.x, i % 6) : sp__ref_get(&x.x, i)));
        }
        sp_attr by_stride[] = {{.v.ints = size, .n = 2, .kind = SP_ATTR_INTS},
                               {.v.ints = stride, .n = 2, .kind = SP_ATTR_INTS},
                               int_attr(1)};
        OK(run(sp__cpu_as_strided_scatter, SP_OP_AS_STRIDED_SCATTER, (block[]){out, x, c}, 3,
               by_stride, 3));
        for (int64_t i = 0; i < 30; i++) {
            bool in = (i >= 1 && i <= 5 && i % 2 == 1) || (i >= 13 && i <= 17 && i % 2 == 1);
            CHECK(sp__ref_get(&out.x, i) ==
                  (in ? sp__ref_get(&c.x, i / 12 * 3 + i % 12 / 2) : sp__ref_get(&x.x, i)));
        }
        drop(&x), drop(&out), drop(&a), drop(&b), drop(&c);
    }
}

int main(void)
{
    sp__cpu_register();
    static const test_case all[] = {
        TEST(gather_and_scatter_add),     TEST(select_and_add_slices),
        TEST(bad_indices_change_nothing), TEST(copies_between_all_layouts),
        TEST(parts_are_replaced),
    };
    return run_suite("backends/index", all, sizeof all / sizeof *all);
}
