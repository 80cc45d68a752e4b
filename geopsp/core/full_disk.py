"""Whether a write failed because the disk, or a quota on it, is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path

FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
"""Errors of a full disk, a limit of file sizes and a quota."""


FULL_WORDS = {os.strerror(code) for code in FULL} | {"disk is full"}  # SQLite's
"""The same in messages of GDAL, which has no numbers."""


TRIAL_BYTES = 2**20
"""Bytes that are written to find out."""


def full_disk_hint(error: BaseException | None = None, path: Path | None = None) -> str:
    """Return " Is the disk full?" if an error of writing, or a trial to write more, says so; else "".

    Args:
        error: As raised by the system or, often without a reason, by GDAL; None if there was none.
        path: An unfinished file that is removed afterwards; the trial is appended to it, or to the largest file beside
            it if that is larger.
    """
    code = getattr(error, "errno", None)
    if code is None and any(words in str(error) for words in FULL_WORDS):
        code = errno.ENOSPC
    if code is None and path is not None:
        code = _trial(path)
    return " Is the disk full?" if code in FULL else ""


def _trial(path: Path) -> int | None:
    """Return the error number of writing more, None if that works."""
    try:
        files = [path, *(file for file in path.parent.iterdir() if file.is_file())]
        largest = max((file for file in files if file.exists()), key=lambda file: file.stat().st_size, default=path)
        with largest.open("ab") as file:
            file.write(bytes(TRIAL_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    return None
