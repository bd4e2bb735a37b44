"""The op table: entries read from YAML, checked strictly, as Op objects that the emitters work on.

Invariants
1. Every problem is reported as `file:line: op: what is wrong`, all of them in one run.
2. An Op that comes out of load() is complete: defaults filled in, names resolved, samples parsed.
3. Opcodes follow the order of families and entries, so that one table gives one numbering.
"""

from __future__ import annotations

import keyword
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from optable.sample import SampleError, parse_sample
from optable.signature import Param, SignatureError, parse_signature

NO_RULE = ("none", "create")  # instead of a rule for vmap
VARIANTS = ("function", "method", "inplace", "out", "reflected")
OPERATORS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "truediv": "/",
    "floordiv": "//",
    "mod": "%",
    "pow": "**",
    "matmul": "@",
    "neg": "-",
    "abs": "abs",
    "invert": "~",
    "and": "&",
    "or": "|",
    "xor": "^",
    "lshift": "<<",
    "rshift": ">>",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}
MIRRORED = {
    "lt": "gt",
    "gt": "lt",
    "le": "ge",
    "ge": "le",
    "eq": "eq",
    "ne": "ne",
    "add": "add",
    "mul": "mul",
}
STATUSES = (
    "ESHAPE",
    "EDTYPE",
    "ETYPE",
    "EVALUE",
    "EINDEX",
    "EMEMORY",
    "EDEVICE",
    "EGRAD",
    "EIO",
    "EFORMAT",
    "EUNSUPPORTED",
)
KEYS = {
    "op": str,
    "doc": str,
    "args": dict,
    "returns": str,
    "raises": dict,
    "source": str,
    "example": str,
    "infer": str,
    "pointwise": bool,
    "view": bool,
    "may_view": bool,
    "reduce": bool,
    "checks": str,
    "random": bool,
    "draws": bool,
    "makes": bool,
    "effect": bool,
    "updates": bool,
    "composite": str,
    "rounds_once": bool,
    "complex": (bool, str),
    "kernel": (bool, str),
    "vjp": dict,
    "jvp": (str, dict),
    "linear": list,
    "nondiff": (bool, list),
    "batch": str,
    "mapped": list,
    "dims": str,
    "onnx": (str, type(None)),
    "variants": list,
    "operator": str,
    "python": str,
    "also": list,
    "sample": list,
}
LIMITS = {"inputs": 32, "attrs": 8, "outputs": 4, "lists": 4}
C_WORDS = set(
    "auto break case char const continue default do double else enum extern float for goto if inline int long register "
    "restrict return short signed sizeof static struct switch typedef union unsigned void volatile while bool".split()
)
RESERVED = {"out", "opt", "a", "c", "o", "in", "status", "self", "op"}


class TableError(Exception):
    """The table does not hold; `problems` lists every reason."""

    def __init__(self, problems):
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass
class Op:
    """One entry, that is, one opcode."""

    name: str
    family: str
    where: str
    signature: str
    params: list[Param]
    outputs: list[str]
    keys: dict
    base: str = ""
    overload: str = ""
    c_name: str = ""
    doc: str = ""
    samples: list = field(default_factory=list)
    root: Op | None = None  # the entry that is documented for this base name

    @property
    def opcode(self):
        return f"SP_OP_{self.c_name.upper()}"

    @property
    def inputs(self):
        return [p for p in self.params if p.is_tensor]

    @property
    def attrs(self):
        """The parameters that travel as attributes, hidden ones excluded."""
        return [p for p in self.params if not p.is_tensor]

    @property
    def hidden_attrs(self):
        return ["seed", "offset"] if self.flag("random") else []

    @property
    def python_extras(self):
        """Keywords of the Python function that the op itself does not know: what it draws from, and how the
        tensor is made."""
        if "function" not in self.variants and "inplace" not in self.variants:
            return []
        draws = self.flag("draws") or (self.flag("random") and not self.inputs)
        makes = self.flag("makes") or not self.inputs
        return ["generator"] * draws + ["device", "requires_grad"] * makes

    @property
    def options(self):
        """The parameters that stand in the C options struct."""
        return [p for p in self.attrs if p.has_default]

    @property
    def variadic(self):
        return any(p.kind == "tensors" for p in self.params)

    def flag(self, key):
        return bool(self.keys.get(key))

    @property
    def variants(self):
        takes_tensor = bool(self.params) and self.params[0].kind == "tensor"
        return self.keys.get("variants", ["function", "method"] if takes_tensor else ["function"])

    @property
    def python_name(self):
        return self.keys.get("python", self.base)

    @property
    def python_names(self):
        """The name in Python and its synonyms, which the entry documented for the base names."""
        return [self.python_name, *(self.root or self).keys.get("also", [])]

    @property
    def vjp(self):
        return self.keys.get("vjp", {})

    @property
    def batch(self):
        default = "pointwise" if self.flag("pointwise") else "none"
        return self.keys.get("batch", default)

    @property
    def is_composite(self):
        return "composite" in self.keys

    @property
    def is_only_body(self):
        """A composite that nothing but its body is known of."""
        rules = any(key in self.keys for key in ("vjp", "jvp", "linear"))
        return self.is_composite and not (self.kernel or rules or self.batch != "none")

    @property
    def kernel(self):
        """Name of the CPU kernel function's stem, "tile" for a tile VM op, None for none."""
        kernel = self.keys.get("kernel")
        if kernel is None:
            kernel = not (self.flag("view") or self.is_composite)
        if kernel is True:
            return "tile" if self.flag("pointwise") else self.c_name
        return kernel or None

    @property
    def diff_inputs(self):
        """Indices of the inputs that gradients flow to."""
        nondiff = self.keys.get("nondiff", [])
        if nondiff is True:
            return []
        return [i for i, p in enumerate(self.inputs) if p.name not in nondiff]

    @property
    def mapped_inputs(self):
        """Indices of the inputs that may be mapped for vmap's rule to hold."""
        return [i for i, p in enumerate(self.inputs) if p.name in self.keys.get("mapped", [])]

    @property
    def linear_inputs(self):
        return [i for i, p in enumerate(self.inputs) if p.name in self.keys.get("linear", [])]


