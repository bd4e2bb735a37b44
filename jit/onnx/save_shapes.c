/* Views, pieces and joined tensors as ONNX nodes. */
#include "jit/onnx/save_int.h"
#include "tensor/memory.h"

/* ---- shapes ---- */

static sp_status save_reshape(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *y = result_type(s, n);
    sp_name shape = sp__save_const_ints(s, y->shape, y->rank);
    sp__save_begin(s, "Reshape", "");
    sp__save_in(s, input(s, n, 0)), sp__save_in(s, shape);
    sp__save_attr_int(s, "allowzero", 1);
    sp__save_end(s, result(s, n));
    return SP_OK;
}

static void emit_transpose(sp_saver *s, const sp_ir_node *n, const int64_t *perm, int rank)
{
    sp__save_begin(s, "Transpose", "");
    sp__save_in(s, input(s, n, 0));
    sp__save_attr_ints(s, "perm", perm, rank);
    sp__save_end(s, result(s, n));
}

static sp_status save_transpose(sp_saver *s, const sp_ir_node *n)
{
    int rank = type_of(s, n->in[0])->rank;
    int64_t perm[SP_MAX_RANK];
    if (rank == 0) return save_identity(s, n);
    int64_t a = dim_of(n, "dim0", rank), b = dim_of(n, "dim1", rank);
    for (int i = 0; i < rank; i++) perm[i] = i == a ? b : i == b ? a : i;
    emit_transpose(s, n, perm, rank);
    return SP_OK;
}

static sp_status save_permute(sp_saver *s, const sp_ir_node *n)
{
    int rank = type_of(s, n->in[0])->rank;
    int64_t perm[SP_MAX_RANK];
    const int64_t *dims = n->attr[0].v.ints;
    if (rank == 0) return save_identity(s, n);
    for (int i = 0; i < rank; i++) perm[i] = dims[i] < 0 ? dims[i] + rank : dims[i];
    emit_transpose(s, n, perm, rank);
    return SP_OK;
}

static sp_status save_expand(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *y = result_type(s, n);
    emit2(s, "Expand", input(s, n, 0), sp__save_const_ints(s, y->shape, y->rank), result(s, n));
    return SP_OK;
}

static sp_status save_slice(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *x = type_of(s, n->in[0]);
    int64_t dim = dim_of(n, "dim", x->rank), start = attr_int(n, "start", 0),
            end = attr_int(n, "end", INT64_MAX);
    int64_t step = attr_int(n, "step", 1);
    sp_name names[4] = {sp__save_const_ints(s, &start, 1), sp__save_const_ints(s, &end, 1),
                        sp__save_const_ints(s, &dim, 1), sp__save_const_ints(s, &step, 1)};
    sp__save_begin(s, "Slice", "");
    sp__save_in(s, input(s, n, 0));
    for (int i = 0; i < 4; i++) sp__save_in(s, names[i]);
    sp__save_end(s, result(s, n));
    return SP_OK;
}

static void emit_gather(sp_saver *s, const char *op_type, sp_name x, sp_name index, int64_t axis,
                        sp_name out)
{
    sp__save_begin(s, op_type, "");
    sp__save_in(s, x), sp__save_in(s, index);
    sp__save_attr_int(s, "axis", axis);
    sp__save_end(s, out);
}

static sp_status save_select(sp_saver *s, const sp_ir_node *n)
{
    int rank = type_of(s, n->in[0])->rank;
    sp_name index = sp__save_const_scalar(s, SP_INT(attr_int(n, "index", 0)), SP_INT64);
    emit_gather(s, "Gather", input(s, n, 0), index, dim_of(n, "dim", rank), result(s, n));
    return SP_OK;
}

/* ---- strided access by constant element numbers ---- */

/* The places, in a dense buffer, of the elements of a geometry, in row-major order, as a 1-D
 * constant. */
static sp_status place_list(sp_saver *s, const sp_meta *m, sp_name *out)
{
    size_t bytes = (size_t)m->numel * sizeof(int64_t);
    int64_t *places = sp__alloc(bytes);
    if (places == NULL)
        return sp_fail(SP_EMEMORY, "onnx.save: no memory for %lld indices", (long long)m->numel);
    sp__meta_places(m, 0, places);
    *out = sp__save_const_ints(s, places, (int)m->numel);
    sp__free(places, bytes);
    return SP_OK;
}

/* x's elements as one dimension, for an x whose buffer is in row-major order. */
static sp_name flattened(sp_saver *s, sp_name x, int64_t numel)
{
    return reshaped(s, x, &numel, 1);
}

static sp_status save_as_strided(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *x = type_of(s, n->in[0]), *y = result_type(s, n);
    const sp_attr *size = attr(n, "size"), *stride = attr(n, "stride");
    sp_meta wanted = *y;
    sp_name places;
    if (!x->contiguous)
        return unsupported(n, "the input is not dense, so its strides have no meaning in a file");
    for (int i = 0; i < size->n; i++) wanted.stride[i] = stride->v.ints[i];
    wanted.offset = attr_int(n, "storage_offset", 0);
    SP_RETURN_IF(place_list(s, &wanted, &places));
    sp_name flat = flattened(s, input(s, n, 0), x->numel), picked = sp__save_temp(s);
    emit_gather(s, "Gather", flat, places, 0, picked);
    emit2(s, "Reshape", picked, sp__save_const_ints(s, y->shape, y->rank), result(s, n));
    return SP_OK;
}

