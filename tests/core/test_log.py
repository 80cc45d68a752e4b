"""Messages are plain text with a level where it matters, and stay out of the way of applications and of other ranks."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from geopsp.core import log
from geopsp.core.log import handler, is_main_process

logger = logging.getLogger("geopsp.some.module")


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def notebook(monkeypatch):
    shell = SimpleNamespace(kernel="a Jupyter kernel")
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))


@pytest.fixture
def script(monkeypatch):
    """A script may import IPython, too."""
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))


def test_levels(script, capsys):
    logger.debug("not shown")
    logger.info("12 chips")
    logger.warning("pixel size is 28.5 m")
    logger.error("lost a worker")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["12 chips", "Warning: pixel size is 28.5 m", "Error: lost a worker"]


def test_the_application_chooses_the_level(script, capsys):
    library = logging.getLogger("geopsp")
    library.setLevel(logging.WARNING)
    try:
        logger.info("not shown")
        logger.warning("shown")
    finally:
        library.setLevel(logging.INFO)
    assert capsys.readouterr().err == "Warning: shown\n"


def test_arguments_and_brackets_are_text(script, capsys):
    logger.info("%s of [bold]%d[/bold]", "some", 3)
    assert capsys.readouterr().err == "some of [bold]3[/bold]\n"


def test_long_messages_are_not_broken(script, capsys):
    logger.info("word " * 100)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_notebook_shows_plain_text_on_standard_output(notebook, capsys):
    logger.info("12 chips")
    logger.warning("[red] pixel size is 28.5 m")
    out, err = capsys.readouterr()
    assert err == ""
    assert out == "12 chips\nWarning: [red] pixel size is 28.5 m\n"


def test_a_terminal_shows_warnings_in_colour(script, monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system="standard", highlight=False, soft_wrap=True)
    monkeypatch.setattr(log, "console", lambda: console)
    logger.info("12 chips")
    logger.warning("careful")
    assert screen.getvalue() == "12 chips\n\x1b[33mWarning: careful\x1b[0m\n"


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_only_rank_0_prints(name, script, monkeypatch, capsys):
    monkeypatch.setenv(name, "1")
    assert not is_main_process()
    logger.warning("from rank 1")
    monkeypatch.setenv(name, "0")
    assert is_main_process()
    logger.warning("from rank 0")
    assert capsys.readouterr().err == "Warning: from rank 0\n"


def test_an_application_with_logging_of_its_own_prints_itself(script, monkeypatch, capsys):
    monkeypatch.setattr(handler, "always", False)
    logger.warning("once, by the application")  # pytest has handlers at the root logger
    assert capsys.readouterr().err == ""


def test_a_script_prints_unless_it_sets_up_logging():
    """In a process of its own, as pytest has set up logging here."""
    code = """
import logging, geopsp
geopsp.core.log.set_up_logging()
logging.getLogger("geopsp.a").info("ours")
logging.basicConfig(format="theirs: %(message)s", level=logging.INFO)
logging.getLogger("geopsp.a").info("message")
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == "ours\ntheirs: message\n"
    assert done.stdout == ""


def test_a_message_that_cannot_be_made_ends_nothing(script, monkeypatch, capsys):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger.info("%d chips", "three")
    logger.info("next")
    assert capsys.readouterr().err == "next\n"
