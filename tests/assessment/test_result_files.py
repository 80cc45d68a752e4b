"""Files of results are checked before the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from geopsp.assessment.result_files import check_results
from geopsp.errors import OptionError, OutputError


def test_files_that_are_given_are_returned(tmp_path):
    table = tmp_path / "a.json"
    assert check_results({".json": table, ".csv": None}, [tmp_path / "a.tif"], overwrite=False) == [table]


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "json"])
def test_another_ending_is_refused(name, tmp_path):
    with pytest.raises(OptionError, match=r"\.json"):
        check_results({".json": tmp_path / name}, [], overwrite=True)


def test_nothing_is_overwritten_unasked_and_no_input_ever(tmp_path):
    table = tmp_path / "a.json"
    table.write_text("{}")
    with pytest.raises(OutputError, match="exists"):
        check_results({".json": table}, [], overwrite=False)
    assert check_results({".json": table}, [Path("a.tif")], overwrite=True) == [table]
    with pytest.raises(OutputError, match="input"):
        check_results({".json": table}, [table], overwrite=True)
