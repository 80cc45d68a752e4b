import json
from collections import Counter

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from geopsp.chips.chip import rotate_grid
from geopsp.chips.journal import CHIP_FILES, ExportJournal
from geopsp.chips.results import RowResult, footprints
from geopsp.core.bands import BandStats
from geopsp.core.grid import Grid, Window

CRS = rasterio.CRS.from_epsg(32632)


def result(number):
    stats = BandStats.from_array(np.full((2, 3, 3), number, "uint8"), np.ones((3, 3), bool))
    names = {"chip": f"{number}.tif", "label": f"{number}.tif", "scene": 0, "source": "a"}
    row = {**names, "col": 0, "row": 0, "angle": 0.0, "valid": 1.0, "labelled": 1.0, "pixels_3": 9}
    return RowResult(stats, [row], Counter(empty=number), Counter({3: number}))


@given(
    col=st.integers(-50, 9000),
    row=st.integers(-50, 9000),
    angle=st.one_of(st.sampled_from([0.0, 90.0, 180.0, 270.0]), st.floats(0, 359)),
    size=st.integers(16, 65),
    turn=st.floats(-40, 40),
)
@settings(max_examples=examples(60), deadline=None)
def test_footprints_are_the_corners_of_the_chips_grids(col, row, angle, size, turn):
    transform = Affine.translation(601234.0, 5301717.0) @ Affine.rotation(turn) @ Affine.scale(2, -1.5)
    grid = Grid(CRS, transform, 10_000, 10_000)
    found = footprints(grid, np.array([[col, row, angle]], float), size)[0]
    needed = rotate_grid(grid.crop(Window(col, row, size, size)), angle).corners()
    np.testing.assert_allclose(shapely.get_coordinates(found)[:4], needed, rtol=0, atol=1e-6)


def make_chips(folder, *numbers):
    """Write files, of no content, for the chips of results."""
    for row in (row for number in numbers for row in result(number).rows if row["chip"]):
        for kind, column in CHIP_FILES:
            (folder / f"{kind}s").mkdir(exist_ok=True)
            (folder / f"{kind}s" / row[column]).touch()


def test_a_ledger_goes_on_before_the_first_chip_that_is_gone(tmp_path):
    make_chips(tmp_path, 1, 2, 3)
    journal = ExportJournal(tmp_path / "ledger", "one")
    for number in (1, 2, 3):
        journal.add(result(number))
    assert len(ExportJournal(tmp_path / "ledger", "one").results) == 3
    (tmp_path / "labels" / next(row["label"] for row in result(2).rows if row["chip"])).unlink()
    for _ in range(2):
        again = ExportJournal(tmp_path / "ledger", "one")
        assert [found.to_json() for found in again.results] == [result(1).to_json()]


def test_a_ledger_goes_on_where_it_was_even_if_its_last_line_is_torn(tmp_path):
    path = tmp_path / "ledger"
    make_chips(tmp_path, 1, 2, 9)
    journal = ExportJournal(path, "one")
    assert journal.is_empty
    for number in (1, 2):
        journal.add(result(number))
    assert not journal.is_empty
    text = path.read_text()
    for cut in (1, 20, len(text.splitlines()[-1])):
        path.write_text(text[:-cut])
        again = ExportJournal(path, "one")
        kept = 2 if cut == 1 else 1
        assert [found.to_json() for found in again.results] == [result(n + 1).to_json() for n in range(kept)]
        again.add(result(9))
        assert len(ExportJournal(path, "one").results) == kept + 1
    assert ExportJournal(path, "another").results == []
    assert json.loads(path.read_text()) == {"key": "another"}


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("rows", 3),
        ("rows", [{}]),
        ("stats", []),
        ("stats", {"count": -1}),
        ("counts", {"a": "b"}),
        ("polygons", {"a": 1}),
    ],
)
def test_a_ledger_ends_before_a_line_that_no_export_wrote(entry, value, tmp_path):
    path = tmp_path / "ledger"
    make_chips(tmp_path, 1, 2, 3)
    journal = ExportJournal(path, "one")
    lines = [result(number).to_json() for number in (1, 2, 3)]
    lines[1][entry] = value
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    again = ExportJournal(path, "one")
    assert [found.to_json() for found in again.results] == lines[:1]
    assert path.read_text().count("\n") == 2
    assert journal.is_empty


@pytest.mark.parametrize("text", ["", "nonsense", "[]\n", '{"key"', "[" * 100_000, '{"key": 3}\n'])
def test_a_ledger_of_nothing_is_begun_anew(text, tmp_path):
    (tmp_path / "ledger").write_text(text)
    assert ExportJournal(tmp_path / "ledger", "one").results == []


def test_a_line_of_the_journal_follows_the_chips_to_the_disk(tmp_path, monkeypatch):
    """Else a resumed export would count chips that a power cut left empty."""
    monkeypatch.setenv("GEOPSP_SYNC", "1")
    monkeypatch.setattr("geopsp.chips.journal.SYNC_SECONDS", 0.0)
    synced = []
    monkeypatch.setattr("geopsp.chips.journal.sync_tree", lambda folder: synced.append(lines_of(folder)))

    def lines_of(folder):
        return len((folder / "ledger.jsonl").read_text().splitlines())

    journal = ExportJournal(tmp_path / "ledger.jsonl", "key")
    for number in range(3):
        journal.add(RowResult(BandStats.empty(1)))
        assert synced[-1] == 1 + number
    assert lines_of(tmp_path) == 4
    monkeypatch.setattr("geopsp.chips.journal.SYNC_SECONDS", 99.0)
    journal.add(RowResult(BandStats.empty(1)))
    assert lines_of(tmp_path) == 4, "a kill now costs a row, no chip"
    journal.flush()
    assert lines_of(tmp_path) == 5
