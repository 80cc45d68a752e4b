"""Whatever step is killed at whatever moment: no file of the user changes, and the same command ends in the same bytes.

GEOPSP_KILLS is the number of SIGKILLs in the slow test, GEOPSP_SIGNALS that of SIGTERM and SIGINT.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import steps
from common import REPOSITORY

SCRIPT = REPOSITORY / "tests" / "kill_steps.py"

KILLS, SIGNALS = (int(os.environ.get(name, count)) for name, count in (("GEOPSP_KILLS", 200), ("GEOPSP_SIGNALS", 50)))


def kill(folder, plan, seed):
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, SCRIPT, folder, str(seed), *plan]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def require_nothing_lost(found, count):
    for name, result in found.items():
        assert not result.get("lost"), (name, result)
        assert not result["differing"], (name, result)
        assert not result["work left"], (name, result)
        assert not result["changed"], (name, result)
    assert sum(result["sent"] for result in found.values()) >= count


def test_a_handful_of_kills_cost_nothing(tmp_path):
    require_nothing_lost(kill(tmp_path, ["export:2:0", "append:1:0", "polygonize shp:1:2"], seed=1), 6)


@pytest.mark.slow
def test_no_kill_of_any_step_costs_anything(tmp_path):
    each, signals = -(-KILLS // len(steps.STEPS)), 2 * -(-SIGNALS // (2 * len(steps.STEPS)))
    plan = [f"{name}:{each}:{signals}" for name in steps.STEPS]
    require_nothing_lost(kill(tmp_path, plan, seed=int(os.environ.get("GEOPSP_SEED", "0"))), KILLS + SIGNALS)
