"""Locks: of several runs, one at a time writes to an output."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from geopsp.core.output import resolve_link, write_errors
from geopsp.errors import OutputError

HOLDER = re.compile(r"geopsp: (process \d+ on [\w.-]+ since [\d: -]+)\n", re.ASCII)
"""What a lock file contains; those of earlier versions are empty."""

MAX_BYTES = 500
"""Size of a lock file at most."""


@contextmanager
def output_lock(out: Path) -> Iterator[None]:
    """Hold a lock file, so that no other run writes to the same output; it says who holds it.

    It works across machines if their shared disk supports locks, as NFS does.

    Raises:
        OutputError: if another run holds it, or if the disk is full.
    """
    path = resolve_link(out)
    lock = path.with_name(f".{path.name}.lock")
    with write_errors(out):
        _read_holder(lock)
        try:
            with FileLock(lock).acquire(timeout=0):
                try:
                    _write_holder(lock)
                    yield
                finally:
                    lock.unlink(missing_ok=True)
        except Timeout as error:
            by = f" ({holder})" if (holder := _read_holder(lock)) else ""
            raise OutputError(f"Another run{by} is writing to {out}. Wait for it, or choose another name.") from error


def _read_holder(lock: Path) -> str:
    """Return who holds a lock, or held it when it was killed; "" if that is unknown.

    Raises:
        OutputError: if what has the name of a lock is no lock.
    """
    try:
        status = lock.lstat()
        text = lock.read_text(encoding="utf-8", errors="replace") if _may_be_lock(status) else None
    except FileNotFoundError:  # there is none, or it was released meanwhile
        return ""
    if found := HOLDER.fullmatch(text or ""):
        return found[1]
    if text is None or not (text == "" or text.partition("\n")[0].isdecimal()):  # filelock's own, without flock
        raise OutputError(f"{lock} is in the way of a lock file. Rename it, or choose another output.")
    return ""


def _may_be_lock(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES


def _write_holder(lock: Path) -> None:
    """Say in a lock file which process holds it."""
    host = re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII) or "this machine"
    since = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
    with suppress(OSError), lock.open("r+", encoding="utf-8") as file:  # the disk may be full: the lock holds anyway
        file.truncate()
        file.write(f"geopsp: process {os.getpid()} on {host} since {since}\n")
