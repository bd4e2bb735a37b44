/* Geometry: strides of views, overlap, broadcasting, and its messages. The strided results are
 * compared with brute force. */
#include "tensor/tensor.h"
#include "tests/check.h"

static sp_tensor *strided(int rank, const int64_t *shape, const int64_t *stride, int64_t offset)
{
    static float room[4096];
    sp_meta m = {.dtype = SP_FLOAT32, .rank = (uint8_t)rank, .offset = offset, .view_of = -1};
    for (int i = 0; i < rank; i++) m.shape[i] = shape[i], m.stride[i] = stride[i];
    sp__meta_update(&m);
    sp_storage *s;
    sp_tensor *t = NULL;
    OK(sp__storage_foreign(room, sizeof room, false, NULL, NULL, &s));
    OK(sp__handle_new(&m, s, &t));
    sp__storage_drop(s);
    sp__tensor_check(t);
    return t;
}

static void dense_meta(void)
{
    sp_meta m = {.dtype = SP_FLOAT64, .rank = 3, .shape = {2, 0, 4}};
    OK(sp__meta_dense(&m, "full"));
    CHECK(m.numel == 0 && m.contiguous && m.stride[0] == 4 && m.stride[1] == 4 && m.stride[2] == 1);
    m.shape[1] = -3;
    FAILS(sp__meta_dense(&m, "full"), SP_ESHAPE, "full: shape (2, -3, 4)");
    m.shape[0] = m.shape[1] = (int64_t)1 << 31;
    FAILS(sp__meta_dense(&m, "full"), SP_EMEMORY,
          "full: a tensor of shape (2147483648, 2147483648, 4) is too large");
    m.shape[2] = 0; /* empty, but its strides would overflow */
    FAILS(sp__meta_dense(&m, "full"), SP_EMEMORY, "overflows");
}

/* Element addresses in row-major order. */
static void addresses(int rank, const int64_t *shape, const int64_t *stride, int64_t *out)
{
    int64_t index[SP_MAX_RANK] = {0}, numel = 1;
    for (int d = 0; d < rank; d++) numel *= shape[d];
    for (int64_t i = 0; i < numel; i++) {
        out[i] = 0;
        for (int d = 0; d < rank; d++) out[i] += index[d] * stride[d];
        for (int d = rank - 1; d >= 0 && ++index[d] == shape[d]; d--) index[d] = 0;
    }
}

static void check_view(const sp_tensor *t, int rank, const int64_t *shape, bool possible)
{
    int64_t stride[SP_MAX_RANK], from[256], to[256];
    bool got = sp__view_strides(t, rank, shape, stride);
    CHECK(got == possible);
    if (!got || !possible) return;
    addresses(t->rank, t->shape, t->stride, from);
    addresses(rank, shape, stride, to);
    CHECK(memcmp(from, to, sizeof *from * (size_t)t->numel) == 0);
}

static void views_keep_the_order_of_elements(void)
{
    sp_tensor *dense = strided(3, (int64_t[]){2, 3, 4}, (int64_t[]){12, 4, 1}, 0);
    check_view(dense, 1, (int64_t[]){24}, true);
    check_view(dense, 4, (int64_t[]){1, 6, 1, 4}, true);
    sp_tensor *rows = strided(3, (int64_t[]){2, 3, 4}, (int64_t[]){24, 8, 2},
                              5); /* every second element of all */
    check_view(rows, 2, (int64_t[]){6, 4}, true);
    check_view(rows, 1, (int64_t[]){24}, true);
    check_view(rows, 3, (int64_t[]){4, 3, 2}, true);
    sp_tensor *turned = strided(2, (int64_t[]){4, 6}, (int64_t[]){1, 4}, 0);
    check_view(turned, 1, (int64_t[]){24}, false);
    check_view(turned, 3, (int64_t[]){2, 2, 6}, true);
    check_view(turned, 3, (int64_t[]){4, 3, 2}, true);
    check_view(turned, 2, (int64_t[]){8, 3}, false);
    sp_tensor *repeated = strided(3, (int64_t[]){3, 1, 4}, (int64_t[]){0, 4, 1}, 0);
    check_view(repeated, 2, (int64_t[]){3, 4}, true);
    check_view(repeated, 1, (int64_t[]){12}, false);
    sp_drop(&dense), sp_drop(&rows), sp_drop(&turned), sp_drop(&repeated);
}

static void self_overlap(void)
{
    sp_tensor *t[] = {
        strided(2, (int64_t[]){3, 4}, (int64_t[]){4, 1}, 0),
        strided(2, (int64_t[]){3, 4}, (int64_t[]){1, 3}, 0),
        strided(2, (int64_t[]){3, 1}, (int64_t[]){2, 0}, 0),
        strided(2, (int64_t[]){3, 4}, (int64_t[]){0, 1}, 0),
        strided(2, (int64_t[]){3, 4}, (int64_t[]){1, 1}, 0),
        strided(2, (int64_t[]){0, 4}, (int64_t[]){0, 0}, 0),
    };
    const bool overlaps[] = {false, false, false, true, true, false};
    for (int i = 0; i < 6; i++) {
        CHECK(sp__overlaps_itself(t[i]) == overlaps[i]);
        sp_drop(&t[i]);
    }
}

