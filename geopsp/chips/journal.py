"""The journal of an export: the results of finished rows of chips, from which it resumes."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from geopsp.chips.results import RowResult
from geopsp.core.documents import DocumentError, is_regular, read_json_lines
from geopsp.core.output import write_text_atomic
from geopsp.core.schema import Count, Name, Schema, StatisticsEntry, Text, require_fit
from geopsp.core.sync import sync_tree, syncs

logger = logging.getLogger(__name__)

SYNC_SECONDS = 5.0
"""Work that a kill may cost: seconds between two times that finished chips are forced to the disk."""


class JournalKey(Schema):
    """The first line of a journal."""

    key: Text


class ChipRow(Schema):
    """The row of the index of a chip; there are also pixels_CODE."""

    chip: Name | None
    label: Name | None
    scene: Count
    source: Text
    col: int
    row: int
    angle: float
    valid: Annotated[float, Field(ge=0, le=1)]
    labelled: Annotated[float, Field(ge=0, le=1)]


class JournalRow(Schema):
    """A line of a journal: what a row of chips gave."""

    stats: StatisticsEntry
    rows: list[ChipRow]
    counts: dict[str, Count]
    polygons: dict[Annotated[str, Field(pattern=r"^[0-9]{1,3}$")], Count]


MAX_PIXELS = 2**31
"""Of a chip."""


CHIP_FILES = (("image", "chip"), ("label", "label"))
"""Subfolder, in the singular, and column of the index."""


class ExportJournal:
    """A JSON Lines file with the key of an export and the results of finished rows of chips.

    A resumed export with the same key starts after the last complete line.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        *,
        codes: Sequence[int] = (),
        num_scenes: int | None = None,
        sync: Callable[[Path], None] | None = None,
    ) -> None:
        """Open the journal of an export; a journal with another key is replaced.

        Args:
            path: The file.
            key: Of the export.
            codes: Class codes, whose pixels each row of the index must count.
            num_scenes: The scenes that rows may name; None: any.
            sync: Returns when what a folder holds is on the disk; None: what this process wrote.
        """
        lines = _read_complete_lines(path)
        if not lines or lines[0].get("key") != key:
            lines = [{"key": key}]
        self.results = [RowResult.from_json(line) for line in lines[1:]]
        """The results that the file held when it was opened."""

        is_whole = partial(_is_whole, folder=path.parent, codes=codes, num_scenes=num_scenes)
        whole = list(takewhile(is_whole, self.results))
        if len(whole) < len(self.results):
            logger.warning("Chips of the interrupted export are gone or damaged: they and the next ones are cut again.")
            self.results, lines = whole, lines[: len(whole) + 1]
        self.is_empty = not self.results
        self.key = key
        self._path, self._sync = path, sync
        self._pending: list[str] = []
        self._synced = time.monotonic()
        write_text_atomic(path, "".join(json.dumps(line) + "\n" for line in lines))  # without a line torn by a kill

    def add(self, result: RowResult) -> None:
        """Append the result of a finished row, once its chips are on the disk."""
        self._pending.append(json.dumps(result.to_json()) + "\n")
        self.is_empty = False
        if not syncs() or time.monotonic() - self._synced > SYNC_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is pending: first the chips are forced to the disk, as a line promises that they are whole."""
        if not self._pending:
            return
        (self._sync or sync_tree)(self._path.parent)
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(self._pending)
        self._pending.clear()
        self._synced = time.monotonic()

    def remove(self) -> None:
        """Delete the file."""
        self._path.unlink(missing_ok=True)


def _is_whole(result: RowResult, *, folder: Path, codes: Sequence[int], num_scenes: int | None) -> bool:
    """Return True if a row counts all classes, names known scenes, and its chips are in the folder of the export."""
    counts = [row.get(f"pixels_{code}") for row in result.rows for code in codes]
    scenes = [row["scene"] for row in result.rows] if num_scenes is not None else []
    chips = [row for row in result.rows if row["chip"] is not None]
    return (
        all(type(count) is int and 0 <= count <= MAX_PIXELS for count in counts)
        and max(scenes, default=-1) < (num_scenes or 0)
        and all(is_regular(folder / f"{kind}s" / row[name]) for row in chips for kind, name in CHIP_FILES)
    )


def _read_complete_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a journal up to the first that is torn."""
    lines: list[dict[str, Any]] = []
    with suppress(OSError, DocumentError):
        for number, line in enumerate(read_json_lines(path)):
            require_fit(line, JournalRow if number else JournalKey)
            lines.append(line)
    return lines
