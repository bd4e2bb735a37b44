/* The generated C interface: options of older callers, arguments that no type checker catches, the
 * table itself.
 */
#include "ops/attr.h"
#include "ops_gen.h"
#include "tests/check.h"

static sp_tensor *matrix(void)
{
    const float data[] = {1, 2, 3, 4};
    sp_tensor *t = NULL;
    OK(sp_from_data(data, SP_FLOAT32, 2, (const int64_t[]){2, 2}, &t));
    return t;
}

static double item(sp_tensor *t)
{
    sp_scalar value = {.kind = SP_BOOL};
    OK(sp_item(t, &value));
    return value.kind == SP_FLOAT64 ? value.v.f : (double)value.v.i;
}

static void names_lead_to_opcodes(void)
{
    for (int op = 0; op < SP_OP_COUNT; op++) {
        CHECK(sp__op_by_name(sp_op_table[op].name) == op);
        CHECK(strncmp(sp_op_table[op].signature, sp_op_table[op].name,
                      strlen(sp_op_table[op].name)) == 0);
    }
    CHECK(sp__op_by_name("") == -1 && sp__op_by_name("zzz") == -1 && sp__op_by_name("add.") == -1);
}

static void rows_are_whole(void)
{
    for (int op = 0; op < SP_OP_COUNT; op++) {
        const sp_op_info *info = &sp_op_table[op];
        CHECK(info->infer || info->body);
        CHECK(!(info->flags & SP_OPF_COMPOSITE) == !info->body);
        CHECK(info->n_out >= 1 && info->n_out <= SP_MAX_OUT && info->n_attr <= SP_MAX_ATTR);
        CHECK(info->n_in < 0 || info->diff_mask >> info->n_in == 0);
        CHECK((info->linear_mask & ~info->diff_mask) == 0);
        CHECK(info->dims_attr < info->n_attr);
        for (int i = 0; i < info->n_in; i++) CHECK(info->in_names[i] != NULL);
        for (int i = 0; i < info->n_attr; i++)
            CHECK(info->attr_names[i] && info->attr_kinds[i] <= SP_ATTR_DTYPE);
    }
}

static void absent_options_are_defaults(void)
{
    sp_tensor *x = matrix(), *a = NULL, *b = NULL;
    OK(sp_sum(x, NULL, &a));
    OK(sp_sum(x, &(sp_sum_opt){.size = sizeof(sp_sum_opt)}, &b));
    CHECK(item(a) == 10 && item(b) == 10 && sp_rank(b) == 0);
    sp_drop(&a), sp_drop(&b), sp_drop(&x);
}

/* A caller built against a header that had `dim` alone, and one against a header that has more than
 * we know. */
static void older_and_newer_callers(void)
{
    sp_tensor *x = matrix(), *sum = NULL;
    struct {
        sp_sum_opt opt;
        char more[64];
    } newer;
    memset(&newer, 0xff, sizeof newer);
    newer.opt = (sp_sum_opt){
        .size = sizeof newer, .dim = (const int64_t[]){0}, .n_dim = 1, .keepdim = true};
    OK(sp_sum(x, &newer.opt, &sum));
    CHECK(sp_rank(sum) == 2 && sp_shape(sum)[0] == 1);
    sp_drop(&sum);
    newer.opt.size = offsetof(sp_sum_opt, keepdim);
    OK(sp_sum(x, &newer.opt, &sum));
    CHECK(sp_rank(sum) == 1);
    sp_drop(&sum), sp_drop(&x);
}

static void an_empty_list_is_not_an_absent_one(void)
{
    sp_tensor *x = matrix(), *y = NULL;
    OK(sp_squeeze(
        x,
        &(sp_squeeze_opt){.size = sizeof(sp_squeeze_opt), .dim = (const int64_t[]){1}, .n_dim = 0},
        &y));
    CHECK(sp_rank(y) == 2);
    sp_drop(&y), sp_drop(&x);
}

static void variants_share_the_op(void)
{
    sp_tensor *x = matrix(), *out = matrix(), *one = NULL;
    OK(sp_add_(x, x));
    OK(sp_add_out(x, x, out));
    OK(sp_sum(out, NULL, &one));
    CHECK(item(one) == 40);
    CHECK(sp_version(x) == 1);
    sp_drop(&one), sp_drop(&out), sp_drop(&x);
}

static void wrong_arguments(void)
{
    sp_tensor *x = matrix(), *y = x;
    FAILS(sp_add(NULL, x, &y), SP_ETYPE, "add: x is NULL");
    CHECK(y == NULL);
    FAILS(sp_add(x, NULL, &y), SP_ETYPE, "add: y is NULL");
    FAILS(sp_add_(NULL, x), SP_ETYPE, "add: x is NULL");
    FAILS(sp_sum(x, &(sp_sum_opt){.keepdim = true}, &y), SP_EVALUE, "sum: opt->size is 0");
    FAILS(sp_reshape(x, NULL, 2, &y), SP_EVALUE, "reshape: shape");
    FAILS(sp_reshape(x, (const int64_t[]){4}, -1, &y), SP_EVALUE, "reshape: shape");
    FAILS(sp_cast(x, (sp_dtype)99, &y), SP_EVALUE, "cast: dtype is 99");
    CHECK(y == NULL);
    OK(sp_linear(x, x, NULL, &y)); /* an optional tensor may be NULL */
    sp_drop(&y), sp_drop(&x);
}

SUITE("ops/entry", TEST(names_lead_to_opcodes), TEST(rows_are_whole),
      TEST(absent_options_are_defaults), TEST(older_and_newer_callers),
      TEST(an_empty_list_is_not_an_absent_one), TEST(variants_share_the_op), TEST(wrong_arguments))
