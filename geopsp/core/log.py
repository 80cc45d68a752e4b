"""Messages: standard logging under the name "geopsp", shown as plain text unless the application says otherwise.

Modules write `logger = logging.getLogger(__name__)`; what helps to follow the work is info, what may surprise is a
warning. Results are no messages: the shell prints them to standard output.
"""

from __future__ import annotations

import logging
import os
import sys
from functools import cache
from typing import Any

STYLES = {logging.DEBUG: "dim", logging.WARNING: "yellow", logging.ERROR: "red"}


def is_main_process() -> bool:
    """True in the process of rank 0. Only that one prints and writes files.

    Launchers tell each process its rank: torchrun and Lightning by RANK or LOCAL_RANK, Slurm by SLURM_PROCID.
    """
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return next((rank for rank in ranks if rank is not None), "0") == "0"


@cache
def console() -> Any:
    """The rich console of messages and progress bars: standard error, so that results can be piped."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


class MessageHandler(logging.Handler):
    """Prints messages: in color to a terminal, as plain text in a notebook or a log file."""

    always = False
    """True prints even where the application has set up logging of its own (the root logger has a handler)."""

    def emit(self, record: logging.LogRecord) -> None:
        if not is_main_process() or (logging.getLogger().handlers and not self.always):
            return
        try:
            text = self.format(record)
            if record.levelno >= logging.WARNING:
                text = f"{record.levelname.capitalize()}: {text}"
            if "ipykernel" in sys.modules:
                print(text)  # noqa: T201 (a notebook shows standard error in red)
            else:
                console().print(text, markup=False, style=STYLES.get(record.levelno))
        except Exception:  # noqa: BLE001 (as every handler of the standard library)
            self.handleError(record)


handler = MessageHandler()


def set_up_logging() -> None:
    """Show the messages of the library; called once, when it is imported."""
    logger = logging.getLogger("geopsp")
    if handler not in logger.handlers:
        logger.addHandler(handler)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
