"""autograd_gen.c: vjp and jvp functions from the table's formulas, and sp__rules[]."""

from __future__ import annotations

import ast

from optable.ctext import BANNER, comment, wrap_list
from optable.formula import (
    Compiler,
    FormulaError,
    Scope,
    Value,
    names_in,
    parse,
    statement_text,
    terms,
)
from optable.rows import mask
from optable.table import TableError

_PRELUDE = f"""/* Derivatives of the ops. {BANNER} */
#include "autograd/rules.h"
#include "autograd/tape.h"
#include "ops/attr.h"
#include "ops_gen.h"
"""

_HELPERS = {
    "drop_all": """static void drop_all(sp_tensor **t, int n)
{
    for (int i = 0; i < n; i++) sp_drop(&t[i]);
}""",
    "add_term": """/* *sum += term, or -= where negated; *sum NULL is zero. */
static sp_status add_term(sp_tensor **sum, const sp_tensor *term, bool negated)
{
    sp_tensor *old = *sum;
    if (!old && !negated) *sum = sp__retain(term);
    if (!old) return negated ? sp_neg(term, sum) : SP_OK;
    sp_status status = negated ? sp_sub(old, term, sum) : sp_add(old, term, sum);
    sp_drop(&old);
    return status;
}""",
}

_SCALAR_HELPERS = {
    "neg": """static sp_scalar scalar_neg(sp_scalar x)
{
    return x.kind == SP_FLOAT64 ? SP_FLOAT(-x.v.f) : SP_INT(-x.v.i);
}""",
    "truediv": """static sp_scalar scalar_truediv(sp_scalar x, sp_scalar y)
{
    return SP_FLOAT(scalar_float(x) / scalar_float(y));
}""",
}
_SCALAR_FLOAT = """static double scalar_float(sp_scalar x)
{
    return x.kind == SP_FLOAT64 ? x.v.f : (double)x.v.i;
}"""
_SCALAR_BINARY = """static sp_scalar scalar_%s(sp_scalar x, sp_scalar y)
{
    if (x.kind == SP_FLOAT64 || y.kind == SP_FLOAT64) return SP_FLOAT(scalar_float(x) %s scalar_float(y));
    return SP_INT((int64_t)((uint64_t)x.v.i %s (uint64_t)y.v.i));
}"""


def table_by_base(ops):
    table = {}
    for op in ops:
        table.setdefault(op.base, []).append(op)
    return table


def table_by_operator(ops):
    table = {}
    for op in ops:
        if "operator" in op.keys:
            table.setdefault(op.keys["operator"], []).append(op)
    return table


