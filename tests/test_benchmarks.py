"""Every benchmark runs in toy sizes and ends with one line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from common import REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"
QUICK = ("chips", "peers")
SLOW = (
    "accuracy", "context", "crf", "engines", "first_use", "gpu", "lr_find", "multispectral", "network_cost", "polygons",
    "ppm", "predict", "real_data", "sample", "scale", "sieve", "suggest", "sync", "train",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not here, but in the repository")


def test_every_benchmark_is_listed():
    scripts = {path.stem for path in BENCHMARKS.glob("*.py")} - {"common"}
    assert scripts == {*QUICK, *SLOW}


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_benchmark_runs(name, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)}
    command = [sys.executable, BENCHMARKS / f"{name}.py", "--smoke"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    if "skipped" in result:
        pytest.skip(result["skipped"])
    assert len(result) > 0
    assert "| " in done.stdout, "a table"
