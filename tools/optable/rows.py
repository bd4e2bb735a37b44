"""The op table in C: opcodes, rows, lookup by name, and the list of kernels a backend must have."""

from __future__ import annotations

from optable.ctext import BANNER, c_string, wrap_list
from optable.table import NO_RULE

_FLAGS = (
    ("pointwise", "POINTWISE"),
    ("view", "VIEW"),
    ("checks", "CHECKS_DATA"),
    ("random", "RANDOM"),
    ("composite", "COMPOSITE"),
    ("rounds_once", "ROUNDS_ONCE"),
    ("complex", "COMPLEX"),
    ("may_view", "MAY_VIEW"),
    ("reduce", "REDUCE"),
    ("linear", "LINEAR"),
    ("effect", "EFFECT"),
    ("updates", "UPDATES"),
)


def header(ops):
    """ops_gen.h: opcodes, attribute indices, the functions that the families provide."""
    lines = [
        f"/* Opcodes and attribute indices. {BANNER} */",
        "#ifndef SP_OPS_GEN_H",
        "#define SP_OPS_GEN_H",
        "",
        '#include "ops/op.h"',
        "",
    ]
    lines.append("enum {")
    lines += [f"    {op.opcode}," for op in ops]
    lines += ["    SP_OP_COUNT", "};", "", "/* Where an attribute stands in sp_call.attr. */"]
    for op in ops:
        names = [
            f"SP_{op.c_name}_{name}".upper()
            for name in [p.name for p in op.attrs] + op.hidden_attrs
        ]
        if names:
            lines.append(wrap_list("enum { ", names, " };"))
    lines += ["", "/* Shape, dtype and device of results: host only, in the family's C file. */"]
    for name in sorted({op.keys["infer"] for op in ops if "infer" in op.keys}):
        lines.append(f"SP_MUST_USE sp_status sp__infer_{name}(const sp_call *c, sp_meta *out);")
    bodies = sorted({op.keys["composite"] for op in ops if op.is_composite})
    if bodies:
        lines += ["", "/* Composites: out[] computed by other ops. */"]
        lines += [f"SP_MUST_USE sp_status sp__body_{name}(sp_call *c);" for name in bodies]
    lines += _batch_lists([op for op in ops if op.batch not in NO_RULE])
    lines += ["", "#endif"]
    return "\n".join(lines) + "\n"


def _batch_lists(ops):
    """The rules of vmap, sp__batch_<name>() in autograd/: their names, and which op has which."""
    lines = ["", "/* vmap's rules. */", "#define SP_BATCH_RULES(X) \\"]
    lines += [f"    X({name}) \\" for name in sorted({op.batch for op in ops})]
    lines += [
        "    /* the end */",
        "",
        "/* X(opcode, rule, inputs that may be mapped for the rule to hold, as bits). */",
        "#define SP_BATCHED_OPS(X) \\",
    ]
    for op in ops:
        inputs = mask(op.mapped_inputs) if "mapped" in op.keys else "~0u"
        lines.append(f"    X({op.opcode}, {op.batch}, {inputs}) \\")
    return [*lines, "    /* the end */"]


def _row(op, infer):
    flags = [f"SP_OPF_{name}" for key, name in _FLAGS if op.flag(key)]
    if op.keys.get("complex") == "holomorphic":
        flags.append("SP_OPF_HOLOMORPHIC")
    if op.is_only_body:
        flags.append("SP_OPF_BODY")
    attrs = [p.name for p in op.attrs] + op.hidden_attrs
    dims = op.keys.get("dims")
    kinds = f"kinds_{op.c_name}" if attrs else "NULL"
    fields = [
        f".name = {c_string(op.name)}",
        f".c_name = {c_string(op.c_name)}",
        f".n_in = {-1 if op.variadic else len(op.inputs)}",
        f".n_out = {len(op.outputs)}",
        f".n_attr = {len(attrs)}",
        f".flags = {' | '.join(flags) or '0'}",
        f".diff_mask = {mask(op.diff_inputs) if not op.variadic else ('~0u' if op.diff_inputs else '0')}",
        f".linear_mask = {mask(op.linear_inputs)}",
        f".dims_attr = {[p.name for p in op.attrs].index(dims) if dims else -1}",
        f".index_in = {[p.name for p in op.inputs].index(op.keys['checks']) if op.flag('checks') else -1}",
        f".infer = {'sp__infer_' + infer if infer else 'NULL'}",
        f".body = {'sp__body_' + op.keys['composite'] if op.is_composite else 'NULL'}",
        f".onnx = {c_string(op.keys['onnx']) if op.keys.get('onnx') else 'NULL'}",
        f".in_names = {f'inputs_{op.c_name}' if op.inputs else 'NULL'}",
        f".attr_names = {f'attrs_{op.c_name}' if attrs else 'NULL'}",
        f".attr_kinds = {kinds}",
        f".signature = {c_string(op.signature)}",
    ]
    return wrap_list(f"    [{op.opcode}] = {{", fields, "},", indent=" " * 8)


