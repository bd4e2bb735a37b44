"""The op table's generator: broken tables are refused by name, formulas compile to clean C."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from optable import capi, docs, pyapi, rows, rules  # noqa: E402
from optable.signature import SignatureError, parse_signature  # noqa: E402
from optable.table import TableError, load  # noqa: E402

BASE = """
- op: add(Tensor x, Tensor y) -> Tensor
  doc: Sum.
  infer: pointwise
  pointwise: true
  vjp: {x: gy, y: gy}
  operator: add
  variants: [function, method, inplace, out]
  sample: ["(3, 4), (4,)"]
- op: add.scalar(Tensor x, Scalar y) -> Tensor
  infer: pointwise
  pointwise: true
  vjp: {x: gy}
  operator: add
  variants: [function, method, inplace]
  sample: ["(3,), 2"]
- op: sub(Tensor x, Tensor y) -> Tensor
  doc: Difference.
  infer: pointwise
  pointwise: true
  vjp: {x: gy, y: -gy}
  operator: sub
  sample: ["(3,), (3,)"]
- op: sub.rscalar(Tensor x, Scalar y) -> Tensor
  infer: pointwise
  pointwise: true
  vjp: {x: -gy}
  operator: sub
  variants: [reflected]
  sample: ["(3,), 2"]
- op: mul(Tensor x, Tensor y) -> Tensor
  doc: Product.
  infer: pointwise
  pointwise: true
  vjp: {x: gy * y, y: gy * x}
  operator: mul
  sample: ["(3,), (3,)"]
- op: mul.scalar(Tensor x, Scalar y) -> Tensor
  infer: pointwise
  pointwise: true
  vjp: {x: gy * y}
  operator: mul
  sample: ["(3,), 2"]
- op: neg(Tensor x) -> Tensor
  doc: Minus.
  infer: pointwise
  pointwise: true
  vjp: {x: -gy}
  operator: neg
  sample: ["(3,)"]
- op: sum(Tensor x, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None) -> Tensor
  doc: Sum of elements.
  infer: sum
  reduce: true
  vjp:
    x: expand_reduced(gy, x.meta, dim, keepdim)
  linear: [x]
  batch: dims
  dims: dim
  variants: [function, method, out]
  sample: ["(3, 4), dim=1"]
- op: matmul(Tensor x, Tensor y) -> Tensor
  doc: Matrix product.
  infer: matmul
  vjp: {x: "matmul_x(gy, y, x.meta)", y: "matmul_y(gy, x, y.meta)"}
  linear: [x, y]
  batch: matmul
  operator: matmul
  sample: ["(3, 4), (4, 5)"]
- op: reshape(Tensor x, int[*] shape) -> Tensor
  doc: Other shape.
  infer: reshape
  may_view: true
  kernel: copy
  vjp: {x: "reshape(gy, x.shape)"}
  linear: [x]
  batch: shape
  dims: shape
  sample: ["(3, 4), (4, 3)"]
"""
UNARY = """
- op: foo(Tensor x) -> Tensor
  doc: Foo.
  infer: pointwise
  pointwise: true
  {key}
  sample: ["(3,)"]
