/* From instructions over registers to steps over values: conversions made explicit, slots assigned
 * by lifetime.
 */
#include <string.h>

#include "backends/cpu/strided.h"
#include "backends/cpu/tile_int.h"
#include "ops/op.h"
#include "ops_gen.h"
#include "tensor/memory.h"

static bool is_cast(const sp_lanes *l)
{
    return l == sp__isa->pointwise[SP_OP_CAST];
}

bool sp__tile_can(int op, sp_dtype compute)
{
    if (op < 0 || op >= SP_OP_COUNT) return false;
    const sp_lanes *l = sp__lanes_of(op, compute);
    return l != NULL && (is_cast(l) || l->fn[compute] != NULL);
}

/* ---- steps ----- */

static int dtype_of(const sp_tile_prog *p, int value)
{
    return value < p->n_in ? p->in_dtype[value] : p->step[value - p->n_in].dtype;
}

static int add_step(sp_tile_prog *p, const sp_tile_step *step)
{
    p->step[p->n_step] = *step;
    if (sp__size_of(step->dtype) > p->width) p->width = (uint8_t)sp__size_of(step->dtype);
    return p->n_in + p->n_step++;
}

/* The value in the dtype: itself, an earlier conversion, or a new step. */
static int converted(sp_tile_prog *p, int value, int dtype)
{
    int from = dtype_of(p, value);
    if (from == dtype) return value;
    for (int i = 0; i < p->n_step; i++) {
        if (p->step[i].convert_from == value && p->step[i].dtype == dtype) return p->n_in + i;
    }
    p->ns += 0.15f;
    return add_step(p, &(sp_tile_step){.fn = sp__isa->cast[from][dtype],
                                       .src = {(int16_t)value, 0, 0},
                                       .n_src = 1,
                                       .dtype = (uint8_t)dtype,
                                       .convert_from = (int16_t)value});
}

static int add_number(sp_tile_prog *p, int scalar, int dtype)
{
    p->number[p->n_number] = (sp_tile_number){(int16_t)scalar, (uint8_t)dtype};
    return -1 - p->n_number++;
}

/* Appends an instruction's steps; its result's value. value_of[] maps registers to values. */
static sp_status add_instr(sp_tile_prog *p, const sp_tile_instr *instr, const int16_t *value_of,
                           int *out)
{
    const sp_lanes *l = instr->op < SP_OP_COUNT ? sp__lanes_of(instr->op, instr->compute) : NULL;
    if (l == NULL || !sp__tile_can(instr->op, instr->compute)) {
        return sp_fail(SP_EUNSUPPORTED, "%s: no pointwise kernel computes in %s",
                       instr->op < SP_OP_COUNT ? sp_op_table[instr->op].name : "?",
                       sp_dtype_name(instr->compute));
    }
    if (is_cast(l)) {
        *out = converted(p, value_of[instr->src[0]], instr->result);
        return SP_OK;
    }
    sp_tile_step step = {.fn = l->fn[instr->compute], .n_src = l->n_operands, .convert_from = -1};
    for (int k = 0; k < l->n_operands; k++) {
        int from = l->order[k], dtype = sp__lanes_take(l, k, instr->compute);
        if (from >= SP_LANE_SCALAR0)
            step.src[k] = (int16_t)add_number(p, instr->scalar[from - SP_LANE_SCALAR0], dtype);
        else
            step.src[k] = (int16_t)converted(p, value_of[instr->src[from]], dtype);
    }
    step.dtype = (uint8_t)sp__lanes_yield(l, instr->compute);
    p->ns += l->ns * (sp__size_of(instr->compute) > 4 ? 2.0f : 1.0f);
    *out = converted(p, add_step(p, &step), instr->result);
    return SP_OK;
}

/* ---- slots ----- */

/* last[v]: the last step that reads value v; n_step for outputs. */
static void find_last_uses(const sp_tile_prog *p, int16_t *last)
{
    for (int v = 0; v < p->n_in + p->n_step; v++) last[v] = -1;
    for (int i = 0; i < p->n_step; i++) {
        for (int k = 0; k < p->step[i].n_src; k++) {
            if (p->step[i].src[k] >= 0) last[p->step[i].src[k]] = (int16_t)i;
        }
    }
    for (int k = 0; k < p->n_out; k++) last[p->out[k].value] = p->n_step;
}

static sp_status assign_slots(sp_tile_prog *p, const int16_t *last)
{
    int16_t slot_free_at[SP_TILE_MAX_LIVE]; /* the step after which the slot's value is dead */
    for (int i = 0; i < p->n_step; i++) {
        int slot = 0;
        while (slot < p->n_slot && slot_free_at[slot] >= i) slot++;
        if (slot == SP_TILE_MAX_LIVE) {
            return sp_fail(SP_EUNSUPPORTED, "tile program: more than %d values alive at once",
                           SP_TILE_MAX_LIVE);
        }
        if (slot == p->n_slot) p->n_slot++;
        p->step[i].slot = (int16_t)slot;
        slot_free_at[slot] = last[p->n_in + i] > i ? last[p->n_in + i] : (int16_t)i;
    }
    return SP_OK;
}

