"""500 random programs give equal bits, and equal exceptions at equal lines, in every mode."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("random_programs.py")
COUNT = 500
MODES = {
    "blocking": ("plain", {"SPOOL_LAUNCH_BLOCKING": "1"}, 1),
    "two threads": ("plain", {"SPOOL_LAUNCH_BLOCKING": "1"}, 2),
    "queue everything": ("plain", {"SPOOL_QUEUE_MIN_US": "0"}, 2),
    "hot at once": ("hot", {"SPOOL_HOT_MIN": "1"}, 1),
    "jit": ("jit", {}, 1),
    "jit, queue everything": ("jit", {"SPOOL_QUEUE_MIN_US": "0"}, 2),
}


def run_mode(name):
    mode, knobs, threads = MODES[name]
    run = subprocess.run(
        [
            sys.executable,
            str(SCRIPT),
            "--mode",
            mode,
            "--seeds",
            f"0:{COUNT}",
            "--threads",
            str(threads),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, **knobs},
        timeout=600,
    )
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0, (
        f"{name}: stopped after seed {len(lines) - 1}:\n{run.stderr[-2000:]}"
    )
    return lines


@pytest.fixture(scope="module")
def blocking():
    return run_mode("blocking")


def outcome(line):
    return {key: line.get(key) for key in ("results", "notes", "error", "line")}


def test_programs_are_worth_running(blocking):
    failed = sum("error" in line for line in blocking)
    assert 0.02 * COUNT < failed < 0.3 * COUNT, "some programs end in an exception, most do not"
    assert sum(len(line.get("results", ())) for line in blocking) > 4 * (COUNT - failed)


@pytest.mark.parametrize("name", [name for name in MODES if name != "blocking"])
def test_same_as_blocking(name, blocking):
    lines = run_mode(name)
    for expected, line in zip(blocking, lines):
        assert outcome(line) == outcome(expected), (
            f"seed {line['seed']}: python {SCRIPT} --show {line['seed']}"
        )
        if "again" in line:
            assert outcome(line["again"]) == outcome(expected), f"seed {line['seed']}, a later call"
    if name.startswith("jit"):
        ops, compiled = (sum(line[key] for line in lines) for key in ("ops", "compiled_ops"))
        assert ops > 5 * COUNT
        assert compiled >= 0.9 * ops, f"{compiled} of {ops} ops ran compiled"