"""


def read(tmp_path, *texts):
    (tmp_path / "t.yaml").write_text("".join(texts))
    return load(tmp_path)


def unary(key):
    return UNARY.replace("{key}", key)


def entry(**changes):
    """A good entry with some keys changed, or left out (None)."""
    keys = {
        "op": "foo(Tensor x, int dim=0) -> Tensor",
        "doc": "Foo.",
        "infer": "foo",
        "vjp": "{x: gy}",
        "batch": "none",
        "sample": '["(3,)"]',
        **changes,
    }
    return (
        "\n- "
        + "\n  ".join(f"{key}: {value}" for key, value in keys.items() if value is not None)
        + "\n"
    )


def formula_of(tmp_path, text):
    """The C functions of an op whose gradient is `text`."""
    code = rules.generate(read(tmp_path, BASE, unary(f'vjp: {{x: "{text}"}}')))
    return code[code.index("static sp_status vjp_foo") :]


# ---- tables that do not hold --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"doc": None}, "'doc' is missing"),
        ({"sample": None}, "'sample' is missing"),
        ({"sample": "[]"}, "'sample' is missing"),
        ({"infer": None}, "'infer' is missing"),
        ({"vjp": None}, "no derivative for x"),
        ({"batch": None}, "'batch' is missing"),
        ({"batch": "side ways"}, "'side ways' cannot name a rule"),
        ({"batch": "leading", "mapped": "[y]"}, "mapped: there is no tensor input 'y'"),
        ({"batch": "leading", "mapped": "[x]"}, "'mapped' needs a rule"),
        ({"composite": "foo", "mapped": "[x]"}, "'mapped' needs a rule"),
        ({"batch": "dims"}, "needs 'dims: <attribute>'"),
        ({"batch": "dims", "dims": "axis"}, "no attribute 'axis'"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"pointwise": "often"}, "'pointwise' must be of type bool"),
        ({"variants": "[function, sideways]"}, "unknown variant 'sideways'"),
        ({"operator": "plus"}, "unknown operator 'plus'"),
        ({"operator": "add"}, "takes its operands and nothing else"),
        ({"vjp": "{z: gy}"}, "no tensor input 'z'"),
        ({"vjp": "{x: gy, x: gy}"}, "given twice"),
        ({"vjp": "{x: expand(gy, dim)}"}, "wants quotes"),
        ({"nondiff": "[x]"}, "stands in vjp and in nondiff"),
        ({"nondiff": "true"}, "exclude each other"),
        ({"linear": "[dim]"}, "linear: there is no tensor input 'dim'"),
        ({"raises": "{EBAD: never}"}, "'EBAD' is no status"),
        ({"args": "{axis: no}"}, "there is no parameter 'axis'"),
        ({"sample": '["(3,), 1, 2"]'}, "3 positional arguments"),
        ({"sample": '["(3,), axis=1"]'}, "no parameter 'axis'"),
        ({"sample": '["wild((3,))"]'}, "unknown maker"),
        ({"sample": '["x + 1"]'}, "is no literal"),
        ({"sample": '["(3,"]'}, "cannot be read"),
        ({"sample": '[""]'}, "x missing"),
        (
            {"op": "foo(Tensor default) -> Tensor", "vjp": "{default: gy}"},
            "'default' cannot name a parameter",
        ),
        ({"op": "foo(Tensor out) -> Tensor", "vjp": "{out: gy}"}, "'out' cannot name a parameter"),
        (
            {"op": "foo(Tensor x, Tensor tx) -> Tensor", "vjp": "{x: gy, tx: gy}"},
            "'tx' cannot name a parameter",
        ),
        ({"view": "true", "may_view": "true"}, "exclude each other"),
    ],
)
def test_refused(tmp_path, changes, message):
    with pytest.raises(TableError) as caught:
        read(tmp_path, entry(**changes))
    assert message in str(caught.value)
    assert "t.yaml:2" in str(caught.value) or "twice" in message


def test_all_problems_at_once(tmp_path):
    with pytest.raises(TableError) as caught:
        read(
            tmp_path, entry(doc=None, batch=None), entry(op="bar(Tensor x) -> Tensor", sample=None)
        )
    text = str(caught.value)
    assert (
        "foo: 'batch' is missing" in text
        and "foo: 'doc' is missing" in text
        and "bar: 'sample' is missing" in text
    )


def test_same_name_twice(tmp_path):
    with pytest.raises(TableError, match="the name 'foo' is taken"):
        read(tmp_path, entry(), entry())


def test_choice_named_like_an_op(tmp_path):
    chooses = entry(op="bar(Tensor x, a|b foo) -> Tensor", sample="[\"(3,), 'a'\"]")
    with pytest.raises(TableError, match="bar: 'foo' cannot name a choice"):
        read(tmp_path, entry(), chooses)


def test_overload_shares_documentation(tmp_path):
    ops = read(tmp_path, BASE)
    scalar = next(op for op in ops if op.name == "add.scalar")
    assert scalar.doc == "Sum." and scalar.root.name == "add"


def test_empty_folder(tmp_path):
    with pytest.raises(TableError, match="no table files"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo(Tensor x", "cannot read signature"),
        ("foo(Tensr x) -> Tensor", "unknown type 'Tensr'"),
        ("foo(int dim=None) -> Tensor", "needs the type int?"),
        ("foo(int dim=0.5) -> Tensor", "is no int"),
        ("foo(Tensor x=1) -> Tensor", "can only default to None"),
        ("foo(none|mean r='max') -> Tensor", "none of none, mean"),
        ("foo(int a=0, int b) -> Tensor", "follows one that has a default"),
        ("foo(Tensor x) -> int", "cannot read result"),
        ("foo(Tensor x) -> (Tensor a, Tensor a)", "cannot read result"),
        ("foo(dtype d=float8) -> Tensor", "cannot read default"),
    ],
)
def test_bad_signature(text, message):
    with pytest.raises(SignatureError, match=re.escape(message)):
        parse_signature(text)


def test_signature():
    name, params, outputs = parse_signature(
        "max.dim(Tensor x, int[]? dim=None, *, dtype d=float64) -> (Tensor values, Tensor at)"
    )
    assert name == "max.dim" and outputs == ["values", "at"]
    assert [p.kind for p in params] == ["tensor", "ints", "dtype"]
    assert (
        params[1].optional
        and not params[1].kwonly
        and params[2].kwonly
        and params[2].default == "float64"
    )


# ---- formulas -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gy * z", "unknown name 'z'"),
        ("gy *", "cannot be read"),
        ("1 + 2", "is no tensor"),
        ("gy / x", "no op of the table is bound to operator 'truediv'"),
        ("sum(gy, x)", "no overload takes (tensor, tensor)"),
        ("sum(gy, axis=1)", "no overload takes"),
        ("helper(gy, dim=1)", "no op is called 'helper'"),
        ("gy if x else gy", "IfExp is not part of the formula language"),
        ("gy.T", "tensors have shape"),
        ("op('nothing', gy)", "op() wants the name"),
        ("x < y < 1", "one comparison at a time"),
        ("sum(*gy)", "not part of the formula language"),
    ],
)
def test_bad_formula(tmp_path, text, message):
    with pytest.raises(TableError) as caught:
        formula_of(tmp_path, text)
    assert message in str(caught.value) and "foo: vjp:" in str(caught.value)


def test_scalar_on_the_left(tmp_path):
    assert "sp_sub_rscalar(t0, SP_INT(1), &t1)" in formula_of(tmp_path, "gy * (1 - out * out)")
    assert "sp_mul_scalar(gy, SP_FLOAT(0.5), &t0)" in formula_of(tmp_path, "0.5 * gy")


def test_whole_numbers_stay_whole(tmp_path):
    """So that they fit parameters of kind int: the derivative of order n + 1."""
    ops = read(
        tmp_path,
        BASE,
        """
