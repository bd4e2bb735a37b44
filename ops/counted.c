/* Results whose size depends on values: what is counted is read, the rest is made of other ops. */
#include <math.h>

#include "ops/attr.h"
#include "ops/index.h"
#include "ops/infer.h"
#include "ops_gen.h"
#include "tensor/memory.h"

/* ---- nonzero ----- */

/* Ascending positions in a shape of one dimension or more, as rows of coordinates. */
static void list_coordinates(const sp_tensor *x, const int64_t *places, int64_t n, int64_t *rows)
{
    int last = x->rank - 1;
    int64_t at[SP_MAX_RANK] = {0}, start = 0, width = x->shape[last]; /* of the current line */
    for (int64_t i = 0; i < n; i++, rows += x->rank) {
        for (; places[i] - start >= width; start += width)
            for (int d = last - 1; d >= 0 && ++at[d] == x->shape[d]; d--) at[d] = 0;
        for (int d = 0; d < last; d++) rows[d] = at[d];
        rows[last] = places[i] - start;
    }
}

sp_status sp__body_nonzero(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    int64_t *places = NULL, *rows = NULL, n = 0, shape[2];
    size_t room = 0;
    sp_tensor *some = NULL, *line = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp__check_readable(sp__op_name(c), x, "use where() and masks in place of places"));
    SP_TRY(sp_ne_scalar(x, SP_INT(0), &some));
    SP_TRY(sp_reshape(some, &some->numel, 1, &line));
    SP_TRY(sp__mask_list(line, &places, &n));
    shape[0] = n, shape[1] = x->rank, room = (size_t)(n * x->rank) * sizeof *rows;
    rows = sp__alloc(room);
    if (!rows)
        SP_TRY(sp_fail(SP_EMEMORY, "%s: no memory for %lld places", sp__op_name(c), (long long)n));
    if (x->rank > 0) list_coordinates(x, places, n, rows);
    SP_TRY(sp_from_data(rows, SP_INT64, 2, shape, &c->out[0]));
out:
    if (places) sp__free(places, (size_t)n * sizeof *places);
    if (rows) sp__free(rows, room);
    sp_drop(&some), sp_drop(&line);
    return status;
}

/* ---- unique ----- */

typedef struct distinct {
    const char *op;
    sp_tensor *rows;   /* elements (n), or slices (n, m), equal ones side by side; owned */
    sp_tensor *order;  /* where they stood; NULL: where they are; owned */
    sp_tensor *starts; /* bool (n): whether a row differs from the one before; owned */
    sp_tensor *places; /* where it does; owned */
} distinct;

static void drop_distinct(distinct *u)
{
    sp_drop(&u->rows), sp_drop(&u->order), sp_drop(&u->starts), sp_drop(&u->places);
}

/* rows[1:] differ from rows[:-1], slices where any element does. */
static sp_status differences(const sp_tensor *rows, sp_tensor **out)
{
    const int64_t last = 1, n = rows->shape[0];
    sp_tensor *a = NULL, *b = NULL, *each = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_slice(rows, 0, 1, n, NULL, &a));
    SP_TRY(sp_slice(rows, 0, 0, n - 1, NULL, &b));
    SP_TRY(sp_ne(a, b, &each));
    if (rows->rank == 1)
        *out = each, each = NULL;
    else
        SP_TRY(
            sp_any(each, &(sp_any_opt){.size = sizeof(sp_any_opt), .dim = &last, .n_dim = 1}, out));
out:
    sp_drop(&a), sp_drop(&b), sp_drop(&each);
    return status;
}

static sp_status find_starts(distinct *u)
{
    const int64_t n = u->rows->shape[0], one = n > 0;
    sp_tensor *parts[2] = {NULL};
    sp_status status = SP_OK;
    SP_TRY(sp_full(&one, 1, (sp_scalar){.v.i = 1, .kind = SP_BOOL}, NULL, &parts[0]));
    if (n > 1) {
        SP_TRY(differences(u->rows, &parts[1]));
        SP_TRY(sp_cat((const sp_tensor *const *)parts, 2, NULL, &u->starts));
    } else {
        u->starts = sp__retain(parts[0]);
    }
    SP_TRY(sp__mask_places(u->starts, &u->places));
out:
    sp_drop(&parts[0]), sp_drop(&parts[1]);
    return status;
}