class _Function:
    """One vjp or jvp function under construction."""

    def __init__(self, op, kind, context):
        self.op, self.kind, self.context = op, kind, context
        self.names, self.metas, self.lines = {}, [], []
        self.helpers = set()
        self.compiler = Compiler(
            context.table, context.operators, self._scope(), scalar_helpers=context.scalar_helpers
        )

    def _scope(self):
        op, is_vjp = self.op, self.kind == "vjp"
        tensors, meta = {}, {}
        for i, param in enumerate(op.inputs):
            tensors[param.name] = Value("tensor", param.name, origin=("in", i))
            meta["in", i] = f"&a->in_meta[{i}]" if is_vjp else f"&{param.name}_meta"
            if not is_vjp:
                tensors[f"t{param.name}"] = Value(
                    "tensor", f"t{param.name}", symbol=f"t{param.name}"
                )
        for k, name in enumerate(op.outputs):
            tensors[name] = Value("tensor", name, origin=("out", k))
            meta["out", k] = f"&a->out_meta[{k}]" if is_vjp else f"&{name}_meta"
            gy = "gy" if len(op.outputs) == 1 else f"gy{k}"
            if is_vjp:
                tensors[gy] = Value(
                    "tensor", gy, origin=("gy", k), symbol="" if len(op.outputs) == 1 else gy
                )
                meta["gy", k] = meta["out", k]
        attrs = {p.name: _attr_value(p, i) for i, p in enumerate(op.attrs)}
        for i, name in enumerate(op.hidden_attrs, len(op.attrs)):
            attrs[name] = Value("int", f"a->attr[{i}].v.i")
        return Scope(tensors, attrs, meta, None if is_vjp else self._use_meta, self._use_name)

    def _use_name(self, value):
        """Declares a local for a tensor name at its first use."""
        where = {f"t{p.name}": f"a->t[{i}]" for i, p in enumerate(self.op.inputs)}
        where |= {p.name: f"a->in[{i}]" for i, p in enumerate(self.op.inputs)}
        where |= {name: f"a->out[{k}]" for k, name in enumerate(self.op.outputs)}
        where |= {f"gy{k}": f"a->gy[{k}]" for k in range(len(self.op.outputs))} | {"gy": "a->gy[0]"}
        self.names.setdefault(value.c, where[value.c])

    def _use_meta(self, origin):
        params = self.op.inputs if origin[0] == "in" else None
        name = params[origin[1]].name if params else self.op.outputs[origin[1]]
        if name not in self.metas:
            self.metas.append(name)
            self._use_name(Value("tensor", name))

    def _term(self, node):
        """A term and the C condition under which it is not zero ("" for always)."""
        scope = self.compiler.scope
        symbols = sorted(
            n for n in names_in(node) if n in scope.tensors and scope.tensors[n].symbol
        )
        for name in symbols:
            self._use_name(scope.tensors[name])
        condition = " || ".join(symbols)
        self.compiler.cond = condition
        saved = dict(scope.tensors)
        if len(symbols) > 1 and self.kind == "vjp":
            _check_symbols_in_helpers(node, symbols)
        elif len(symbols) > 1:
            for name in symbols:
                primal = saved[name[1:]]
                self._use_name(primal)
                scope.tensors[name] = self.compiler.emit("sp__rule_or_zeros", [name, primal.c])
        value = self.compiler.compile(node)
        scope.tensors = saved
        return value, condition

    def sum_of_terms(self, node, target, bit, post=None, alone=True):
        """Lines that add a formula's terms up in `target`; `alone` if nothing else is added to it."""
        parts = terms(node)
        alone = alone and len(parts) == 1
        for negated, term in parts:
            value, condition = self._term(term)
            if alone and negated:
                value = self.compiler.emit("sp_neg", [value.c], [value.temp])
            if post:
                self._use_name(Value("tensor", post[1]))
                value = self.compiler.emit(post[0], [value.c, post[1]], [value.temp])
            line = f"{target} = sp__retain({value.c});"
            if not alone:
                line = wrap_list(
                    "SP_TRY(add_term(", [f"&{target}", value.c, str(negated).lower()], "));"
                )
                self.helpers.add("add_term")
            self.finish(value, bit, condition, line)
            self.compiler.cond = ""

    def finish(self, value, bit, condition, line):
        """Adds the line that hands a result out, after what it depends on."""
        for temp in self.compiler.closure(value.temp):
            self.compiler.statements[temp].mask |= bit
        self.lines.append((len(self.compiler.statements), bit, condition, line))

    def text(self, name, notes, all_bits, args_type, results, count):
        """The C function."""
        body = self._body(all_bits)
        temps = [f"*t{s.temp} = NULL" for s in self.compiler.statements if s.temp >= 0]
        declarations = (
            [wrap_list("const sp_tensor ", [f"*{n} = {c}" for n, c in self.names.items()], ";")]
            if self.names
            else []
        )
        declarations += [f"sp_meta {name}_meta;" for name in self.metas]
        if temps:
            declarations.append(wrap_list("sp_tensor ", temps, ";"))
        declarations.append("sp_status status = SP_OK;")
        lines = declarations + [f"sp__meta_of({name}, &{name}_meta);" for name in self.metas] + body
        jumps = any("SP_TRY" in line for line in body)
        if not jumps:
            lines = [line for line in lines if not line.startswith("sp_status status")]
        head = f"{comment(notes)}\nstatic sp_status {name}(const {args_type} *a)\n{{\n"
        text = head + "\n".join(_indent(line) for line in lines)
        if not jumps:
            return text + "\n    return SP_OK;\n}"
        drops = [f"    sp_drop(&t{s.temp});" for s in self.compiler.statements if s.temp >= 0]
        self.helpers.add("drop_all")
        ending = [
            "out:",
            *drops,
            f"    if (status != SP_OK) drop_all({results}, {count});",
            "    return status;",
            "}",
        ]
        return "\n".join([text, *ending])

    def _body(self, all_bits):
        """Statements and results in order, those under the same condition in one block."""
        self._write_directly()
        items, results = [], list(self.lines)
        for index, statement in enumerate(self.compiler.statements):
            while results and results[0][0] <= index:
                items.append(results.pop(0)[1:])
            target = statement.target or f"&t{statement.temp}"
            items.append((statement.mask, statement.cond, statement_text(statement, target)))
        items += [r[1:] for r in results]
        blocks = []
        for bits, cond, line in items:
            guard = _guard(bits, cond, all_bits)
            if not line:
                continue
            if blocks and blocks[-1][0] == guard:
                blocks[-1][1].append(line)
            else:
                blocks.append((guard, [line]))
        return [line for guard, inner in blocks for line in _block(guard, inner)]

    def _write_directly(self):
        """Lets a statement whose only use is to be handed out fill the result itself."""
        uses = {}
        for statement in self.compiler.statements:
            for dep in statement.deps:
                uses[dep] = uses.get(dep, 0) + 1
        retained = [line[3] for line in self.lines]
        for i, (at, bit, condition, line) in enumerate(self.lines):
            target, arrow, source = line.partition(" = sp__retain(")
            temp = source[1:-2]
            if not arrow or not source.startswith("t") or not temp.isdigit() or uses.get(int(temp)):
                continue
            if sum(other.endswith(f" = sp__retain(t{temp});") for other in retained) > 1:
                continue
            statement = self.compiler.statements[int(temp)]
            if statement.part:
                continue
            statement.target, statement.temp = f"&{target}", -1
            self.lines[i] = (at, bit, condition, "")