- op: foo(int n, Tensor x) -> Tensor
  doc: Foo.
  infer: foo
  pointwise: true
  vjp: {x: "gy * foo(2 * n + 1, x)"}
  sample: ["1, (3,)"]
""",
    )
    assert "sp_foo(((2 * a->attr[0].v.i) + 1), x, &" in rules.generate(ops)


def test_common_subexpression_once(tmp_path):
    code = formula_of(tmp_path, "gy * (x * x) + x * x")
    assert code.split("sp_status jvp_foo")[0].count("sp_mul(x, x,") == 1


def test_shared_between_inputs_and_guarded(tmp_path):
    ops = read(
        tmp_path,
        BASE,
        """
- op: foo(Tensor x, Tensor y) -> Tensor
  doc: Foo.
  infer: foo
  vjp: {x: helper(gy) * y, y: helper(gy) * x}
  batch: none
  sample: ["(3,), (3,)"]
""",
    )
    code = rules.generate(ops)
    body = code[code.index("static sp_status vjp_foo") : code.index("reads_in_foo")]
    assert body.count("sp__rule_helper") == 1
    assert body.index("sp__rule_helper") < body.index("a->need & 0x1") < body.index("a->need & 0x2")


def test_what_is_not_documented_is_refused(tmp_path):
    told = read(
        tmp_path,
        """
- op: foo(Tensor x, int n) -> Tensor
  doc: Foo.
  args: {x: floating, n: how many}
  returns: x's shape
  raises: {}
  infer: foo
  nondiff: true
  batch: none
  sample: ["(3,), 2"]
- op: foo.other(Tensor x, int n, bool far=False) -> Tensor
  args: {far: or near}
  infer: foo
  nondiff: true
  batch: none
  sample: ["(3,), 2"]
""",
    )
    assert docs.undocumented(told) == []
    assert "- raises nothing of its own" in docs.reference(told, {})
    told[0].keys.pop("raises")
    told[0].keys["args"].pop("n")
    first, second = docs.undocumented(told)
    assert "foo: not documented: args: 'n', 'raises'" in first
    assert "foo.other: not documented: args: 'n' " in second


def test_geometry_is_not_saved(tmp_path):
    ops = read(tmp_path, BASE)
    code = rules.generate(ops)
    row = code[code.index("[SP_OP_RESHAPE]") :].split("}")[0]
    assert ".saves_in = 0," in row and "a->in_meta[0].shape" in code
    row = code[code.index("[SP_OP_MUL]") :].split("}")[0]
    assert ".saves_in = 0x3" in row
    assert "reads_in_mul[] = {0x2, 0x1}" in code


FLAT = """
- op: gt(Tensor x, Tensor y) -> Tensor
  doc: Whether x is above y.
  infer: compare
  pointwise: true
  nondiff: true
  operator: gt
  sample: ["(3,), (3,)"]
