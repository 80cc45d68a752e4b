"""Runs commands of the shell in processes of their own, bounded in time and memory, with all imports paid once.

A server process imports everything, starts no thread, and forks for each job. It reads jobs from its standard input,
one line of JSON each, and answers with one line each; the output of a job goes to a file.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

MAX_SECONDS = 20.0
MAX_BYTES = 2 * 2**30
"""Resident memory, the libraries included."""

RESERVED_BYTES = 12 * 2**30
"""Address space beyond what the server has: more than this is never reserved, used or not."""

UNHANDLED = 99
"""Exit status after an exception that no command caught."""

PAGE = resource.getpagesize()


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    code: int
    """Exit status; negative: the signal that ended it."""

    seconds: float
    peak: int
    """Resident memory in bytes."""

    stopped: str
    """Why the server ended it; "" if it did not."""

    text: str
    """What it printed."""


class Server:
    """The client's side of a server."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._process: subprocess.Popen[str] | None = None

    def run(
        self,
        folder: Path,
        *,
        args: list[str] | None = None,
        call: str = "",
        given: list[Any] | None = None,
        seconds: float = 0,
    ) -> Outcome:
        """Run a command, or a function "module:name" with what is given to it, in a folder."""
        log = self.scratch / "log.txt"
        job = {
            "args": args,
            "call": call,
            "given": given or [],
            "cwd": str(folder),
            "log": str(log),
            "seconds": seconds or MAX_SECONDS,
        }
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, f"the server ended with {process.wait()}"
        return Outcome(text=log.read_text(encoding="utf-8", errors="replace"), **json.loads(answer))

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            tests = Path(__file__).parents[1]
            paths = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
            home = self.scratch / "home"
            home.mkdir(parents=True, exist_ok=True)
            environment = os.environ | {
                "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GEOPSP_SYNC": "0", "TMPDIR": str(home), "COLUMNS": "200",
                "CPL_LOG": os.devnull, "MPLBACKEND": "agg", "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1",
            }  # fmt: skip
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__))], env=environment, text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )  # fmt: skip
        return self._process

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()


MODULES = (
    "rasterio", "pyogrio", "pyarrow.parquet", "segmentation_models_pytorch", "timm", "lightning", "pystac", "geopandas",
    "geopsp.cli.commands", "geopsp.report.describe", "geopsp.report.describe_vector", "geopsp.report.describe_images",
    "geopsp.report.describe_raster", "geopsp.report.summary", "geopsp.chips.export_training_data",
    "geopsp.training.classifier", "geopsp.training.networks", "geopsp.training.fit", "geopsp.training.training_data",
    "geopsp.training.evaluate", "geopsp.inference.classify_pixels", "geopsp.inference.run_job", "pyogrio._io",
    "geopsp.polygons.raster_to_polygons", "geopsp.polygons.polygonizer", "geopsp.vector.write",
    "geopsp.labels.read_labels", "torch.utils.flop_counter",
)  # fmt: skip


def warm_up() -> None:
    """Do once what each process would do again: imports, compiled functions, the memory that a network needs."""
    for module in MODULES:
        import_module(module)
    from geopsp.core.jit import compile_ahead
    from geopsp.inference.map_run import COMPILED
    from geopsp.models import memory
    from geopsp.polygons.options import PolygonSettings
    from geopsp.polygons.polygonizer import compiled_modules

    memory._forward_bytes_by_shapes = lambda *_: 2**24
    compile_ahead(COMPILED)
    compile_ahead(compiled_modules(PolygonSettings()))


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes elsewhere
    os.dup2(2, 1)
    warm_up()
    for line in sys.stdin:
        answers.write(json.dumps(run_job(json.loads(line))) + "\n")
        answers.flush()


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    start = time.monotonic()
    pid = os.fork()
    if not pid:
        work(job)
    stopped, peak = "", 0
    pause = 0.002
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        peak = max(peak, resident(pid))
        seconds = time.monotonic() - start
        if peak > MAX_BYTES or seconds > job["seconds"]:
            stopped = f"{peak / 2**20:,.0f} MB" if peak > MAX_BYTES else f"still running after {seconds:.0f} s"
            os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            break
        time.sleep(pause)
        pause = min(pause * 1.2, 0.02)
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "seconds": time.monotonic() - start, "peak": peak, "stopped": stopped}


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def work(job: dict[str, Any]) -> None:
    """Run a job in the forked process, and end it."""
    os.setpgid(0, 0)  # with the processes that it starts it can be ended
    code: Any = UNHANDLED
    try:
        output = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, null), (1, output), (2, output)):
            os.dup2(source, target)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        reserved = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * PAGE + RESERVED_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (reserved, reserved))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(job["cwd"])
        code = command(job["args"]) if job["args"] else call(job["call"], *job["given"])
    except BaseException:  # noqa: BLE001 (this is what is looked for)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def command(args: list[str]) -> int:
    from geopsp.cli.commands import main

    try:
        main(args)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    return 0


def call(name: str, *given: Any) -> int:
    module, _, function = name.partition(":")
    getattr(import_module(module), function)(*given)
    return 0


if __name__ == "__main__":
    serve()