def _indent(line):
    return "\n".join("    " + part for part in line.split("\n"))


def _guard(bits, cond, all_bits):
    parts = []
    if bits and bits != all_bits:
        parts.append(f"a->need & {hex(bits)}" if not cond else f"(a->need & {hex(bits)})")
    if cond:
        parts.append(f"({cond})" if parts and "||" in cond else cond)
    return " && ".join(parts)


def _block(guard, lines):
    if not guard:
        return lines
    if (
        len(lines) == 1
        and "\n" not in lines[0]
        and "SP_TRY" not in lines[0]
        and len(guard) + len(lines[0]) < 86
    ):
        return [f"if ({guard}) {lines[0]}"]
    return [f"if ({guard}) {{", *[_indent(line) for line in lines], "}"]


def _attr_value(param, index):
    where = f"a->attr[{index}]"
    if param.optional:
        return Value("attr", f"&{where}", attr=param)
    if param.kind == "ints":
        return Value("ints", f"{where}.v.ints", count=f"{where}.n", attr=f"&{where}")
    if param.kind == "scalar":
        return Value("scalar", f"sp__attr_to_scalar(&{where})")
    return {
        "int": Value("int", f"{where}.v.i"),
        "float": Value("float", f"{where}.v.f"),
        "bool": Value("bool", f"{where}.v.i != 0"),
        "dtype": Value("dtype", f"(sp_dtype){where}.v.i"),
        "choice": Value("int", f"{where}.v.i"),
    }[param.kind]


