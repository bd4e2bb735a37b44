"""The C interface: option structs and prototypes for spool.h, and the entry points behind them."""

from __future__ import annotations

from optable.ctext import BANNER, comment, paragraphs, wrap_list
from optable.signature import DTYPES

_C_TYPES = {
    "scalar": "sp_scalar",
    "int": "int64_t",
    "float": "double",
    "bool": "bool",
    "dtype": "sp_dtype",
}
DTYPE_CONSTANTS = {
    "bool": "SP_BOOL",
    "uint8": "SP_UINT8",
    "int8": "SP_INT8",
    "int16": "SP_INT16",
    "int32": "SP_INT32",
    "int64": "SP_INT64",
    "float16": "SP_FLOAT16",
    "bfloat16": "SP_BFLOAT16",
    "float32": "SP_FLOAT32",
    "float64": "SP_FLOAT64",
    "complex64": "SP_COMPLEX64",
    "complex128": "SP_COMPLEX128",
}
assert tuple(DTYPE_CONSTANTS) == DTYPES


def c_type(param):
    """C type of a number-like parameter."""
    return f"sp_{param.name}" if param.kind == "choice" else _C_TYPES[param.kind]


def c_constant(param, value):
    """C expression for a default value; lists are handled by the callers."""
    if param.kind == "scalar":
        return f"SP_FLOAT({value!r})" if isinstance(value, float) else f"SP_INT({int(value)})"
    if param.kind == "dtype":
        return DTYPE_CONSTANTS[value]
    if param.kind == "choice":
        return f"SP_{param.name}_{value}".upper()
    return str(value).lower() if param.kind == "bool" else repr(value)


def declare(param):
    """Declarations of a parameter as direct C parameters."""
    if param.kind == "tensor":
        return [f"const sp_tensor *{param.name}"]
    if param.kind == "tensors":
        return [f"const sp_tensor *const *{param.name}", f"int n_{param.name}"]
    if param.kind == "ints":
        return [f"const int64_t *{param.name}", f"int n_{param.name}"]
    return [f"{c_type(param)} {param.name}"]


def direct_params(op):
    return [p for p in op.params if p not in op.options]


def call_params(op, inplace=False, given_out=False):
    """The C parameters of an op's entry point or of a variant of it."""
    decls = [d for p in direct_params(op) for d in declare(p)]
    if inplace:
        decls[0] = decls[0].replace("const ", "", 1)
    if op.options:
        decls.append(f"const sp_{op.c_name}_opt *opt")
    if given_out:
        decls.append("sp_tensor *out")
    elif not inplace:
        decls += [f"sp_tensor **{name}" for name in op.outputs]
    return decls


def _option_struct(op):
    lines = [f"typedef struct sp_{op.c_name}_opt {{", "    size_t size;"]
    for param in op.options:
        if param.kind == "ints":
            default = "None" if param.default is None else str(list(param.default))
            lines += [
                f"    const int64_t *{param.name}; /* NULL: {default} */",
                f"    int n_{param.name};",
            ]
            continue
        if param.zero_is_default:
            lines.append(f"    {c_type(param)} {param.name};")
        else:
            lines += [
                f"    bool has_{param.name}; /* false: {param.default} */",
                f"    {c_type(param)} {param.name};",
            ]
    return "\n".join([*lines, f"}} sp_{op.c_name}_opt;"])


def _documentation(op):
    if op.root is not op and "doc" not in op.keys:
        return comment(
            [op.signature, "", op.doc.split("\n\n")[0], "", f"Like sp_{op.root.c_name}()."]
        )
    terms = list(op.keys.get("args", {}).items())
    terms += [(key, op.keys[key]) for key in ("returns",) if key in op.keys]
    terms += list(op.keys.get("raises", {}).items())
    terms += [(key, op.keys[key]) for key in ("source",) if key in op.keys]
    return comment([op.signature, ""] + paragraphs(op.doc) + ([""] if terms else []) + terms)


def public_header(ops):
    """The text that spool.h.in's mark stands for."""
    parts = []
    choices = {p.name: p.choices for op in ops for p in op.params if p.kind == "choice"}
    for name, values in choices.items():
        constants = ", ".join(f"SP_{name}_{value}".upper() for value in values)
        parts.append(f"typedef enum sp_{name} {{ {constants} }} sp_{name};")
    family = None
    for op in ops:
        if op.family != family:
            family = op.family
            parts.append(f"/* {family} */")
        text = [_documentation(op)]
        if op.options:
            text.append(_option_struct(op))
        head = f"SP_API SP_MUST_USE sp_status sp_{op.c_name}("
        text.append(wrap_list(head, call_params(op) or ["void"], ");"))
        if "inplace" in op.variants:
            text.append(wrap_list(head[:-1] + "_(", call_params(op, inplace=True), ");"))
        if "out" in op.variants:
            text.append(wrap_list(head[:-1] + "_out(", call_params(op, given_out=True), ");"))
        parts.append("\n".join(text))
    return "\n\n".join(parts)