/* The number of the run that each row belongs to, at the place where the row stood. */
static sp_status inverse_of(const distinct *u, sp_tensor **out)
{
    sp_tensor *count = NULL, *number = NULL, *blank = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_cumsum(u->starts, 0, NULL, &count));
    SP_TRY(sp_sub_scalar(count, SP_INT(1), &number));
    if (u->order) {
        SP_TRY(sp_empty(
            &number->numel, 1,
            &(sp_empty_opt){.size = sizeof(sp_empty_opt), .has_dtype = true, .dtype = SP_INT64},
            &blank));
        SP_TRY(sp_index_copy(blank, 0, u->order, number, out));
    } else {
        *out = number, number = NULL;
    }
out:
    sp_drop(&count), sp_drop(&number), sp_drop(&blank);
    return status;
}

/* How long each run is: to the next one's place, or the end. */
static sp_status lengths_of(const distinct *u, sp_tensor **out)
{
    const int64_t runs = u->places->numel, one = runs > 0;
    sp_tensor *parts[2] = {NULL}, *ends = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_slice(u->places, 0, one, runs, NULL, &parts[0]));
    SP_TRY(sp_full(&one, 1, SP_INT(u->rows->shape[0]), NULL, &parts[1]));
    SP_TRY(sp_cat((const sp_tensor *const *)parts, 2, NULL, &ends));
    SP_TRY(sp_sub(ends, u->places, out));
out:
    sp_drop(&parts[0]), sp_drop(&parts[1]), sp_drop(&ends);
    return status;
}

/* x as rows: its elements, or its slices along dim, each made a vector. */
static sp_status rows_of(const sp_call *c, const sp_attr *dim, int *d, sp_tensor **out)
{
    const sp_tensor *x = c->in[0];
    int64_t shape[2];
    sp_tensor *moved = NULL;
    *d = 0;
    if (dim->absent) return sp_reshape(x, &x->numel, 1, out);
    SP_RETURN_IF(sp__check_has_dims(c, x));
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), dim->v.i, x->rank, d));
    SP_RETURN_IF(sp_movedim(x, (int64_t[]){*d}, 1, (int64_t[]){0}, 1, &moved));
    shape[0] = moved->shape[0], shape[1] = 1;
    for (int i = 1; i < moved->rank; i++) shape[1] *= moved->shape[i];
    sp_status status = sp_reshape(moved, shape, 2, out);
    sp_drop(&moved);
    return status;
}

/* Rows as slices along dimension d of x again. */
static sp_status slices_of(const sp_tensor *x, const sp_tensor *rows, int d, sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK] = {rows->shape[0]};
    sp_tensor *apart = NULL;
    for (int i = 0, at = 1; i < x->rank; i++)
        if (i != d) shape[at++] = x->shape[i];
    SP_RETURN_IF(sp_reshape(rows, shape, x->rank, &apart));
    sp_status status = sp_movedim(apart, (int64_t[]){0}, 1, (int64_t[]){d}, 1, out);
    sp_drop(&apart);
    return status;
}

static sp_status nothing(sp_tensor **out)
{
    return sp_from_data(NULL, SP_INT64, 1, (int64_t[]){0}, out);
}

/* Equal rows side by side. */
static sp_status sort_rows(distinct *u)
{
    sp_tensor *sorted = NULL;
    if (u->rows->rank == 1) {
        const sp_sort_opt opt = {.size = sizeof opt, .has_dim = true, .dim = 0};
        SP_RETURN_IF(sp_sort(u->rows, &opt, &sorted, &u->order));
    } else {
        SP_RETURN_IF(sp_argsort_rows(u->rows, &u->order));
        SP_RETURN_IF(sp_index_select(u->rows, 0, u->order, &sorted));
    }
    sp_drop(&u->rows);
    u->rows = sorted;
    return SP_OK;
}