class _Loader(yaml.SafeLoader):
    """Notes each mapping's line and refuses a key given twice."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.YAMLError(
                    f"line {key.start_mark.line + 1}: key '{key.value}' is given twice"
                )
            seen.add(key.value)
        mapping = super().construct_mapping(node, deep=True)
        mapping["__line__"] = node.start_mark.line + 1
        return mapping


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_mapping)


def _without_lines(value):
    """The value without the line numbers that the loader put into inner mappings."""
    if isinstance(value, dict):
        return {k: _without_lines(v) for k, v in value.items() if k != "__line__"}
    if isinstance(value, list):
        return [_without_lines(v) for v in value]
    return value


def load(folder):
    """Reads every table file of a folder.

    Raises
    ------
    TableError
        With all problems found.
    """
    problems, ops = [], []
    for path in sorted(Path(folder).glob("*.yaml")):
        ops += _load_file(path, problems)
    if not ops and not problems:
        problems.append(f"{folder}: no table files (*.yaml) here")
    _check_together(ops, problems)
    if problems:
        raise TableError(problems)
    return ops


def _load_file(path, problems):
    try:
        entries = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        problems.append(f"{path.name}: broken YAML: {error}")
        return []
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        problems.append(f"{path.name}: must be a list of entries, each starting with '- op:'")
        return []
    ops = []
    for entry in entries:
        where = f"{path.name}:{entry.get('__line__', 1)}"
        op = _load_entry(_without_lines(entry), path.stem, where, problems)
        if op is not None:
            ops.append(op)
    return ops


def _load_entry(entry, family, where, problems):
    text = entry.get("op")
    if not isinstance(text, str):
        problems.append(f"{where}: entry without 'op: <signature>'")
        return None
    label = text.split("(")[0]

    def problem(what):
        problems.append(f"{where}: {label}: {what}")

    try:
        name, params, outputs = parse_signature(text)
    except SignatureError as error:
        problem(str(error))
        return None
    op = Op(name, family, where, " ".join(text.split()), params, outputs, entry)
    op.base, _, op.overload = name.partition(".")
    op.c_name = name.replace(".", "_")
    op.doc = (
        (entry.get("doc") or "").strip() if isinstance(entry.get("doc"), (str, type(None))) else ""
    )
    before = len(problems)
    _check_keys(op, problem)
    if len(problems) == before:  # the checks below rely on well-formed keys
        _check_names(op, problem)
        _check_flags(op, problem)
        _check_rules(op, problem)
        _check_batch(op, problem)
        _parse_samples(op, problem)
    return op


def _check_keys(op, problem):
    for key, value in op.keys.items():
        kinds = KEYS.get(key)
        if kinds is None:
            problem(f"unknown key '{key}'; known are {', '.join(KEYS)}")
        elif not isinstance(value, kinds):
            wanted = kinds if isinstance(kinds, tuple) else (kinds,)
            names = " or ".join("null" if k is type(None) else k.__name__ for k in wanted)
            problem(
                f"'{key}' must be of type {names}, not {type(value).__name__} (a comma inside {{}} wants quotes)"
            )
    for key in ("vjp", "jvp", "args", "raises"):
        inner = op.keys.get(key)
        if isinstance(inner, dict):
            for name, text in inner.items():
                if not isinstance(text, (str, int, float)):
                    problem(f"{key}: '{name}' has no text; a comma inside {{}} wants quotes")


def _check_names(op, problem):
    names = [p.name for p in op.params]
    for name in names:
        if names.count(name) > 1:
            problem(f"parameter '{name}' is given twice")
        if name == "size" and name in [p.name for p in op.options]:
            problem(
                "'size' cannot name an optional parameter: it is the options struct's own field"
            )
        if (
            name in C_WORDS
            or name in RESERVED
            or keyword.iskeyword(name)
            or name.startswith(("n_", "has_", "sp_", "gy"))
        ):
            problem(
                f"'{name}' cannot name a parameter: it is a word of C, Python or the generated code"
            )
        if name[0] == "t" and (name[1:] in names or name[1:].isdigit()):
            problem(f"'{name}' cannot name a parameter: in formulas it would mean something else")
    for name in op.keys.get("args", {}):
        if name not in names:
            problem(f"args: there is no parameter '{name}'")
    for status in op.keys.get("raises", {}):
        if status not in STATUSES:
            problem(f"raises: '{status}' is no status; known are {', '.join(STATUSES)}")
    for count, limit, what in (
        (len(op.inputs), LIMITS["inputs"], "inputs"),
        (len(op.outputs), LIMITS["outputs"], "outputs"),
        (len(op.attrs) + len(op.hidden_attrs), LIMITS["attrs"], "attributes"),
        (sum(p.kind == "ints" for p in op.attrs), LIMITS["lists"], "int lists"),
    ):
        if count > limit:
            problem(f"{count} {what}, at most {limit} are possible")
    if op.variadic and "n" in names:
        problem("'n' cannot name a parameter beside a Tensor[]: it is how many there are")
    if op.variadic and len(op.inputs) > 1:
        problem("a Tensor[] parameter must be the only tensor parameter")


def _check_flags(op, problem):
    keys = op.keys
    if keys.get("complex", True) not in (True, "holomorphic"):
        problem("'complex' is true or holomorphic; leave it out where complex numbers are refused")
    if op.flag("rounds_once") and (not op.is_only_body or op.variadic or len(op.inputs) > 8):
        problem("'rounds_once' is for a composite of at most 8 inputs that is nothing but a body")
    if "infer" not in keys and not op.is_composite:
        problem(
            "'infer' is missing: the name of a function sp__infer_<name>() in the family's C file"
        )
    own_sizes = {"dims", "num_classes"} & {p.name for p in op.attrs}
    if "checks" in keys and keys["checks"] not in [p.name for p in op.inputs[not own_sizes :]]:
        problem(
            "'checks' must name an input; the first one only if 'dims' or 'num_classes' bound it"
        )
    for variant in op.variants:
        if variant not in VARIANTS:
            problem(f"unknown variant '{variant}'; known are {', '.join(VARIANTS)}")
    if {"inplace", "out"} & set(op.variants) and len(op.outputs) != 1:
        problem("variants inplace and out need exactly one output")
    first_is_tensor = bool(op.params) and op.params[0].kind == "tensor"
    if {"inplace", "method"} & set(op.variants) and not first_is_tensor:
        problem("variants method and inplace need a Tensor as the first parameter")
    if keys.get("operator", "add") not in OPERATORS:
        problem(f"unknown operator '{keys['operator']}'; known are {', '.join(OPERATORS)}")
    if "operator" in keys and any(
        p.kind not in ("tensor", "scalar") or not p.required for p in op.params
    ):
        problem(
            "an op bound to an operator takes its operands and nothing else; put the rest into an overload"
        )
    if op.flag("pointwise") and len(op.outputs) != 1:
        problem("a pointwise op has one output")
    if op.flag("view") and op.flag("may_view"):
        problem("'view' and 'may_view' exclude each other")
    if op.flag("view") and keys.get("kernel"):
        problem("a view op has no kernel")
    inputs = [p for p in op.inputs if p.kind == "tensor" and not p.optional]
    if op.flag("updates") and (len(inputs) < len(op.inputs) or len(op.outputs) > len(inputs)):
        problem("'updates' needs an input for each result, and no optional ones")


def _check_rules(op, problem):
    names = [p.name for p in op.inputs]
    nondiff = op.keys.get("nondiff", [])
    for name in op.vjp:
        if name not in names:
            problem(f"vjp: there is no tensor input '{name}'")
    for name in op.keys.get("linear", []):
        if name not in names:
            problem(f"linear: there is no tensor input '{name}'")
    if nondiff is True:
        if op.vjp or "jvp" in op.keys:
            problem("'nondiff: true' and derivative formulas exclude each other")
        return
    if nondiff is False:
        problem("'nondiff: false' says nothing; leave it out")
        return
    for name in nondiff:
        if name not in names:
            problem(f"nondiff: there is no tensor input '{name}'")
        if name in op.vjp:
            problem(f"'{name}' stands in vjp and in nondiff")
    missing = [n for n in names if n not in op.vjp and n not in nondiff]
    if missing and (op.vjp or not op.is_composite):
        problem(
            f"no derivative for {', '.join(missing)}: add a formula to 'vjp', or name it in 'nondiff'"
        )
    jvp = op.keys.get("jvp")
    if isinstance(jvp, dict):
        for name in jvp:
            if name not in op.outputs:
                problem(f"jvp: there is no output '{name}'")
    elif jvp is not None and len(op.outputs) > 1:
        problem("jvp: several outputs need {output: formula}")


def _check_batch(op, problem):
    if not op.batch.isidentifier():
        problem(f"batch: '{op.batch}' cannot name a rule, a function sp__batch_<name>()")
    if "batch" not in op.keys and not op.flag("pointwise") and not op.is_composite:
        problem("'batch' is missing: the name of a rule, or one of " + ", ".join(NO_RULE))
    for name in op.keys.get("mapped", []):
        if name not in [p.name for p in op.inputs]:
            problem(f"mapped: there is no tensor input '{name}'")
    if "mapped" in op.keys and (op.batch in NO_RULE or not op.is_composite):
        problem("'mapped' needs a rule for these inputs and, for the others, a composite's body")
    dims = op.keys.get("dims")
    if op.batch in ("dims", "shape") and dims is None:
        problem(f"'batch: {op.batch}' needs 'dims: <attribute>'")
    if dims is not None and dims not in [p.name for p in op.attrs if p.kind in ("int", "ints")]:
        problem(f"dims: there is no attribute '{dims}' of type int or int[]")


def _parse_samples(op, problem):
    samples = op.keys.get("sample") or []
    if not samples:
        problem("'sample' is missing: at least one argument list for the tests")
    for text in samples:
        try:
            op.samples.append(parse_sample(op, text))
        except SampleError as error:
            problem(f"sample {text!r}: {error}")


def _check_together(ops, problems):
    """What shows only when all entries are known: unique names, shared documentation, operators."""
    seen, roots = {}, {}
    for op in ops:
        for what, key in (("name", op.name), ("C name", op.c_name)):
            other = seen.setdefault((what, key), op)
            if other is not op:
                problems.append(
                    f"{op.where}: {op.name}: the {what} '{key}' is taken by {other.where}: {other.name}"
                )
        if op.doc:
            current = roots.get(op.base)
            if current is None or (current.overload and not op.overload):
                roots[op.base] = op
    for op in ops:
        op.root = roots.get(op.base)
        if op.root is None or (not op.overload and not op.doc):
            problems.append(f"{op.where}: {op.name}: 'doc' is missing")
            op.root = op
        if not op.doc:
            op.doc = op.root.doc
    _check_synonyms(ops, problems)
    _check_c_names(ops, problems)
    operators = {}
    for op in ops:
        symbol = op.keys.get("operator")
        if symbol and operators.setdefault(symbol, op.base) != op.base:
            problems.append(
                f"{op.where}: {op.name}: operator '{symbol}' belongs to '{operators[symbol]}' already"
            )


def _check_synonyms(ops, problems):
    owner = {op.python_name: op.base for op in ops}
    for op in ops:
        if "also" in op.keys and op.root is not op:
            problems.append(f"{op.where}: {op.name}: 'also' stands in {op.root.name}'s entry")
        for name in op.keys.get("also", []):
            if not isinstance(name, str) or not name.isidentifier():
                problems.append(f"{op.where}: {op.name}: also: {name!r} is no name")
            elif owner.setdefault(name, op.base) != op.base or name == op.python_name:
                problems.append(f"{op.where}: {op.name}: also: '{name}' is taken by {owner[name]}")


def _check_c_names(ops, problems):
    """The enumerators of attributes and choices share one name space in C, their types one with functions."""
    seen, choices = {}, {}
    functions = {op.c_name for op in ops}
    for op in ops:
        for name in [p.name for p in op.attrs] + op.hidden_attrs:
            other = seen.setdefault(f"SP_{op.c_name}_{name}".upper(), op)
            if other is not op:
                problems.append(
                    f"{op.where}: {op.name}: attribute '{name}' has the same C constant as one of {other.name}"
                )
        for param in op.attrs:
            if param.kind == "choice" and param.name in functions:
                problems.append(
                    f"{op.where}: {op.name}: '{param.name}' cannot name a choice: sp_{param.name} is an op's function"
                )
            if (
                param.kind == "choice"
                and choices.setdefault(param.name, param.choices) != param.choices
            ):
                problems.append(
                    f"{op.where}: {op.name}: '{param.name}' has other choices elsewhere: {choices[param.name]}"
                )