def mask(indices):
    """C expression of a bit mask; bits that are set, in order."""
    return hex(sum(1 << i for i in indices)) if indices else "0"


def _names(op):
    lines = []
    if op.inputs:
        lines.append(
            wrap_list(
                f"static const char *const inputs_{op.c_name}[] = {{",
                [c_string(p.name) for p in op.inputs],
                "};",
            )
        )
    names = [p.name for p in op.attrs] + op.hidden_attrs
    if names:
        kinds = [p.attr_kind for p in op.attrs] + ["SP_ATTR_INT"] * len(op.hidden_attrs)
        lines.append(
            wrap_list(
                f"static const char *const attrs_{op.c_name}[] = {{",
                [c_string(n) for n in names],
                "};",
            )
        )
        lines.append(wrap_list(f"static const uint8_t kinds_{op.c_name}[] = {{", kinds, "};"))
    return lines


_LOOKUP = """/* Opcodes in the order of their names. */
static const uint16_t by_name[SP_OP_COUNT] = {
%s
};

int sp__op_by_name(const char *name)
{
    int low = 0, high = SP_OP_COUNT;
    while (low < high) {
        int middle = (low + high) / 2, order = strcmp(name, sp_op_table[by_name[middle]].name);
        if (order == 0) return by_name[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return -1;
}
"""


def table(ops):
    """sp_op_table[] and sp__op_by_name()."""
    lines = ["/* ---- the table ----- */", ""]
    for op in ops:
        lines += _names(op)
    lines += ["", "const sp_op_info sp_op_table[SP_OP_COUNT] = {"]
    lines += [_row(op, op.keys.get("infer")) for op in ops]
    order = [op.opcode for op in sorted(ops, key=lambda op: op.name.encode())]
    lines += ["};", "", _LOOKUP % wrap_list("    ", order, ",")]
    return "\n".join(lines)


def kernels(ops):
    """cpu_kernels_gen.h: what a backend must provide, as X-macros."""
    lines = [
        f"/* The kernels that a backend must have. {BANNER}",
        " *",
        " * Included by a backend, as often as it likes, with these defined (what is not is skipped):",
        " *",
        " *     SP_CPU_KERNEL(opcode, function)        an op's kernel; one may serve several ops",
        " *     SP_CPU_KERNEL_FUNCTION(function)       each function once, for prototypes",
        " *     SP_CPU_POINTWISE(opcode, name, n_in)   an op that the tile VM runs, of n_in tensors */",
    ]
    plain = [op for op in ops if op.kernel not in (None, "tile")]
    tile = [op for op in ops if op.kernel == "tile"]
    groups = (
        ("SP_CPU_KERNEL", [f"SP_CPU_KERNEL({op.opcode}, sp__cpu_{op.kernel})" for op in plain]),
        (
            "SP_CPU_KERNEL_FUNCTION",
            [
                f"SP_CPU_KERNEL_FUNCTION(sp__cpu_{name})"
                for name in dict.fromkeys(op.kernel for op in plain)
            ],
        ),
        (
            "SP_CPU_POINTWISE",
            [f"SP_CPU_POINTWISE({op.opcode}, {op.c_name}, {len(op.inputs)})" for op in tile],
        ),
    )
    for macro, uses in groups:
        lines += ["", f"#ifdef {macro}", *uses, f"#undef {macro}", "#endif"]
    return "\n".join(lines) + "\n"