static void classify_outputs(sp_tile_prog *p, const int16_t *last)
{
    int last_input_use = -1;
    for (int v = 0; v < p->n_in; v++)
        last_input_use = last[v] > last_input_use ? last[v] : last_input_use;
    for (int k = 0; k < p->n_out; k++) {
        sp_tile_output *out = &p->out[k];
        out->first = out->value >= p->n_in;
        for (int j = 0; j < k; j++) out->first = out->first && p->out[j].value != out->value;
        out->inputs_after = last_input_use > out->value - p->n_in;
    }
}

sp_status sp__tile_compile(const sp_tile_source *source, sp_tile_prog *p)
{
    int16_t value_of[SP_TILE_MAX_VALUES], last[SP_TILE_MAX_VALUES];
    p->n_step = p->n_number = p->n_slot = 0, p->ns = 0, p->width = 1;
    p->n_in = (int16_t)source->n_in, p->n_out = (int16_t)source->n_out;
    if (source->n_in > 0) memcpy(p->in_dtype, source->in_dtype, (size_t)source->n_in);
    for (int v = 0; v < p->n_in; v++) {
        value_of[v] = (int16_t)v;
        if (sp__size_of(p->in_dtype[v]) > p->width) p->width = (uint8_t)sp__size_of(p->in_dtype[v]);
    }
    for (int i = 0; i < source->n_instr; i++) {
        int value = 0;
        SP_RETURN_IF(add_instr(p, &source->instr[i], value_of, &value));
        value_of[source->n_in + i] = (int16_t)value;
    }
    for (int k = 0; k < p->n_out; k++) p->out[k].value = value_of[source->out_reg[k]];
    find_last_uses(p, last);
    for (int v = 0; v < p->n_in; v++) p->in_used[v] = last[v] >= 0;
    classify_outputs(p, last);
    return assign_slots(p, last);
}

/* ---- programs that live ----- */

sp_status sp__tile_build(const sp_tile_instr *instr, int n_instr, const uint8_t *in_dtype, int n_in,
                         const int16_t *out_reg, int n_out, sp_tile_prog **out)
{
    *out = NULL;
    int max_steps = n_instr * SP_TILE_STEPS_AN_INSTR, max_numbers = n_instr * 3;
    if (n_in + max_steps > SP_TILE_MAX_VALUES || max_numbers > 3 * SP_TILE_MAX_NUMBERS ||
        n_in + SP_TILE_MAX_LIVE / 2 > SP_TILE_MAX_SLOTS) {
        return sp_fail(SP_EUNSUPPORTED, "tile program: %d instructions and %d inputs are too many",
                       n_instr, n_in);
    }
    size_t steps = sizeof(sp_tile_step) * (size_t)max_steps,
           numbers = sizeof(sp_tile_number) * (size_t)max_numbers;
    size_t outs = sizeof(sp_tile_output) * (size_t)n_out;
    size_t bytes = sizeof(sp_tile_prog) + steps + numbers + outs + 2 * (size_t)n_in;
    sp_tile_prog *p = sp__alloc_zero(bytes);
    if (p == NULL)
        return sp_fail(SP_EMEMORY, "tile program: no memory for %d instructions", n_instr);
    p->bytes = bytes;
    p->step = (sp_tile_step *)(p + 1);
    p->number = (sp_tile_number *)((char *)p->step + steps);
    p->out = (sp_tile_output *)((char *)p->number + numbers);
    p->in_dtype = (uint8_t *)p->out + outs;
    p->in_used = (bool *)(p->in_dtype + n_in);
    sp_tile_source source = {instr, in_dtype, out_reg, n_instr, n_in, n_out};
    sp_status status = sp__tile_compile(&source, p);
    if (status == SP_OK && p->n_slot + p->n_in + 1 > SP_TILE_MAX_SLOTS) {
        status =
            sp_fail(SP_EUNSUPPORTED, "tile program: %d values alive and %d inputs are too many",
                    p->n_slot, p->n_in);
    }
    if (status == SP_OK && p->n_number > SP_TILE_MAX_NUMBERS) {
        status = sp_fail(SP_EUNSUPPORTED, "tile program: %d numbers are too many", p->n_number);
    }
    if (status != SP_OK) sp__tile_drop(&p);
    *out = p;
    return status;
}

void sp__tile_drop(sp_tile_prog **prog)
{
    if (*prog != NULL) sp__free(*prog, (*prog)->bytes);
    *prog = NULL;
}