- op: sign(Tensor x) -> Tensor
  doc: Sign.
  infer: pointwise
  pointwise: true
  vjp:
    x: fill(gy, 0)
  sample: ["(3,)"]
- op: where(Tensor cond, Tensor x, Tensor y) -> Tensor
  doc: Choice.
  infer: pointwise
  pointwise: true
  nondiff: [cond]
  vjp:
    x: where(cond, gy, gy)
    y: where(cond, gy, gy)
  sample: ["(3,), (3,), (3,)"]
"""


@pytest.mark.parametrize(
    "formula, bends_in, bends_out",
    [
        ("gy * x", "0x1", "0"),
        ("gy * out", "0", "0x1"),
        ("gy * sign(x)", "0", "0"),
        ("where(x > out, gy, x)", "0x1", "0"),
        ("helper(gy, x, out)", "0x1", "0x1"),
        ("reshape(gy, x.shape)", "0", "0"),
    ],
)
def test_what_is_only_compared_does_not_bend(tmp_path, formula, bends_in, bends_out):
    code = rules.generate(read(tmp_path, BASE, FLAT, unary(f"vjp: {{x: '{formula}'}}")))
    assert f"bends_in_foo[] = {{{bends_in}}}" in code
    assert f"bends_out_foo[] = {{{bends_out}}}" in code


def test_pointwise_sums_to_input(tmp_path):
    code = rules.generate(read(tmp_path, BASE))
    assert "sp__rule_sum_to(gy, &a->in_meta[0], &a->gx[0])" in code
    assert "sp__rule_expand_like(tx, out, &t0)" in code


def test_linear_jvp_replaces_each_input(tmp_path):
    code = rules.generate(read(tmp_path, BASE))
    jvp = code[code.index("static sp_status jvp_matmul") :]
    assert "sp_matmul(tx, y, &t0)" in jvp and "sp_matmul(x, ty, &t1)" in jvp


def test_missing_tangents_become_zeros(tmp_path):
    code = rules.generate(
        read(
            tmp_path,
            BASE,
            """
- op: foo(Tensor x, Tensor y) -> Tensor
  doc: Foo.
  infer: foo
  vjp: {x: gy, y: gy}
  jvp: foo(tx, ty)
  batch: none
  sample: ["(3,), (3,)"]
""",
        )
    )
    jvp = code[code.index("static sp_status jvp_foo") :]
    assert "if (tx || ty)" in jvp and "sp__rule_or_zeros(tx, x, &t0)" in jvp


def test_several_outputs(tmp_path):
    ops = read(
        tmp_path,
        BASE,
        """
- op: foo(Tensor x) -> (Tensor values, Tensor rest)
  doc: Foo.
  infer: foo
  vjp:
    x: gy0 * rest - helper(gy0, gy1)
  batch: none
  sample: ["(3,)"]
