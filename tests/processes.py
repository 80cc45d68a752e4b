"""Work in processes of its own, which may be killed."""

from __future__ import annotations

import os
import sys
import traceback

from geopsp.errors import OutputError


def in_child(action) -> int:
    """The process in which the action runs; it exits with 0 if that ends well, with 3 for an OutputError, else 1."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        action()
        code = 0
    except OutputError as error:
        sys.stderr.write(f"OutputError: {error}\n")
        code = 3
    except BaseException:  # noqa: BLE001 (told, and the process ends)
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