/* x with the elements at a geometry's places replaced by those of src. */
static sp_status emit_scatter(sp_saver *s, const sp_ir_node *n, const sp_meta *where)
{
    const sp_meta *x = type_of(s, n->in[0]);
    sp_name places;
    SP_RETURN_IF(place_list(s, where, &places));
    sp_name flat = flattened(s, input(s, n, 0), x->numel), src = input_as(s, n, 1, x->dtype);
    src = flattened(s, src, where->numel);
    sp_name put = sp__save_temp(s);
    sp__save_begin(s, "ScatterElements", "");
    sp__save_in(s, flat), sp__save_in(s, places), sp__save_in(s, src);
    sp__save_attr_int(s, "axis", 0);
    sp__save_end(s, put);
    emit2(s, "Reshape", put, sp__save_const_ints(s, x->shape, x->rank), result(s, n));
    return SP_OK;
}

/* Row-major geometry of an input, whatever its strides: ONNX tensors have no others. */
static sp_status dense_meta(const sp_meta *x, sp_meta *out)
{
    *out = *x;
    out->offset = 0;
    return sp__meta_dense(out, "onnx.save");
}

static sp_status save_as_strided_scatter(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *x = type_of(s, n->in[0]);
    const sp_attr *size = attr(n, "size"), *stride = attr(n, "stride");
    sp_meta where = {.rank = (uint8_t)size->n, .numel = 1};
    if (!x->contiguous)
        return unsupported(n, "the input is not dense, so its strides have no meaning in a file");
    for (int i = 0; i < size->n; i++) {
        where.shape[i] = size->v.ints[i], where.stride[i] = stride->v.ints[i];
        where.numel *= where.shape[i];
    }
    where.offset = attr_int(n, "storage_offset", 0);
    return emit_scatter(s, n, &where);
}

static sp_status save_slice_scatter(sp_saver *s, const sp_ir_node *n)
{
    sp_meta where;
    const sp_meta *src = type_of(s, n->in[1]);
    SP_RETURN_IF(dense_meta(type_of(s, n->in[0]), &where));
    int64_t dim = dim_of(n, "dim", where.rank), start = attr_int(n, "start", 0),
            size = where.shape[dim];
    if (start < 0) start = start + size < 0 ? 0 : start + size;
    where.offset = (start > size ? size : start) * where.stride[dim];
    where.stride[dim] *= attr_int(n, "step", 1);
    where.shape[dim] = src->shape[dim];
    where.numel = src->numel;
    return emit_scatter(s, n, &where);
}

static sp_status save_select_scatter(sp_saver *s, const sp_ir_node *n)
{
    sp_meta where;
    SP_RETURN_IF(dense_meta(type_of(s, n->in[0]), &where));
    int64_t dim = dim_of(n, "dim", where.rank), index = attr_int(n, "index", 0);
    where.offset = (index < 0 ? index + where.shape[dim] : index) * where.stride[dim];
    where.shape[dim] = 1;
    where.numel = type_of(s, n->in[1])->numel;
    return emit_scatter(s, n, &where);
}

static sp_status save_triangle(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *y = result_type(s, n);
    int64_t diagonal = attr_int(n, "diagonal", 0);
    sp_name x = input(s, n, 0), at = sp__save_const_scalar(s, SP_INT(diagonal), SP_INT64);
    bool truth = y->dtype == SP_BOOL; /* onnxruntime has none for bool */
    if (truth) x = sp__save_cast(s, x, SP_BOOL, SP_INT64);
    sp_name out = truth ? sp__save_temp(s) : result(s, n);
    sp__save_begin(s, "Trilu", "");
    sp__save_in(s, x), sp__save_in(s, at);
    sp__save_attr_int(s, "upper", n->op == SP_OP_TRIU);
    sp__save_end(s, out);
    if (truth) emit1(s, "Identity", sp__save_cast(s, out, SP_INT64, SP_BOOL), result(s, n));
    return SP_OK;
}

/* ---- indexing ---- */

static sp_status save_gather(sp_saver *s, const sp_ir_node *n)
{
    int rank = type_of(s, n->in[0])->rank;
    if (rank == 0) return save_identity(s, n);
    emit_gather(s, "GatherElements", input(s, n, 0), input(s, n, 1), dim_of(n, "dim", rank),
                result(s, n));
    return SP_OK;
}

static sp_status save_index_select(sp_saver *s, const sp_ir_node *n)
{
    int rank = type_of(s, n->in[0])->rank;
    sp_name index = input(s, n, 1);
    if (rank == 0) return save_identity(s, n);
    if (type_of(s, n->in[1])->rank == 0) index = reshaped(s, index, &(int64_t){1}, 1);
    emit_gather(s, "Gather", input(s, n, 0), index, dim_of(n, "dim", rank), result(s, n));
    return SP_OK;
}