/* attr: return_inverse, return_counts, dim */
static sp_status unique_of(sp_call *c, const sp_attr *attr, bool sorted)
{
    const sp_tensor *x = c->in[0];
    bool slices = !attr[2].absent;
    distinct u = {.op = sp__op_name(c)};
    sp_tensor *kept = NULL, *inverse = NULL;
    int d;
    sp_status status = SP_OK;
    SP_TRY(sp__check_readable(u.op, x, "use sort(), which keeps the size"));
    SP_TRY(rows_of(c, &attr[2], &d, &u.rows));
    if (sorted) SP_TRY(sort_rows(&u));
    SP_TRY(find_starts(&u));
    SP_TRY(sp_index_select(u.rows, 0, u.places, &kept));
    if (attr[0].v.i) {
        SP_TRY(inverse_of(&u, &inverse));
        if (slices)
            c->out[1] = inverse, inverse = NULL;
        else
            SP_TRY(sp_reshape(inverse, x->shape, x->rank, &c->out[1]));
    } else {
        SP_TRY(nothing(&c->out[1]));
    }
    SP_TRY(attr[1].v.i ? lengths_of(&u, &c->out[2]) : nothing(&c->out[2]));
    if (slices)
        SP_TRY(slices_of(x, kept, d, &c->out[0]));
    else
        c->out[0] = kept, kept = NULL;
out:
    if (status != SP_OK)
        for (int i = 0; i < 3; i++) sp_drop(&c->out[i]);
    sp_drop(&kept), sp_drop(&inverse);
    drop_distinct(&u);
    return status;
}

sp_status sp__body_unique(sp_call *c)
{
    return unique_of(c, &c->attr[SP_UNIQUE_RETURN_INVERSE], true);
}

sp_status sp__body_unique_consecutive(sp_call *c)
{
    return unique_of(c, &c->attr[SP_UNIQUE_CONSECUTIVE_RETURN_INVERSE], false);
}

sp_status sp__infer_argsort_rows(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    if (x->rank < 2)
        return sp_fail(SP_ESHAPE, "%s: x has shape %s, expected two dimensions or more",
                       sp__op_name(c), SP_SHAPE(x));
    out->rank = x->rank - 1;
    memcpy(out->shape, x->shape, sizeof *x->shape * (size_t)out->rank);
    return sp__infer_dense(c, SP_INT64, x->device, out);
}

/* ---- counting ----- */

/* The value of an op's result, which it takes. */
static sp_status take_number(sp_tensor *t, double *out)
{
    sp_scalar value = SP_INT(0);
    sp_status status = sp__read_number(t, &value);
    sp_drop(&t);
    *out = value.kind == SP_FLOAT64 ? value.v.f : (double)value.v.i;
    return status;
}

static sp_status least_and_largest(const sp_call *c, const sp_tensor *x, const char *instead,
                                   double *least, double *largest)
{
    sp_tensor *t = NULL;
    SP_RETURN_IF(sp__check_readable(sp__op_name(c), x, instead));
    SP_RETURN_IF(sp_amin(x, NULL, &t));
    SP_RETURN_IF(take_number(t, least));
    SP_RETURN_IF(sp_amax(x, NULL, &t));
    return take_number(t, largest);
}

static sp_status check_bincount(const sp_call *c)
{
    const sp_tensor *x = c->in[0], *weights = c->in[1];
    SP_RETURN_IF(sp__check_index_dtype(c, x, "x"));
    if (x->rank != 1 || (weights && !sp__same_shape(x, weights)))
        return sp_fail(SP_ESHAPE, "%s: x has shape %s%s%s; expected one dimension%s",
                       sp__op_name(c), SP_SHAPE(x), weights ? " and weights " : "",
                       weights ? SP_SHAPE(weights) : "", weights ? ", the same for both" : "");
    if (c->attr[SP_BINCOUNT_MINLENGTH].v.i >= 0) return SP_OK;
    return sp_fail(SP_EVALUE, "%s: minlength is %lld, expected 0 or more", sp__op_name(c),
                   (long long)c->attr[SP_BINCOUNT_MINLENGTH].v.i);
}

