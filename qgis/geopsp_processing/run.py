"""Run a command, hand on what it prints line by line, and stop it with all that it started. Needs no QGIS."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

POLL_SECONDS = 0.2
"""How soon a cancelled command is stopped."""

STOP_SECONDS = 5.0
"""What a command is given to end by itself when it is interrupted."""

CREATE_NO_WINDOW = 0x08000000
"""Windows: no black window for a program of the console."""

MAX_LAST_LINES = 5


class CommandError(Exception):
    """The command failed; the message is its own."""


@dataclass(frozen=True)
class Step:
    """How much of a step is done, 0 to 1."""

    title: str
    progress: float


@dataclass(frozen=True)
class Message:
    """A line that the command printed; `kind` is "info", "warning" or "error"."""

    kind: str
    text: str


def parse_line(line: str) -> Step | Message:
    """Return what a line says: lines of GEOPSP_PROGRESS=json are steps."""
    if line.startswith('{"progress":'):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found = json.loads(line)
            return Step(str(found["title"]), float(found["progress"]))
    for kind in ("warning", "error"):
        start = f"{kind.capitalize()}: "
        if line.startswith(start):
            return Message(kind, line[len(start) :])
    return Message("info", line)


def run(
    words: Sequence[str],
    environment: Mapping[str, str],
    *,
    on_line: Callable[[Step | Message], None],
    is_cancelled: Callable[[], bool],
) -> None:
    """Run a command until it ends, or is cancelled.

    Args:
        words: The command.
        environment: All its variables.
        on_line: Called in this thread with each line that it prints, but errors.
        is_cancelled: Asked a few times a second; True stops the command and what it started.

    Raises:
        CommandError: if it cannot be started or fails, and is not cancelled.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 (no shell)
            list(words), env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", start_new_session=os.name != "nt",
            creationflags=CREATE_NO_WINDOW if os.name == "nt" else 0,
        )  # fmt: skip
    except OSError as error:
        raise CommandError(f"{words[0]} cannot be started: {error.strerror or error}.") from error
    lines = _lines_of(process)
    errors: list[str] = []
    last: list[str] = []
    for line in iter(lambda: _next_line(lines, process, is_cancelled), None):
        found = parse_line(line)
        if isinstance(found, Message):
            last = [*last, found.text][-MAX_LAST_LINES:]
            errors += [found.text] if found.kind == "error" else []
        if not (isinstance(found, Message) and found.kind == "error"):
            on_line(found)
    status = process.wait()
    if status and not is_cancelled():
        raise CommandError(errors[-1] if errors else f"geopsp ended with status {status}: {' / '.join(last)}")


def _lines_of(process: subprocess.Popen[str]) -> queue.Queue[str | None]:
    """Return the lines as they come, read by a thread of their own; None after the last."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if text := line.rstrip():
                    lines.put(text)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def _next_line(
    lines: queue.Queue[str | None], process: subprocess.Popen[str], is_cancelled: Callable[[], bool]
) -> str | None:
    """Return the next line; None after the last, or if the command is cancelled, which is then stopped."""
    while True:
        if is_cancelled():
            stop(process)
            return None
        with contextlib.suppress(queue.Empty):
            return lines.get(timeout=POLL_SECONDS)


def stop(process: subprocess.Popen[str]) -> None:
    """End a command and the processes that it started: as Ctrl-C does, and by force if that does not help."""
    if os.name == "nt":
        kill = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
        subprocess.run(kill, capture_output=True, check=False, creationflags=CREATE_NO_WINDOW)  # noqa: S603
        return
    for number in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