def _check_symbols_in_helpers(node, symbols):
    """In a term with several gradients any may be NULL, which only rule helpers understand."""
    inside = set()
    for call in ast.walk(node):
        if isinstance(call, ast.Call):
            inside |= {id(arg) for arg in call.args}
    for name in ast.walk(node):
        if isinstance(name, ast.Name) and name.id in symbols and id(name) not in inside:
            raise FormulaError(
                f"'{ast.unparse(node)}': {name.id} may be zero here; pass it to a helper"
            )


class _Context:
    def __init__(self, ops):
        self.table, self.operators = table_by_base(ops), table_by_operator(ops)
        self.scalar_helpers, self.helpers = set(), set()


def _vjp(op, context):
    """The vjp function's text and what each gradient reads; None without formulas."""
    if not op.vjp:
        return None
    if op.variadic:
        return _variadic_vjp(op, context)
    function, reads = _Function(op, "vjp", context), {}
    for i, param in enumerate(op.inputs):
        if param.name not in op.vjp:
            continue
        function.compiler.reads = set()
        node = parse(op.vjp[param.name])
        if len(op.outputs) > 1:
            function.sum_of_terms(node, f"a->gx[{i}]", 1 << i)
        else:
            value = function.compiler.compile(node)
            if op.flag("pointwise"):
                value = function.compiler.emit(
                    "sp__rule_sum_to", [value.c, f"&a->in_meta[{i}]"], [value.temp]
                )
            function.finish(value, 1 << i, "", f"a->gx[{i}] = sp__retain({value.c});")
        reads[i] = {r for r in function.compiler.reads if r[0] != "gy"}
    bits = sum(1 << i for i in reads)
    notes = [
        f"{op.name}: "
        + ";  ".join(f"g{name} = {' '.join(str(f).split())}" for name, f in op.vjp.items())
    ]
    text = function.text(f"vjp_{op.c_name}", notes, bits, "sp_vjp_args", "a->gx", "a->n_in")
    context.helpers |= function.helpers
    return text, reads


def _variadic_vjp(op, context):
    """Tensor[]: one helper call an input, with its index: `cat_vjp(gy, xs.metas, i, dim)`."""
    name, formula = op.inputs[0].name, str(op.vjp[op.inputs[0].name])
    known = {"gy": "a->gy[0]", "i": "i", f"{name}.metas": "a->in_meta"}
    node, call = _one_helper(op, formula, known, "&a->gx[i]")
    call = f"SP_TRY({call});"
    context.helpers.add("drop_all")
    text = f"""{comment([f"{op.name}: g{name}[i] = {formula}"])}
static sp_status vjp_{op.c_name}(const sp_vjp_args *a)
{{
    sp_status status = SP_OK;
    for (int i = 0; i < a->n_in; i++) {{
        if (!(a->need & sp__in_bit(i))) continue;
{_indent(_indent(call))}
    }}
out:
    if (status != SP_OK) drop_all(a->gx, a->n_in);
    return status;
}}"""
    names = {ast.unparse(arg) for arg in node.args}
    return text, {
        i: ({("in", i)} if name in names else set()) | ({("out", 0)} if "out" in names else set())
        for i in range(1)
    }


def _one_helper(op, formula, more, result):
    """The formula of a Tensor[] input: one helper call over all of them."""
    name, node = op.inputs[0].name, parse(formula)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.keywords:
        raise FormulaError(
            "the formula of a Tensor[] input is one helper call, such as cat_vjp(gy, xs.metas, i, dim)"
        )
    attrs = {p.name: _attr_value(p, i).c for i, p in enumerate(op.attrs)}
    known = {"out": "a->out[0]", name: "a->in", "n": "a->n_in", **more, **attrs}
    args = []
    for arg in node.args:
        if ast.unparse(arg) not in known:
            raise FormulaError(f"'{ast.unparse(arg)}' is unknown; known are {', '.join(known)}")
        args.append(known[ast.unparse(arg)])
    return node, wrap_list(f"sp__rule_{node.func.id}(", [*args, result], ")")