/* out[index[i]] += weights[i], from n zeros: one of them, seen n times. */
static sp_status add_up(const sp_tensor *index, const sp_tensor *weights, int64_t n,
                        sp_tensor **out)
{
    const sp_full_opt opt = {
        .size = sizeof opt, .has_dtype = true, .dtype = (sp_dtype)weights->dtype};
    sp_tensor *zero = NULL, *zeros = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_full(NULL, 0, SP_INT(0), &opt, &zero));
    SP_TRY(sp_expand(zero, &n, 1, &zeros));
    SP_TRY(sp_scatter_add(zeros, 0, index, weights, out));
out:
    sp_drop(&zero), sp_drop(&zeros);
    return status;
}

sp_status sp__infer_count_classes(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    int64_t classes = c->attr[SP_COUNT_CLASSES_NUM_CLASSES].v.i;
    SP_RETURN_IF(sp__check_index_dtype(c, x, "x"));
    if (x->rank != 1)
        return sp_fail(SP_ESHAPE, "%s: x has shape %s, expected one dimension", sp__op_name(c),
                       SP_SHAPE(x));
    if (classes < 0)
        return sp_fail(SP_EVALUE, "%s: num_classes is %lld, expected 0 or more", sp__op_name(c),
                       (long long)classes);
    out->rank = 1, out->shape[0] = classes;
    return sp__infer_dense(c, SP_INT64, x->device, out);
}

sp_status sp__body_count_classes(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    sp_tensor *one = NULL, *ones = NULL;
    sp_meta meta;
    sp_status status = SP_OK;
    SP_TRY(sp__infer_count_classes(c, &meta)); /* for errors in terms of this op */
    SP_TRY(sp_full(NULL, 0, SP_INT(1), NULL, &one));
    SP_TRY(sp_expand(one, &x->numel, 1, &ones));
    SP_TRY(add_up(x, ones, c->attr[SP_COUNT_CLASSES_NUM_CLASSES].v.i, &c->out[0]));
out:
    sp_drop(&one), sp_drop(&ones);
    return status;
}

sp_status sp__body_bincount(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    int64_t n = c->attr[SP_BINCOUNT_MINLENGTH].v.i;
    double least = 0, largest = -1;
    sp_tensor *weights = NULL;
    SP_RETURN_IF(check_bincount(c));
    if (x->numel > 0)
        SP_RETURN_IF(least_and_largest(c, x, "use one_hot(x, n).sum(0)", &least, &largest));
    if (least < 0 || largest > 0x1p52)
        return sp_fail(SP_EVALUE, "%s: x holds %.0f, expected numbers from 0 on, not too large",
                       sp__op_name(c), least < 0 ? least : largest);
    if (n <= (int64_t)largest) n = (int64_t)largest + 1;
    if (!c->in[1]) return sp_count_classes(x, n, &c->out[0]);
    SP_RETURN_IF(
        sp_cast(c->in[1], c->in[1]->dtype == SP_FLOAT32 ? SP_FLOAT32 : SP_FLOAT64, &weights));
    sp_status status = add_up(x, weights, n, &c->out[0]);
    sp_drop(&weights);
    return status;
}

static sp_status histogram_ends(const sp_call *c, double *low, double *high)
{
    const sp_attr *min = &c->attr[SP_HISTC_MIN], *max = &c->attr[SP_HISTC_MAX];
    *low = min->tag == SP_FLOAT64 ? min->v.f : (double)min->v.i;
    *high = max->tag == SP_FLOAT64 ? max->v.f : (double)max->v.i;
    if (*low == *high && c->in[0]->numel > 0)
        SP_RETURN_IF(least_and_largest(c, c->in[0], "give min and max", low, high));
    if (*low == *high) *low -= 1, *high += 1;
    if (*low < *high && isfinite(*low) && isfinite(*high)) return SP_OK;
    return sp_fail(SP_EVALUE, "%s: from %g to %g, expected finite numbers in ascending order",
                   sp__op_name(c), *low, *high);
}

