"""Messages: standard logging under the name "geopsp", printed unless the application sets up logging itself.

Each module has `logger = logging.getLogger(__name__)`. What helps to follow the work is info; what may surprise the
user or make results wrong is a warning. Results are not messages: the shell prints them to standard output.
"""

from __future__ import annotations

import logging
import os
import sys
import textwrap
import time
import warnings
from functools import cache
from typing import Any

from geopsp.core.escape import printable
from geopsp.core.staging import name_addresses

STYLES = {logging.DEBUG: "dim", logging.WARNING: "yellow", logging.ERROR: "red"}
"""Colour in a terminal by level."""

NOTEBOOK_WIDTH = 96
"""Characters in a line of a notebook; some cut longer ones at their margin."""

LIVE = {"live": True}
"""`extra` of messages on the progress of work: a log dates them, and a notebook has none, as it shows a live output."""


def is_main_process() -> bool:
    """True in the process of rank 0. Only that one prints and writes files.

    Launchers set the rank of each process: torchrun and Lightning in RANK or LOCAL_RANK, Slurm in SLURM_PROCID.
    """
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def in_notebook() -> bool:
    """True in a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython.get_ipython(), "kernel") if ipython is not None else False


@cache
def console() -> Any:
    """Return the console of messages and progress bars: standard error, so that results can be piped."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


def wrapped(text: str) -> str:
    """Return a text in lines that fit into a notebook; words, e.g. paths, stay whole."""
    return textwrap.fill(text, NOTEBOOK_WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


class MessageHandler(logging.Handler):
    """Handler that prints messages: coloured in a terminal, as plain text in a notebook or a log file.

    It is the first that sees them, and makes them printable for all: each is one line, whatever the names in it hold,
    and names the address of what lies in an object store, not the local copy.
    """

    always = False
    """True: print even if the application has set up logging, i.e. the root logger has a handler."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            record.msg, record.args = printable(name_addresses(record.getMessage())), None
            if not is_main_process() or (logging.getLogger().handlers and not self.always):
                return
            text = self.format(record)
            if record.levelno >= logging.WARNING:
                text = f"{record.levelname.capitalize()}: {text}"
            live = getattr(record, "live", False)
            if not in_notebook():
                dated = live and not console().is_terminal
                date = time.strftime("%Y-%m-%d %H:%M:%S ", time.localtime(record.created)) if dated else ""
                console().print(f"{date}{text}", style=STYLES.get(record.levelno))
            elif not live:
                print(wrapped(text))  # noqa: T201 (a notebook shows standard error in red)
        except Exception:  # noqa: BLE001 (as every handler of the standard library)
            self.handleError(record)


handler = MessageHandler()


def set_up_logging() -> None:
    """Print the messages of the library; called once, on import."""
    # of tqdm, which libraries import: nothing here needs widgets
    warnings.filterwarnings("ignore", message="IProgress not found")
    logger = logging.getLogger("geopsp")
    if handler not in logger.handlers:
        logger.addHandler(handler)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