def _variadic_jvp(op):
    """Tensor[]: one helper call on the tangents, of which some are NULL: `cat_jvp(ts, xs, n, dim)`."""
    name, formula = op.inputs[0].name, str(op.keys["jvp"])
    _, call = _one_helper(op, formula, {f"t{name}": "a->t"}, "&a->ty[0]")
    return f"""{comment([f"{op.name}: t{op.outputs[0]} = {formula}"])}
static sp_status jvp_{op.c_name}(const sp_jvp_args *a)
{{
    return {call};
}}"""


def _jvp_formulas(op):
    """Formulas of the tangents by output index, as (expression, post-processing); {} if the runtime must derive them."""
    jvp = op.keys.get("jvp")
    if jvp is not None:
        by_name = jvp if isinstance(jvp, dict) else {op.outputs[0]: jvp}
        return {op.outputs.index(name): (parse(text), None) for name, text in by_name.items()}
    if op.linear_inputs and not op.variadic:
        return (
            {k: (_linear_sum(op), None) for k in range(len(op.outputs))}
            if len(op.outputs) == 1
            else {}
        )
    if op.flag("pointwise") and op.vjp:
        sums = None
        for name, formula in op.vjp.items():
            node = _rename(parse(formula), {"gy": f"t{name}"})
            sums = node if sums is None else ast.BinOp(sums, ast.Add(), node)
        return {0: (sums, "sp__rule_expand_like")}
    return {}


def _rename(node, names):
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and part.id in names:
            part.id = names[part.id]
    return node


def _linear_sum(op):
    """op(tx, w) + op(x, tw), for linear: [x, w]."""
    total = None
    for i in op.linear_inputs:
        args = [
            ast.keyword(p.name, ast.Name(f"t{p.name}" if p is op.inputs[i] else p.name))
            for p in op.params
        ]
        call = ast.Call(ast.Name("op"), [ast.Constant(op.name)], args)
        total = call if total is None else ast.BinOp(total, ast.Add(), call)
    return total


def _jvp(op, context):
    if op.variadic:
        return _variadic_jvp(op) if "jvp" in op.keys else None
    formulas = _jvp_formulas(op)
    if not formulas:
        return None
    function, notes = _Function(op, "jvp", context), []
    for k, (node, post) in formulas.items():
        name = op.outputs[k]
        if post:  # a vjp formula's top-level sum is split into its terms only by input
            for part in _sum_parts(node, len(op.vjp)):
                function.sum_of_terms(part, f"a->ty[{k}]", 0, (post, name), alone=len(op.vjp) == 1)
        else:
            function.sum_of_terms(node, f"a->ty[{k}]", 0)
        notes.append(f"t{name} = {ast.unparse(node)}")
    text = function.text(
        f"jvp_{op.c_name}",
        [f"{op.name}: " + ";  ".join(notes)],
        0,
        "sp_jvp_args",
        "a->ty",
        str(len(op.outputs)),
    )
    context.helpers |= function.helpers
    return text


def _sum_parts(node, count):
    parts = []
    for _ in range(count - 1):
        parts.insert(0, node.right)
        node = node.left
    return [node, *parts]


def _reads_table(op, what, reads):
    n = max(len(op.inputs), 1)
    ins = [mask([k for kind, k in sorted(reads.get(i, ())) if kind == "in"]) for i in range(n)]
    outs = [mask([k for kind, k in sorted(reads.get(i, ())) if kind == "out"]) for i in range(n)]
    return (
        f"static const uint64_t {what}_in_{op.c_name}[] = {{{', '.join(ins)}}};\n"
        f"static const uint32_t {what}_out_{op.c_name}[] = {{{', '.join(outs)}}};"
    )


def _bends(op, reads, context):
    """Of what each gradient reads, that by which it has a derivative: not what is only compared, or where it is flat."""
    if op.variadic:
        return reads
    places = {param.name: ("in", i) for i, param in enumerate(op.inputs)}
    places |= {name: ("out", k) for k, name in enumerate(op.outputs)}
    return {
        i: {
            places[name]
            for name in _smooth(parse(op.vjp[op.inputs[i].name]), context) & set(places)
        }
        for i in reads
    }