sp_status sp__body_histc(sp_call *c)
{
    int64_t bins = c->attr[SP_HISTC_BINS].v.i;
    double low, high;
    sp_tensor *x = NULL, *above = NULL, *below = NULL, *inside = NULL, *shifted = NULL,
              *part = NULL, *scaled = NULL, *at = NULL, *whole = NULL, *place = NULL,
              *weights = NULL;
    sp_status status = SP_OK;
    SP_RETURN_IF(sp__check_floating(c, c->in[0], "x"));
    if (bins < 1)
        return sp_fail(SP_EVALUE, "%s: %lld bins, expected 1 or more", sp__op_name(c),
                       (long long)bins);
    SP_RETURN_IF(histogram_ends(c, &low, &high));
    SP_TRY(sp_reshape(c->in[0], &c->in[0]->numel, 1, &x));
    SP_TRY(sp_ge_scalar(x, SP_FLOAT(low), &above));
    SP_TRY(sp_le_scalar(x, SP_FLOAT(high), &below));
    SP_TRY(sp_logical_and(above, below, &inside));
    SP_TRY(sp_sub_scalar(x, SP_FLOAT(low), &shifted));
    SP_TRY(sp_div_scalar(shifted, SP_FLOAT(high - low), &part));
    SP_TRY(sp_mul_scalar(part, SP_INT(bins), &scaled));
    SP_TRY(sp_where_scalar(inside, scaled, SP_INT(0), &at));
    SP_TRY(sp_cast(at, SP_INT64, &whole));
    SP_TRY(sp_clamp_max_scalar(whole, SP_INT(bins - 1), &place));
    SP_TRY(sp_cast(inside, (sp_dtype)x->dtype, &weights));
    SP_TRY(add_up(place, weights, bins, &c->out[0]));
out:
    sp_drop(&x), sp_drop(&above), sp_drop(&below), sp_drop(&inside), sp_drop(&shifted),
        sp_drop(&part), sp_drop(&scaled), sp_drop(&at), sp_drop(&whole), sp_drop(&place),
        sp_drop(&weights);
    return status;
}

/* ---- repeat_interleave ----- */

/* x itself and the dimension, or x as a vector. */
static sp_status repeated_dim(const sp_call *c, const sp_attr *dim, int *d, sp_tensor **out)
{
    const sp_tensor *x = c->in[0];
    *d = 0;
    if (dim->absent || x->rank == 0) return sp_reshape(x, &x->numel, 1, out);
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), dim->v.i, x->rank, d));
    *out = sp__retain(x);
    return SP_OK;
}

static sp_status check_output_size(const sp_call *c, const sp_attr *given, int64_t size)
{
    if (given->absent || given->v.i == size) return SP_OK;
    return sp_fail(SP_EVALUE, "%s: output_size is %lld, but the repeats sum to %lld",
                   sp__op_name(c), (long long)given->v.i, (long long)size);
}

