"""Adding an op takes one table entry and one kernel line; tests/new_op does it to a copy of the tree."""

import os
import subprocess
import sys
from pathlib import Path


def test_new_op(tmp_path):
    script = Path(__file__).parent.parent / "new_op"
    run = subprocess.run(
        [str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "SPOOL_TEST_PYTHON": sys.executable},
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "from one entry and one line" in run.stdout