static void emit_scatter_add(sp_saver *s, const sp_ir_node *n, sp_name index, sp_name src,
                             int64_t axis)
{
    sp__save_begin(s, "ScatterElements", "");
    sp__save_in(s, input(s, n, 0)), sp__save_in(s, index), sp__save_in(s, src);
    sp__save_attr_int(s, "axis", axis);
    sp__save_attr_text(s, "reduction", "add");
    sp__save_end(s, result(s, n));
}

static sp_status save_scatter_add(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *x = type_of(s, n->in[0]), *index = type_of(s, n->in[1]),
                  *src = type_of(s, n->in[2]);
    for (int d = 0; d < index->rank; d++)
        if (index->shape[d] != src->shape[d])
            return unsupported(n, "index and src differ in shape: slice src first");
    if (x->rank == 0) return unsupported(n, "tensors without dimensions");
    emit_scatter_add(s, n, input(s, n, 1), input_as(s, n, 2, x->dtype), dim_of(n, "dim", x->rank));
    return SP_OK;
}

/* index runs along dim alone: spread over the others it is scatter_add. */
static sp_status save_index_add(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *x = type_of(s, n->in[0]), *src = type_of(s, n->in[2]);
    const sp_attr *alpha = attr(n, "alpha");
    int64_t axis = dim_of(n, "dim", x->rank), shape[SP_MAX_RANK];
    if (x->rank == 0) return unsupported(n, "tensors without dimensions");
    for (int d = 0; d < x->rank; d++) shape[d] = d == axis ? src->shape[d] : 1;
    sp_name index = reshaped(s, input(s, n, 1), shape, x->rank),
            values = input_as(s, n, 2, x->dtype);
    index = temp2(s, "Expand", index, sp__save_const_ints(s, src->shape, src->rank));
    if (!scalar_is(alpha, 1))
        values =
            temp2(s, "Mul", values, sp__save_const_scalar(s, sp__attr_to_scalar(alpha), x->dtype));
    emit_scatter_add(s, n, index, values, axis);
    return SP_OK;
}

/* ---- tensors joined ---- */

/* x with a dimension of size 1 at `dim`. */
static sp_name with_dim(sp_saver *s, sp_name x, const sp_meta *m, int64_t dim)
{
    int64_t shape[SP_MAX_RANK];
    for (int d = 0; d <= m->rank; d++) shape[d] = d == dim ? 1 : m->shape[d < dim ? d : d - 1];
    return reshaped(s, x, shape, m->rank + 1);
}

/* Concat of the inputs, which were given a new dimension before if `stacked`. */
static sp_status save_joined(sp_saver *s, const sp_ir_node *n, bool stacked)
{
    const sp_meta *y = result_type(s, n);
    int64_t dim = dim_of(n, "dim", y->rank);
    size_t bytes = (size_t)n->n_in * sizeof(sp_name);
    sp_name *names = sp__alloc(bytes);
    int count = 0;
    if (!names) return sp_fail(SP_EMEMORY, "onnx.save: no memory for %d inputs", n->n_in);
    for (int i = 0; i < n->n_in; i++) {
        const sp_meta *x = type_of(s, n->in[i]);
        if (!stacked && x->rank != y->rank) continue; /* cat leaves (0,) out */
        sp_name in = input_as(s, n, i, y->dtype);
        names[count++] = stacked ? with_dim(s, in, x, dim) : in;
    }
    sp__save_begin(s, "Concat", "");
    for (int i = 0; i < count; i++) sp__save_in(s, names[i]);
    sp__save_attr_int(s, "axis", dim);
    sp__save_end(s, result(s, n));
    sp__free(names, bytes);
    return SP_OK;
}

static sp_status save_cat(sp_saver *s, const sp_ir_node *n)
{
    return save_joined(s, n, false);
}

static sp_status save_stack(sp_saver *s, const sp_ir_node *n)
{
    return save_joined(s, n, true);
}

/* ---- which ops ---- */

const sp_save_row sp__save_rows_shapes[] = {
    {"view", save_reshape},
    {"reshape", save_reshape},
    {"unsqueeze", save_reshape},
    {"squeeze", save_reshape},
    {"transpose", save_transpose},
    {"permute", save_permute},
    {"expand", save_expand},
    {"slice", save_slice},
    {"select", save_select},
    {"as_strided", save_as_strided},
    {"as_strided_scatter", save_as_strided_scatter},
    {"slice_scatter", save_slice_scatter},
    {"select_scatter", save_select_scatter},
    {"gather", save_gather},
    {"scatter_add", save_scatter_add},
    {"index_select", save_index_select},
    {"index_add", save_index_add},
    {"tril", save_triangle},
    {"triu", save_triangle},
    {"cat", save_cat},
    {"stack", save_stack},
    {NULL, NULL},
};