sp_status sp__body_repeat_interleave(sp_call *c)
{
    int64_t repeats = c->attr[SP_REPEAT_INTERLEAVE_REPEATS].v.i, shape[SP_MAX_RANK + 1];
    sp_tensor *x = NULL, *apart = NULL, *wide = NULL;
    int d;
    sp_status status = SP_OK;
    if (repeats < 0)
        return sp_fail(SP_EVALUE, "%s: %lld repeats, expected 0 or more", sp__op_name(c),
                       (long long)repeats);
    SP_TRY(repeated_dim(c, &c->attr[SP_REPEAT_INTERLEAVE_DIM], &d, &x));
    int64_t size = x->shape[d] * repeats;
    SP_TRY(check_output_size(c, &c->attr[SP_REPEAT_INTERLEAVE_OUTPUT_SIZE], size));
    if (repeats == 0) {
        SP_TRY(sp_slice(x, d, 0, 0, NULL, &c->out[0]));
        goto out;
    }
    SP_TRY(sp_unsqueeze(x, d + 1, &apart));
    for (int i = 0; i < apart->rank; i++) shape[i] = i == d + 1 ? repeats : apart->shape[i];
    SP_TRY(sp_expand(apart, shape, apart->rank, &wide));
    for (int i = 0; i < x->rank; i++) shape[i] = i == d ? size : x->shape[i];
    SP_TRY(sp_reshape(wide, shape, x->rank, &c->out[0]));
out:
    sp_drop(&x), sp_drop(&apart), sp_drop(&wide);
    return status;
}

/* As many of each position as `repeats` says, in order. */
static sp_status positions(const sp_call *c, const sp_tensor *repeats, const sp_attr *output_size,
                           sp_tensor **out)
{
    const sp_searchsorted_opt right = {.size = sizeof right, .right = true};
    double least = 0, largest = 0, total = 0;
    sp_tensor *sums = NULL, *sum = NULL, *numbers = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_cumsum(repeats, 0, NULL, &sums));
    if (!output_size->absent) {
        total = (double)output_size->v.i;
    } else if (repeats->numel > 0) {
        SP_TRY(least_and_largest(c, repeats, "give output_size", &least, &largest));
        SP_TRY(sp_sum(repeats, NULL, &sum));
        SP_TRY(take_number(sp__retain(sum), &total));
    }
    if (least < 0 || total < 0)
        SP_TRY(sp_fail(SP_EVALUE, "%s: %.0f repeats, expected 0 or more", sp__op_name(c),
                       least < 0 ? least : total));
    SP_TRY(sp_arange(SP_INT(0), SP_INT((int64_t)total), NULL, &numbers));
    SP_TRY(sp_searchsorted(sums, numbers, &right, out));
out:
    sp_drop(&sums), sp_drop(&sum), sp_drop(&numbers);
    return status;
}

static sp_status check_repeats(const sp_call *c, const sp_tensor *repeats, int64_t n)
{
    SP_RETURN_IF(sp__check_index_dtype(c, repeats, "repeats"));
    if (repeats->rank <= 1 && (n < 0 || repeats->numel == 1 || repeats->numel == n)) return SP_OK;
    return sp_fail(SP_ESHAPE, "%s: repeats has shape %s, expected one dimension%s", sp__op_name(c),
                   SP_SHAPE(repeats), n < 0 ? "" : " with one number for each element");
}

sp_status sp__body_repeat_interleave_counts(sp_call *c)
{
    sp_tensor *line = NULL;
    SP_RETURN_IF(check_repeats(c, c->in[0], -1));
    SP_RETURN_IF(sp_reshape(c->in[0], &c->in[0]->numel, 1, &line));
    sp_status status = positions(c, line, &c->attr[0], &c->out[0]);
    sp_drop(&line);
    return status;
}

sp_status sp__body_repeat_interleave_each(sp_call *c)
{
    sp_tensor *x = NULL, *line = NULL, *each = NULL, *index = NULL;
    int d;
    sp_status status = SP_OK;
    SP_TRY(repeated_dim(c, &c->attr[SP_REPEAT_INTERLEAVE_EACH_DIM], &d, &x));
    SP_TRY(check_repeats(c, c->in[1], x->shape[d]));
    SP_TRY(sp_reshape(c->in[1], &c->in[1]->numel, 1, &line));
    SP_TRY(sp_expand(line, &x->shape[d], 1, &each));
    SP_TRY(positions(c, each, &c->attr[SP_REPEAT_INTERLEAVE_EACH_OUTPUT_SIZE], &index));
    SP_TRY(sp_index_select(x, d, index, &c->out[0]));
out:
    sp_drop(&x), sp_drop(&line), sp_drop(&each), sp_drop(&index);
    return status;
}