# ---- entry points -------------------------------------------------------------------------------


def _attr_value(op, param):
    """C expression of the attribute that a parameter becomes."""
    maker = {
        "int": "int",
        "float": "float",
        "bool": "bool",
        "scalar": "scalar",
        "dtype": "dtype",
        "choice": "int",
    }
    if param.kind == "ints":
        source = (
            f"o.{param.name}, o.n_{param.name}"
            if param in op.options
            else f"{param.name}, n_{param.name}"
        )
        ints = f"sp__attr_ints({source})"
        if param not in op.options:
            return f"sp__attr_if({param.name} != NULL, {ints})" if param.optional else ints
        if param.default is None:
            return f"sp__attr_if(o.{param.name} != NULL, {ints})"
        values = ", ".join(str(v) for v in param.default)
        static = f"static_{op.c_name}_{param.name}"
        return (
            f"o.{param.name} ? {ints} : sp__attr_ints({static}, {len(param.default)})"
            if values
            else ints
        )
    make = f"sp__attr_{maker[param.kind]}"
    if param not in op.options:
        return f"{make}({param.name})"
    if param.zero_is_default:
        return f"{make}(o.{param.name})"
    if param.default is None:
        return f"sp__attr_if(o.has_{param.name}, {make}(o.{param.name}))"
    return f"{make}(o.has_{param.name} ? o.{param.name} : {c_constant(param, param.default)})"


def _checks(op):
    """Statements that refuse what C callers can get wrong and levels below rely on."""
    lines = []
    label = f'"{op.name}"'
    for param in op.attrs:
        source = f"o.{param.name}" if param in op.options else param.name
        count = f"o.n_{param.name}" if param in op.options else f"n_{param.name}"
        if param.kind == "ints":
            may_be_null = "true" if param.optional or param in op.options else "false"
            lines.append(
                f'SP_RETURN_IF(check_ints({label}, "{param.name}", {source}, {count}, {may_be_null}));'
            )
        elif param.kind in ("dtype", "choice"):
            limit = "SP_DTYPE_COUNT" if param.kind == "dtype" else len(param.choices)
            lines.append(
                f'SP_RETURN_IF(check_enum({label}, "{param.name}", (int)({source}), {limit}));'
            )
    return lines


def _entry(op):
    """The static function that every variant of an op goes through."""
    params = direct_params(op)
    decls = [d for p in params for d in declare(p)]
    if op.options:
        decls.append(f"const sp_{op.c_name}_opt *opt")
    decls += ["unsigned flags", "sp_tensor **result"]
    lines = []
    for param in op.options:
        if param.kind == "ints" and param.default:
            values = ", ".join(str(v) for v in param.default)
            lines.append(f"static const int64_t static_{op.c_name}_{param.name}[] = {{{values}}};")
    lines += [wrap_list(f"static sp_status call_{op.c_name}(", decls, ")"), "{"]
    body = []
    if op.variadic:
        name = op.inputs[0].name
        inputs, n_in = f"(sp_tensor **){name}", f"n_{name}"
    elif op.inputs:
        handles = ", ".join(f"(sp_tensor *){p.name}" for p in op.inputs)
        body.append(f"sp_tensor *in[] = {{{handles}}};")
        inputs, n_in = "in", str(len(op.inputs))
    else:
        inputs, n_in = "NULL", "0"
    if op.options:
        body.append(f"sp_{op.c_name}_opt o;")
    body.append("sp_call c;")
    if op.options:
        body.append(f'SP_RETURN_IF(take_options("{op.name}", opt, &o, sizeof(o)));')
    body += _checks(op)
    needed = (
        "0"
        if op.variadic
        else " | ".join(f"1u << {i}" for i, p in enumerate(op.inputs) if not p.optional) or "0"
    )
    if op.inputs:
        function = "check_list" if op.variadic else "check_given"
        extra = "" if op.variadic else f", {needed}"
        body.append(f"SP_RETURN_IF({function}({op.opcode}, {inputs}, {n_in}{extra}));")
    n_attr = len(op.attrs) + len(op.hidden_attrs)
    body.append(f"begin(&c, {op.opcode}, {inputs}, {n_in}, flags, result);")
    for i, param in enumerate(op.attrs):
        body.append(wrap_list(f"c.attr[{i}] = ", [_attr_value(op, param)], ";"))
    for i in range(len(op.attrs), n_attr):
        body.append(f"c.attr[{i}] = sp__attr_absent(SP_ATTR_INT);")
    body.append("return finish(&c, result);")
    return "\n".join(lines + ["    " + line.replace("\n", "\n    ") for line in body] + ["}"])


def _names(op):
    """The arguments that pass an entry point's parameters on."""
    names = []
    for param in direct_params(op):
        names += (
            [param.name]
            if param.kind not in ("ints", "tensors")
            else [param.name, f"n_{param.name}"]
        )
    return names + (["opt"] if op.options else [])


