"""A script that starts processes needs a guard; one line says so."""

from __future__ import annotations

import subprocess
import sys

import pytest
from common import REPOSITORY

CALL = """
def work():
    require_main_guard("`workers=2`")
    print("worked")
"""


@pytest.mark.parametrize(
    ("calls", "fails"),
    [
        ("work()", True),
        ("for _ in range(1):\n    work()", True),
        ("if True:\n    work()", True),
        ("if __name__ == '__main__':\n    work()", False),
        ("import sys\nif __name__ == '__main__' and len(sys.argv) < 3:\n    (lambda: work())()", False),
        ("exec(compile('work()', '<string>', 'exec'), {'work': work})", True),
    ],
)
@pytest.mark.parametrize("start", ["script", "module"])
def test_a_call_without_a_guard_is_refused(calls, fails, start, tmp_path):
    script = tmp_path / "job.py"
    script.write_text(f"from geopsp.core.main_guard import require_main_guard\n{CALL}\n{calls}\n")
    command = [sys.executable, str(script)] if start == "script" else [sys.executable, "-m", "job"]
    environment = {"PYTHONPATH": f"{REPOSITORY}:{tmp_path}", "PATH": ""}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ("worked" in found.stdout) is not fails
    if fails:
        last = found.stderr.strip().splitlines()[-1]
        assert f"`workers=2` starts processes that import {script} again. Put its calls under `if __name__ ==" in last


@pytest.mark.parametrize("words", [["-c"], ["-m", "job"], ["-"]])
def test_where_no_script_is_imported_again_no_guard_is_needed(words, tmp_path):
    code = f"from geopsp.core.main_guard import require_main_guard\n{CALL}\nwork()\n"
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "__main__.py").write_text(code)
    found = subprocess.run(
        [sys.executable, *words, *([code] if words == ["-c"] else [])], capture_output=True, text=True, input=code,
        env={"PYTHONPATH": f"{REPOSITORY}:{tmp_path}", "PATH": ""}, check=False,
    )  # fmt: skip
    assert found.stdout == "worked\n", found.stderr
