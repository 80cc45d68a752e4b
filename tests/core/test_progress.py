"""One live line in a terminal or a notebook; few dated lines in a log."""

from __future__ import annotations

import io
import logging
import re

import pytest
from names_common import NASTY
from notebook_common import parse_html
from rich.console import Console

from geopsp.core import log, progress
from geopsp.core.escape import printable
from geopsp.core.log import LIVE, NOTEBOOK_WIDTH, wrapped
from geopsp.core.progress import open_bar, progress_bar


@pytest.fixture
def clock(monkeypatch):
    """A clock that is put forward by `clock[0] += seconds`."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def outputs(monkeypatch):
    """The states of all outputs of a notebook, (html, text), by output."""
    found = []

    class Recorder:
        def __init__(self):
            self.states = []
            found.append(self.states)

        def show(self, html, text):
            self.states.append((html, text))

    monkeypatch.setattr(progress, "LiveOutput", Recorder)
    for module in (progress, log):
        monkeypatch.setattr(module, "in_notebook", lambda: True)
    return found


def test_a_notebook_has_one_output_that_ends_as_one_line(outputs, clock):
    with progress_bar("Mapping", unit="tiles") as report:
        for done in range(1, 41):
            clock[0] += 1
            report(done, 40, "west")
    (states,) = outputs
    assert len(states) == 41
    bar = parse_html(states[9][0]).find("progress")
    assert (bar.get("value"), bar.get("max")) == ("10", "40")
    assert states[9][1] == "Mapping: 10 of 40 tiles · west, 0:30 left"
    assert states[-1] == ("<div>Mapping: 40 of 40 tiles, 0:40</div>", "Mapping: 40 of 40 tiles, 0:40")


def test_a_notebook_is_not_flooded(outputs, clock):
    with progress_bar("Mapping") as report:
        for done in range(1, 10_001):
            clock[0] += 0.001
            report(done, 10_000)
    assert len(outputs[0]) <= 10 / progress.NOTEBOOK_SECONDS + 1


def test_short_work_leaves_no_output(outputs, clock):
    with progress_bar("Compiling") as report:
        report(1, 1)
    assert outputs == [[]]


def test_work_that_fails_says_how_far_it_came(outputs, clock):
    with pytest.raises(ZeroDivisionError), progress_bar("Mapping", unit="tiles") as report:  # noqa: PT012
        clock[0] += 2
        report(3, 40)
        raise ZeroDivisionError
    assert outputs[0][-1][1] == "Mapping: 3 of 40 tiles, 0:02"


def test_details_stay_below_the_bar(outputs, clock):
    bar = open_bar("epoch 1", clock=False)
    bar.details("<p>table</p>")
    clock[0] += 1
    bar.begin("epoch 2")
    bar(1, 2)
    bar.close("2 epochs")
    first, second, last = outputs[0]
    assert first[0] == "<div>epoch 1</div><p>table</p>"
    assert second[0].startswith("<div>epoch 2 <progress")
    assert last == ("<div>2 epochs</div><p>table</p>", "2 epochs")


@pytest.mark.parametrize("name", NASTY)
def test_names_in_a_notebook_are_text(name, outputs, clock):
    with progress_bar(name) as report:
        clock[0] += 1
        report(1, 2, name)
    for html, text in outputs[0]:
        assert printable(name) in text
        assert "".join(parse_html(html).itertext()).startswith(printable(name))


def test_a_log_has_few_lines(clock, capsys):
    """After each fifth, but not within 30 s, and at least every ten minutes."""
    with progress_bar("Mapping", unit="tiles") as report:
        for done in range(1, 101):
            clock[0] += 2
            report(done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert [line[20:] for line in lines] == [
        f"Mapping: {done} of 100 tiles, {left} left"
        for done, left in ((20, "2:40"), (40, "2:00"), (60, "1:20"), (80, "0:40"), (100, "0:00"))
    ]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d Mapping", line) for line in lines)
    with progress_bar("Short") as report:
        for done in range(1, 11):
            report(done, 10)
    with progress_bar("Long") as report:
        for done in range(1, 11):
            clock[0] += 400
            report(done, 1000)
    told = [re.search(r"Long: (\d+)", line).group(1) for line in capsys.readouterr().err.splitlines()]
    assert told == ["2", "4", "6", "8", "10"]


def test_a_run_that_is_resumed_has_an_honest_time_left(clock, capsys):
    with progress_bar("Mapping", gap=0) as report:
        for done in (60, 80, 100):
            report(done, 100)
            clock[0] += 10
    lines = [line[20:] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["Mapping: 60 of 100", "Mapping: 80 of 100, 0:10 left", "Mapping: 100 of 100, 0:00 left"]


def test_a_terminal_has_one_line_at_a_time(monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "console", lambda: console)
    with progress_bar("Mapping [x]", unit="tiles") as report:
        report(2, 4, "[red]note")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "Mapping [x]" in text
    assert "2 of 4 tiles [red]note" in text
    assert screen.getvalue().endswith("\x1b[2K"), "the line vanishes at the end"


def test_messages_on_progress_are_dated_in_a_log_and_left_out_of_a_notebook(capsys, monkeypatch):
    logger = logging.getLogger("geopsp.test")
    logger.info("epoch 1", extra=LIVE)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d epoch 1\n", capsys.readouterr().err)
    monkeypatch.setattr(log, "in_notebook", lambda: True)
    logger.info("epoch 2", extra=LIVE)
    logger.info("done")
    assert capsys.readouterr() == ("done\n", "")


def test_messages_fit_into_a_notebook():
    path = "/a/very/long/path" * 9
    lines = wrapped(f"{'word ' * 50}{path}").splitlines()
    assert all(len(line) <= NOTEBOOK_WIDTH for line in lines[:-1])
    assert lines[-1] == f"  {path}"
    assert wrapped("  class   IoU") == "  class   IoU"