def _wrapper(op, suffix, decls, flags, body):
    head = wrap_list(f"sp_status sp_{op.c_name}{suffix}(", decls or ["void"], ")")
    call = wrap_list(f"call_{op.c_name}(", [*_names(op), flags, body["result"]], ")")
    lines = [f"    {line}" for line in body.get("before", [])]
    lines.append(
        "    return " + call.replace("\n", "\n    ") + ";"
        if not body.get("after")
        else f"    sp_status status = {call};"
    )
    lines += [f"    {line}" for line in body.get("after", [])]
    return "\n".join([head, "{", *lines, "}"])


def entry_points(ops):
    """The definitions of all sp_<op>() functions."""
    parts = []
    for op in ops:
        parts.append(_entry(op))
        if len(op.outputs) == 1:
            plain = {"before": ["*out = NULL;"], "result": "out"}
        else:
            n = len(op.outputs)
            plain = {
                "before": [f"sp_tensor *results[{n}] = {{NULL}};"],
                "result": "results",
                "after": [f"*{name} = results[{i}];" for i, name in enumerate(op.outputs)]
                + ["return status;"],
            }
        parts.append(_wrapper(op, "", call_params(op), "0", plain))
        first = op.params[0].name if op.params else ""
        if "inplace" in op.variants:
            body = {"result": f"&{first}"}
            parts.append(_wrapper(op, "_", call_params(op, inplace=True), "SP_CALL_INPLACE", body))
        if "out" in op.variants:
            parts.append(
                _wrapper(
                    op, "_out", call_params(op, given_out=True), "SP_CALL_OUT", {"result": "&out"}
                )
            )
    return "\n\n".join(parts)


ENTRY_PRELUDE = f"""/* The op table and the C interface's entry points. {BANNER} */
#include "ops_gen.h"

#include <string.h>

#include "ops/attr.h"
#include "ops/dispatch.h"
#include "ops/op.h"
"""

ENTRY_HELPERS = """/* ---- entry points ----- */

/* An options struct of an older or newer caller: what it lacks is zero, what we do not know is
 * ignored. */
__attribute__((unused)) static sp_status take_options(const char *op, const void *opt, void *o,
                                                      size_t bytes)
{
    size_t size = 0;
    memset(o, 0, bytes);
    if (!opt) return SP_OK;
    memcpy(&size, opt, sizeof(size));
    if (size < sizeof(size))
        return sp_fail(SP_EVALUE, "%s: opt->size is %zu; set it to sizeof(*opt)", op, size);
    memcpy(o, opt, size < bytes ? size : bytes);
    return SP_OK;
}

__attribute__((unused)) static sp_status check_ints(const char *op, const char *arg,
                                                    const int64_t *ints, int n, bool may_be_null)
{
    if (n < 0 || (!ints && n > 0))
        return sp_fail(SP_EVALUE, "%s: %s: %d ints at %p", op, arg, n, (const void *)ints);
    if (!ints && !may_be_null && n != 0) return sp_fail(SP_EVALUE, "%s: %s is NULL", op, arg);
    return SP_OK;
}

__attribute__((unused)) static sp_status check_enum(const char *op, const char *arg, int value,
                                                    int limit)
{
    if (value >= 0 && value < limit) return SP_OK;
    return sp_fail(SP_EVALUE, "%s: %s is %d, expected 0 to %d", op, arg, value, limit - 1);
}

/* Bit i of `needed`: input i must be there. */
static inline sp_status check_given(int op, sp_tensor *const *in, int n, uint32_t needed)
{
    for (int i = 0; i < n; i++) {
        if (SP_UNLIKELY(!in[i] && (needed >> i & 1)))
            return sp_fail(SP_ETYPE, "%s: %s is NULL, expected a tensor", sp_op_table[op].name,
                           sp_op_table[op].in_names[i]);
    }
    return SP_OK;
}

__attribute__((unused)) static sp_status check_list(int op, sp_tensor *const *in, int n)
{
    const char *name = sp_op_table[op].name;
    if (n < 0 || (!in && n > 0)) return sp_fail(SP_EVALUE, "%s: %d tensors at %p", name, n, (const void *)in);
    for (int i = 0; i < n; i++) {
        if (!in[i]) return sp_fail(SP_ETYPE, "%s: tensor %d is NULL", name, i);
    }
    return SP_OK;
}

/* `result` is read for calls that bring their output along. */
static inline void begin(sp_call *c, int op, sp_tensor **in, int n_in, unsigned flags,
                         sp_tensor **result)
{
    const sp_op_info *info = &sp_op_table[op];
    c->op = (uint16_t)op, c->n_out = info->n_out, c->n_attr = info->n_attr;
    c->flags = (uint8_t)flags;
    c->n_in = n_in, c->in = in;
    for (int i = 0; i < info->n_out; i++) c->out[i] = flags ? result[i] : NULL;
}

static inline sp_status finish(sp_call *c, sp_tensor **result)
{
    SP_RETURN_IF(sp__dispatch(c));
    if (!c->flags) memcpy(result, c->out, c->n_out * sizeof(*result));
    return SP_OK;
}
"""
