"""The table of outcomes: `python -m pytest tests/corpus -m 'slow or not slow' --corpus-table`."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from corpus.outcome import Desk, Expected, judge

SAMPLE = 41
"""One case of so many is tried by `make test`."""

OUTCOMES = ("right", "warned", "refused", "failed")


def pytest_addoption(parser):
    parser.addoption("--corpus-table", action="store_true", help="print the outcomes of the corpus as a table")


def pytest_collection_modifyitems(items):
    """Mark all cases but a sample as slow; which ones depends on their names alone."""
    for item in items:
        if "hold" in item.fixturenames and zlib.crc32(item.callspec.id.encode()) % SAMPLE:
            item.add_marker("slow")


@pytest.fixture
def desk(tmp_path) -> Desk:
    return Desk.at(tmp_path)


@pytest.fixture
def hold(desk, record_property):
    """Hold a case to the outcomes that are allowed: `hold(kind, act, check, expected)`; see `outcome.judge`."""

    def held(kind: str, act: Callable[[], Any], check: Callable[[Any], None], expected: Expected | None = None) -> None:
        record_property("corpus", (kind, "failed"))
        record_property("corpus", (kind, judge(desk, act, check, expected or Expected())))

    return held


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--corpus-table"):
        return
    counts: Counter[tuple[str, str]] = Counter()
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        found = [value for name, value in getattr(report, "user_properties", ()) if name == "corpus"]
        if found and report.when == "call":
            counts[tuple(found[-1])] += 1
    kinds = sorted({kind for kind, _ in counts})
    rows = [(kind, *(counts[kind, outcome] for outcome in OUTCOMES)) for kind in kinds]
    rows.append(("all", *(sum(counts[kind, outcome] for kind in kinds) for outcome in OUTCOMES)))
    terminalreporter.write_line("| kind | inputs | right | right, with a warning | refused in one line | failed |")
    terminalreporter.write_line("|---|--:|--:|--:|--:|--:|")
    for kind, *numbers in rows:
        terminalreporter.write_line(f"| {kind} | {' | '.join(f'{n:,}' for n in (sum(numbers), *numbers))} |")
