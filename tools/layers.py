"""Checks that every folder includes only what stands left of it.

    tensor < ops < {autograd, backends} < jit < bindings        tests, tools: anything

Also: `x_int.h` is for its own folder only, and every header compiles alone (its includes are complete).
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAY_INCLUDE = {
    "tensor": {"tensor"},
    "ops": {"tensor", "ops"},
    "autograd": {"tensor", "ops", "autograd"},
    "backends": {"tensor", "ops", "backends"},
    "jit": {"tensor", "ops", "autograd", "backends", "jit"},
    "bindings": {"tensor", "ops", "autograd", "backends", "jit", "bindings"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def broken_includes(path: Path, layer: str) -> list:
    """Messages for each include in `path` that its folder may not have."""
    messages = []
    for target in INCLUDE.findall(path.read_text()):
        folder = target.split("/")[0] if "/" in target else layer
        where = f"{path.relative_to(ROOT)}: includes {target}"
        if folder in MAY_INCLUDE and folder not in MAY_INCLUDE[layer]:
            messages.append(f"{where}, but {layer}/ stands below {folder}/")
        if target.endswith("_int.h") and Path(target).parent not in (
            Path("."),
            path.parent.relative_to(ROOT),
        ):
            messages.append(f"{where}, which is internal to its folder")
    return messages


def main() -> int:
    messages = []
    for layer in MAY_INCLUDE:
        for path in sorted((ROOT / layer).rglob("*.[ch]")):
            messages += broken_includes(path, layer)
    for message in messages:
        print(message)
    return 1 if messages else 0


if __name__ == "__main__":
    sys.exit(main())
