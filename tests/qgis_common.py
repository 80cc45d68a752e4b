"""QGIS for tests: that of the system, in processes of its own, as its Python is not ours."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

PYTHON = shutil.which("python3", path="/usr/bin")
"""Debian's Python, which its PyQGIS belongs to."""

SECONDS = 300


@functools.cache
def has_qgis() -> bool:
    """True if PyQGIS can be imported."""
    if PYTHON is None:
        return False
    return subprocess.run([PYTHON, "-c", "import qgis.core"], capture_output=True, check=False).returncode == 0


def require_qgis() -> None:
    """Skip the test where QGIS is not installed."""
    if not has_qgis():
        pytest.skip("PyQGIS is not installed for the system's Python (Debian: apt-get install python3-qgis)")


def qgis_environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a QGIS without a screen, whose settings lie in a folder of the test."""
    run = home / "run"
    run.mkdir(mode=0o700, exist_ok=True, parents=True)
    return {
        "QT_QPA_PLATFORM": "offscreen", "HOME": str(home), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8",
        "XDG_RUNTIME_DIR": str(run), "TMPDIR": str(run),
    } | more  # fmt: skip


def find_qgis_process() -> str:
    """The path of `qgis_process`; skip the test where there is none.

    Debian's script of this name gives it an option that it does not know, so its program is called.
    """
    found = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
    if found is None:
        pytest.skip("qgis_process is not installed (Debian: apt-get install qgis)")
    return found


def run_pyqgis(script: str, *args: Any, home: Path, **environment: str) -> Any:
    """Run a script in PyQGIS, after QGIS is set up; it calls `answer(...)` once, with what is returned here."""
    require_qgis()
    assert PYTHON is not None
    answer = home / "answer.json"
    answer.unlink(missing_ok=True)
    done = subprocess.run(
        [PYTHON, "-X", "faulthandler", "-c", START + script, str(answer), *map(str, args)],
        env=qgis_environment(home, **environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert answer.exists(), f"status {done.returncode}: {done.stdout}{done.stderr}"
    return json.loads(answer.read_text(encoding="utf-8"))


START = """
import json, sys
from qgis.core import *
application = QgsApplication([], False)
application.initQgis()
def answer(found):
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(found, file)
"""