static bool overlap_by_force(const sp_tensor *a, const sp_tensor *b)
{
    int64_t x[256], y[256];
    addresses(a->rank, a->shape, a->stride, x);
    addresses(b->rank, b->shape, b->stride, y);
    for (int64_t i = 0; i < a->numel; i++)
        for (int64_t k = 0; k < b->numel; k++)
            if (a->offset + x[i] == b->offset + y[k]) return true;
    return false;
}

static void overlap_of_two(void)
{
    const int64_t shape[2] = {3, 4};
    const int64_t strides[][2] = {{4, 1}, {10, 2}, {20, 4}, {1, 7}, {12, 3}};
    for (int s = 0; s < 5; s++)
        for (int64_t shift = 0; shift < 70; shift++) {
            sp_tensor *a = strided(2, shape, strides[s], 0),
                      *b = strided(2, shape, strides[s], shift);
            CHECK(sp__may_overlap(a, b) == overlap_by_force(a, b));
            CHECK(sp__may_overlap(b, a) == overlap_by_force(a, b));
            sp_drop(&a), sp_drop(&b);
        }
    for (int64_t shift = 0; shift < 70; shift++) { /* unequal geometry: never a false no */
        sp_tensor *a = strided(2, shape, strides[1], 0), *b = strided(2, shape, strides[3], shift);
        CHECK(sp__may_overlap(a, b) || !overlap_by_force(a, b));
        sp_drop(&a), sp_drop(&b);
    }
}

static void broadcasting(void)
{
    sp_tensor *t[4] = {
        strided(3, (int64_t[]){2, 1, 4}, (int64_t[]){4, 4, 1}, 0),
        strided(2, (int64_t[]){3, 1}, (int64_t[]){1, 1}, 0),
        NULL,
        strided(0, NULL, NULL, 0),
    };
    sp_meta m;
    OK(sp__broadcast("add", t, 4, &m));
    CHECK(m.rank == 3 && m.shape[0] == 2 && m.shape[1] == 3 && m.shape[2] == 4 && m.numel == 24 &&
          m.stride[0] == 12);
    sp_tensor *empty[2] = {strided(2, (int64_t[]){0, 3}, (int64_t[]){3, 1}, 0),
                           strided(1, (int64_t[]){1}, (int64_t[]){1}, 0)};
    OK(sp__broadcast("add", empty, 2, &m));
    CHECK(m.numel == 0 && m.shape[0] == 0 && m.shape[1] == 3);
    sp_tensor *bad[2] = {t[0], empty[0]};
    FAILS(sp__broadcast("add", bad, 2, &m), SP_ESHAPE,
          "add: (2, 1, 4) and (0, 3) do not broadcast");
    const int64_t big = (int64_t)1 << 31, none = 0;
    sp_tensor *large[2] = {strided(2, (int64_t[]){big, 1}, (int64_t[]){none, 1}, 0),
                           strided(2, (int64_t[]){1, big}, (int64_t[]){1, 0}, 0)};
    FAILS(sp__broadcast("add", large, 2, &m), SP_EMEMORY, "too large");
    for (int i = 0; i < 4; i++) sp_drop(&t[i]);
    for (int i = 0; i < 2; i++) sp_drop(&empty[i]), sp_drop(&large[i]);
}

static void shapes_as_text(void)
{
    char buf[64];
    CHECK(strcmp(sp__shape_text(0, NULL, buf, sizeof buf), "()") == 0);
    CHECK(strcmp(sp__shape_text(1, (int64_t[]){5}, buf, sizeof buf), "(5,)") == 0);
    CHECK(strcmp(sp__shape_text(2, (int64_t[]){5, -1}, buf, sizeof buf), "(5, -1)") == 0);
    CHECK(strcmp(sp__shape_text(3, (int64_t[]){1000, 1000, 1000}, buf, 12), "(1000, 1...") == 0);
    int64_t longest[SP_MAX_RANK];
    for (int i = 0; i < SP_MAX_RANK; i++) longest[i] = INT64_MIN;
    char room[SP_SHAPE_TEXT];
    CHECK(strchr(sp__shape_text(SP_MAX_RANK, longest, room, sizeof room), ')') != NULL);
}

static void dims_count_from_both_ends(void)
{
    int d;
    OK(sp__dim_normalize("sum", -1, 3, &d));
    CHECK(d == 2);
    OK(sp__dim_normalize("sum", -1, 0, &d));
    CHECK(d == 0);
    FAILS(sp__dim_normalize("sum", 3, 3, &d), SP_EINDEX,
          "sum: dim 3 is out of range for a tensor of 3 dimensions; expected -3 to 2");
    FAILS(sp__dim_normalize("sum", -2, 0, &d), SP_EINDEX, "expected -1 to 0");
    FAILS(sp__dim_normalize("sum", INT64_MIN, 2, &d), SP_EINDEX, "out of range");
}

SUITE("tensor/view", TEST(dense_meta), TEST(views_keep_the_order_of_elements), TEST(self_overlap),
      TEST(overlap_of_two), TEST(broadcasting), TEST(shapes_as_text),
      TEST(dims_count_from_both_ends))