def _jvp_bends_out(op, context):
    """Which outputs the tangent's formula has a derivative by."""
    nodes = (
        [parse(str(op.keys["jvp"]))]
        if op.variadic
        else [node for node, _ in _jvp_formulas(op).values()]
    )
    names = set().union(*(_smooth(node, context) for node in nodes))
    outputs = op.outputs if not op.variadic else ["out"]
    return mask([k for k, name in enumerate(outputs) if name in names])


def _smooth(node, context):
    """The names that an expression has a derivative by."""
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, (ast.Compare, ast.Attribute)):
        return set()
    if not isinstance(node, ast.Call):
        return set().union(*(_smooth(child, context) for child in ast.iter_child_nodes(node)))
    args, name = node.args, getattr(node.func, "id", "")
    if name == "op":
        name, args = args[0].value.partition(".")[0], args[1:]
    ops, found = context.table.get(name, ()), set()
    for place, arg in [*enumerate(args), *((k.arg, k.value) for k in node.keywords)]:
        if not ops or not all(_is_flat(op, place) for op in ops):
            found |= _smooth(arg, context)
    return found


def _is_flat(op, place):
    """Whether an op has no derivative, or always the derivative 0, by a parameter."""
    params = [p for p in op.params if p.name == place] if isinstance(place, str) else op.params
    place = 0 if isinstance(place, str) else place
    if place >= len(params) or params[place] not in op.inputs or op.keys.get("nondiff") is True:
        return True
    if params[place].name in op.vjp:
        return op.vjp[params[place].name] == "fill(gy, 0)"
    return bool(op.vjp)


def generate(ops):
    """The text of autograd_gen.c.

    Raises
    ------
    TableError
        With every formula that does not compile.
    """
    context, functions, rows, problems = _Context(ops), [], [], []
    for op in ops:
        fields = []
        for kind, build in (("vjp", _vjp), ("jvp", _jvp)):
            try:
                built = build(op, context)
            except FormulaError as error:
                problems.append(f"{op.where}: {op.name}: {kind}: {error}")
                continue
            if built is None:
                continue
            fields.append(f".{kind} = {kind}_{op.c_name}")
            if kind == "jvp":
                functions.append(built)
                fields.append(f".jvp_bends_out = {_jvp_bends_out(op, context)}")
                continue
            text, reads = built
            bends = _bends(op, reads, context)
            functions += [
                text,
                _reads_table(op, "reads", reads),
                _reads_table(op, "bends", bends),
            ]
            every = set().union(*reads.values()) if reads else set()
            for where in ("in", "out"):
                bits = mask(sorted(k for kind_, k in every if kind_ == where))
                if op.variadic and where == "in" and bits != "0":
                    bits = "~(uint64_t)0"
                fields.append(f".saves_{where} = {bits}")
            fields += [
                f".vjp_reads_in = reads_in_{op.c_name}",
                f".vjp_reads_out = reads_out_{op.c_name}",
                f".vjp_bends_in = bends_in_{op.c_name}",
                f".vjp_bends_out = bends_out_{op.c_name}",
            ]
        if fields:
            rows.append(wrap_list(f"    [{op.opcode}] = {{", fields, "},", indent=" " * 8))
    if problems:
        raise TableError(problems)
    parts = [_PRELUDE, *_helper_texts(context), *functions]
    parts.append(
        "\n".join(["const sp_rule sp__rules[SP_OP_COUNT] = {", *(rows or ["    {0},"]), "};"])
    )
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _helper_texts(context):
    names = sorted(context.scalar_helpers)
    texts = [_SCALAR_FLOAT] if set(names) - {"neg"} else []
    signs = {"add": "+", "sub": "-", "mul": "*"}
    texts += [_SCALAR_HELPERS.get(n) or _SCALAR_BINARY % (n, signs[n], signs[n]) for n in names]
    return texts + [_HELPERS[name] for name in _HELPERS if name in context.helpers]
