#!/usr/bin/env python3
"""Writes what follows from the op table: C interface, derivatives, Python entry points, docs.

    opgen.py --root <source root> --out <folder> [--depfile FILE] [--check]

Files whose text did not change keep their time stamp, so that a build goes on only where something
changed. The table's language is in ops/TABLE.md; the parts of this program are in tools/optable/.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

sys.dont_write_bytecode = True
try:
    import yaml  # noqa: F401
except ImportError:
    sys.exit(
        f"opgen: PyYAML is missing for {sys.executable}; install it: {sys.executable} -m pip install pyyaml"
    )

from optable import capi, docs, pyapi, rows, rules  # noqa: E402
from optable.table import TableError, load  # noqa: E402

MARK = "/*@OPS@*/"


def outputs(ops, root):
    """File name -> text, for everything that is generated."""
    header = (root / "tensor/spool.h.in").read_text(encoding="utf-8")
    if header.count(MARK) != 1:
        raise TableError([f"tensor/spool.h.in: the mark {MARK} must occur once"])
    stub_template = root / "bindings/python/spool/_C.pyi.in"
    template = (
        stub_template.read_text(encoding="utf-8") if stub_template.exists() else docs.STUB_TEMPLATE
    )
    return {
        "spool.h": header.replace(MARK, capi.public_header(ops)),
        "ops_gen.h": rows.header(ops),
        "cpu_kernels_gen.h": rows.kernels(ops),
        "ops_gen.c": "\n".join(
            [capi.ENTRY_PRELUDE, rows.table(ops), capi.ENTRY_HELPERS, capi.entry_points(ops), ""]
        ),
        "autograd_gen.c": rules.generate(ops),
        "python_gen.c": pyapi.generate(ops),
        "_C.pyi": docs.stubs(ops, template),
        "ops.md": docs.reference(ops, measured(root)),
        "_samples.json": docs.samples(ops),
    }


def measured(root):
    """Largest distances from the exact values, as tests/python/test_accuracy.py wrote them: {op: row}."""
    path = root / "ops/accuracy.csv"
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["op"]: row for row in csv.DictReader(file)}


def write(folder, files):
    """Writes what differs from what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def dependencies(root):
    """Everything the output depends on; the folder itself, so that a new table file counts."""
    here = Path(__file__).resolve().parent
    files = [
        root / "ops",
        *sorted((root / "ops").glob("*.yaml")),
        *sorted((root / "ops").glob("*.csv")),
        root / "tensor/spool.h.in",
        here / "opgen.py",
    ]
    files += sorted((here / "optable").glob("*.py"))
    stub_template = root / "bindings/python/spool/_C.pyi.in"
    return files + ([stub_template] if stub_template.exists() else [])


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).resolve().parent.parent, help="the source tree"
    )
    parser.add_argument("--out", type=Path, required=True, help="where the files go")
    parser.add_argument("--depfile", type=Path, help="a Makefile fragment of what was read")
    parser.add_argument("--check", action="store_true", help="say what was found")
    args = parser.parse_args()
    try:
        ops = load(args.root / "ops")
        if unsaid := docs.undocumented(ops):
            raise TableError(unsaid)
        files = outputs(ops, args.root)
    except TableError as error:
        for problem in error.problems:
            print(
                f"opgen: ops/{problem}"
                if ".yaml" in problem.split(":")[0]
                else f"opgen: {problem}",
                file=sys.stderr,
            )
        return 1
    write(args.out, files)
    if args.depfile:
        names = " ".join(str(path).replace(" ", "\\ ") for path in dependencies(args.root))
        args.depfile.write_text(f"{args.out / next(iter(files))}: {names}\n", encoding="utf-8")
    if args.check:
        print(
            f"{len(ops)} ops in {len({op.family for op in ops})} files; {len(files)} files in {args.out}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
