"""Progress for programs that start geopsp: lines of JSON among the messages, in place of bars.

A program asks for them by the environment variable GEOPSP_PROGRESS=json. Each line on standard error that begins with
`{"progress":` is one JSON object: `progress` is 0 to 1 within the step that `title` names, `note` a remark or "". A
command has one step or several; each begins at 0 and ends at 1 unless it is interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

from geopsp.core.log import is_main_process

VARIABLE = "GEOPSP_PROGRESS"


def wants_json() -> bool:
    """True if the program that started this process asked for lines of JSON."""
    return os.environ.get(VARIABLE) == "json"


def json_progress(title: str) -> Callable[..., None]:
    """Write the start of a step; return a `Progress` that writes a line for each per cent that is done."""
    written = -1

    def report(done: int, total: int, note: str = "", /) -> None:
        nonlocal written
        percent = 100 * done // max(total, 1)
        if percent > written and is_main_process():
            written = percent
            line = json.dumps({"progress": percent / 100, "title": title, "note": note})
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    report(0, 1)
    return report