""",
    )
    vjp = rules.generate(ops)
    vjp = vjp[vjp.index("static sp_status vjp_foo") :]
    assert (
        "if (gy0) {" in vjp
        and "if (gy0 || gy1) {" in vjp
        and "add_term(&a->gx[0], t1, true)" in vjp
    )
    with pytest.raises(TableError, match="pass it to a helper"):
        rules.generate(
            read(
                tmp_path,
                BASE,
                unary("")
                .replace("-> Tensor", "-> (Tensor a1, Tensor b1)")
                .replace("pointwise: true", "vjp: {x: gy0 * gy1}\n  batch: none"),
            )
        )


# ---- what comes out -----------------------------------------------------------------------------


def test_optional_and_defaults_in_c(tmp_path):
    header = capi.public_header(
        read(tmp_path, BASE, entry(op="foo(Tensor x, int dim=-1, none|mean r='mean') -> Tensor"))
    )
    header = " ".join(header.split())
    assert "bool has_dim; /* false: -1 */" in header
    assert "typedef enum sp_r { SP_R_NONE, SP_R_MEAN } sp_r;" in header
    assert "sp_add_(sp_tensor *x, const sp_tensor *y);" in header
    assert "sp_sum_out(const sp_tensor *x, const sp_sum_opt *opt, sp_tensor *out);" in header


def test_kernels(tmp_path):
    text = rows.kernels(read(tmp_path, BASE))
    assert "SP_CPU_POINTWISE(SP_OP_ADD, add, 2)" in text
    assert "SP_CPU_KERNEL(SP_OP_RESHAPE, sp__cpu_copy)" in text and "sp__cpu_add" not in text


def test_samples(tmp_path):
    table = json.loads(docs.samples(read(tmp_path, BASE)))["ops"]
    (sample,) = next(e for e in table if e["name"] == "sum")["samples"]
    assert sample["args"] == [{"tensor": "normal", "shape": [3, 4]}] and sample["kwargs"] == {
        "dim": 1
    }


def test_stubs_and_docstrings(tmp_path):
    ops = read(tmp_path, BASE)
    stubs = docs.stubs(ops, docs.STUB_TEMPLATE)
    compile(stubs, "_C.pyi", "exec")
    assert "def reshape(self, *shape: int) -> Tensor: ..." in stubs and "def __rsub__" in stubs
    text = docs.docstring([op for op in ops if op.base == "sum"], "sum", "method")
    assert text.startswith(
        "sum($self, dim=None, keepdim=False, *, dtype=None)\n--\n\nSum of elements."
    )


def run_generator(*args):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools/opgen.py"), *map(str, args)],
        capture_output=True,
        text=True,
    )


def test_unchanged_files_keep_their_time(tmp_path):
    first = run_generator("--out", tmp_path)
    assert first.returncode == 0, first.stderr
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(before) == 9
    assert run_generator("--out", tmp_path).returncode == 0
    assert before == {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_command_line_names_the_broken_entry(tmp_path):
    root = tmp_path / "root"
    (root / "ops").mkdir(parents=True)
    (root / "tensor").mkdir()
    shutil.copy(ROOT / "tensor/spool.h.in", root / "tensor")
    (root / "ops/bad.yaml").write_text(entry(doc=None))
    result = run_generator("--root", root, "--out", tmp_path / "gen")
    assert (
        result.returncode == 1 and "opgen: ops/bad.yaml:2: foo: 'doc' is missing" in result.stderr
    )
    assert not (tmp_path / "gen").exists()


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_generated_c_is_clean(tmp_path, compiler):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    ops = read(
        tmp_path,
        BASE,
        entry(op="foo(Tensor x, int dim=-1, none|mean r='mean') -> Tensor"),
        """
- op: cat(Tensor[] xs, int dim=0) -> Tensor
  doc: One after the other.
  infer: cat
  vjp: {xs: "cat_part(gy, xs.metas, i, dim)"}
  batch: none
  sample: ["[(2, 3), (1, 3)]"]
- op: rand(int[*] size, *, dtype dtype=float32) -> Tensor
  doc: Random numbers.
  infer: rand
  random: true
  nondiff: true
  batch: create
  sample: ["(3, 4)"]
- op: top(Tensor x, int k, int[] dims=[0, 1]) -> (Tensor values, Tensor indices)
  doc: Largest.
  infer: top
  vjp: {x: "top_part(gy0, gy1, indices, x.shape, k, dims)"}
  batch: none
  sample: ["(3,), 2"]
""",
    )
    gen = tmp_path / "gen"
    (gen / "autograd").mkdir(parents=True)
    header = (ROOT / "tensor/spool.h.in").read_text()
    autograd = rules.generate(ops)
    helpers = sorted(set(re.findall(r"sp__rule_\w+(?=\()", autograd)))
    files = {
        "spool.h": header.replace("/*@OPS@*/", capi.public_header(ops)),
        "ops_gen.h": rows.header(ops),
        "ops_gen.c": "\n".join(
            [capi.ENTRY_PRELUDE, rows.table(ops), capi.ENTRY_HELPERS, capi.entry_points(ops)]
        ),
        "autograd/rules.h": '#include "tensor/tensor.h"\n'
        + "".join(f"sp_status {name}();\n" for name in helpers),
        "autograd_gen.c": autograd,
        "python_gen.c": pyapi.generate(ops),
    }
    for name, text in files.items():
        (gen / name).write_text(text)
    flags = [
        "-std=gnu17",
        "-fsyntax-only",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-missing-field-initializers",
        "-I",
        gen,
        "-I",
        ROOT,
    ]
    python = ["-I", sysconfig.get_paths()["include"]]
    for name in ("ops_gen.c", "autograd_gen.c", "python_gen.c"):
        result = subprocess.run(
            [compiler, *flags, *python, gen / name], capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
