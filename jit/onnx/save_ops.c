/* Each op of the table as ONNX nodes (opset 21).
 *
 * An op whose `onnx` key names an operator is that operator, inputs cast to the dtype Spool
 * computes in; one whose key is "custom" has a function here; one without a key goes into the
 * domain spool under its own name, attributes and all.
 */
#include "jit/onnx/save_int.h"

/* ---- creation ---- */

static sp_status emit_filled(sp_saver *s, const sp_ir_node *n, const sp_attr *value)
{
    const sp_meta *y = result_type(s, n);
    sp_name number = sp__save_const_scalar(s, sp__attr_to_scalar(value), y->dtype);
    emit2(s, "Expand", number, sp__save_const_ints(s, y->shape, y->rank), result(s, n));
    return SP_OK;
}

static sp_status save_full(sp_saver *s, const sp_ir_node *n)
{
    const sp_attr *value = attr(n, "fill_value");
    return emit_filled(s, n, value != NULL ? value : attr(n, "value"));
}

static sp_status save_arange(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *y = result_type(s, n);
    const sp_attr *start = attr(n, "start"), *step = attr(n, "step");
    bool floats = sp__dtype_is_floating(y->dtype);
    int64_t last = y->numel;
    sp_name numbers[3] = {sp__save_const_scalar(s, SP_INT(0), SP_INT64),
                          sp__save_const_scalar(s, SP_INT(last), SP_INT64),
                          sp__save_const_scalar(s, SP_INT(1), SP_INT64)};
    sp_name counted = sp__save_temp(s);
    sp__save_begin(s, "Range", "");
    for (int i = 0; i < 3; i++) sp__save_in(s, numbers[i]);
    sp__save_end(s, counted);
    sp_dtype dtype =
        floats ? SP_FLOAT64 : SP_INT64; /* start + i * step in the wide type, rounded once */
    sp_name wide = sp__save_cast(s, counted, SP_INT64, dtype);
    wide =
        temp2(s, "Mul", wide,
              sp__save_const_scalar(s, step != NULL ? sp__attr_to_scalar(step) : SP_INT(1), dtype));
    wide = temp2(
        s, "Add", wide,
        sp__save_const_scalar(s, start != NULL ? sp__attr_to_scalar(start) : SP_INT(0), dtype));
    emit1(s, "Identity", sp__save_cast(s, wide, dtype, y->dtype), result(s, n));
    return SP_OK;
}

/* copy(x, src): src in x's dtype and shape. */
static sp_status save_copy(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *y = result_type(s, n);
    sp_name src = input_as(s, n, 1, y->dtype);
    emit2(s, "Expand", src, sp__save_const_ints(s, y->shape, y->rank), result(s, n));
    return SP_OK;
}

/* ---- the domain spool ---- */

static void put_attr(sp_saver *s, const char *name, const sp_attr *a)
{
    if (a->kind == SP_ATTR_INTS)
        sp__save_attr_ints(s, name, a->v.ints, a->n);
    else if (a->kind == SP_ATTR_FLOAT || (a->kind == SP_ATTR_SCALAR && a->tag == SP_FLOAT64))
        sp__save_attr_float(s, name, (float)a->v.f);
    else if (a->kind == SP_ATTR_DTYPE)
        sp__save_attr_int(s, name, sp__onnx_type((sp_dtype)a->v.i));
    else
        sp__save_attr_int(s, name, a->v.i);
}

sp_status sp__save_own_domain(sp_saver *s, const sp_ir_node *n)
{
    const sp_op_info *info = &sp_op_table[n->op];
    sp__save_begin(s, info->name, ONNX_SPOOL_DOMAIN);
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] >= 0)
            sp__save_in(s, input(s, n, i));
        else
            sp__save_in(s, (sp_name){""});
    }
    for (int i = 0; i < n->n_attr; i++)
        if (!n->attr[i].absent) put_attr(s, info->attr_names[i], &n->attr[i]);
    sp_name out[SP_MAX_OUT];
    for (int i = 0; i < n->n_out; i++) out[i] = sp__save_value(s, n->out[i]);
    sp__save_end_many(s, out, n->n_out);
    return SP_OK;
}

/* ---- which saver ---- */

static const sp_save_row savers[] = {
    {"full", save_full}, {"fill.scalar", save_full}, {"arange", save_arange}, {"copy", save_copy},
    {NULL, NULL},
};

static const sp_save_row *row_of(const char *op)
{
    static const sp_save_row *const all[] = {savers,
                                             sp__save_rows_pointwise,
                                             sp__save_rows_reduce,
                                             sp__save_rows_shapes,
                                             sp__save_rows_images,
                                             sp__save_rows_norm};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (const sp_save_row *row = all[i]; row->op != NULL; row++)
            if (strcmp(row->op, op) == 0) return row;
    return NULL;
}

sp_status sp__save_op(sp_saver *s, const sp_ir_node *n)
{
    const sp_op_info *info = &sp_op_table[n->op];
    const sp_save_row *row = row_of(info->name);
    if (row != NULL) return row->save(s, n);
    if (info->onnx == NULL) return sp__save_own_domain(s, n);
    if (strcmp(info->onnx, "custom") == 0)
        return unsupported(n, "the table promises a saver that is missing");
    if (info->flags & SP_OPF_POINTWISE) return sp__save_pointwise(s, n, info->onnx);
    return unsupported(n, "it has no form in a file yet");
}
