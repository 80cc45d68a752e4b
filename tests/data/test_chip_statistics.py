"""Training chips without anything to learn are refused; codes that are no class are counted and told."""

from __future__ import annotations

import numpy as np
import pytest
from chips_common import chipset

from geopsp.core.legend import IGNORE_INDEX
from geopsp.data.chip_statistics import chip_statistics
from geopsp.data.dataset import ChipFiles
from geopsp.errors import ChipError

ROWS = np.arange(2)


def images(dtype="uint8"):
    return np.random.default_rng(0).integers(1, 200, (2, 2, 8, 8)).astype(dtype)


def test_codes_that_are_no_class_are_counted(tmp_path, caplog):
    labels = np.zeros((2, 8, 8), np.uint8)
    labels[0, 0, :3], labels[1, 4:6], labels[1, 7] = 5, 200, IGNORE_INDEX
    chip_statistics(chipset(tmp_path, images(), labels), ROWS)
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "The labels of the training chips hold 5, 200 (19 pixels), but the classes are 0 " in record.getMessage()
    caplog.clear()
    chip_statistics(chipset(tmp_path / "fine", images(), labels * 0), ROWS)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_labels_without_a_class_are_refused(tmp_path):
    for number, (code, says) in enumerate(((5, r"hold 5 \(128 pixels\)"), (IGNORE_INDEX, "All are unlabelled"))):
        chips = chipset(tmp_path / str(number), images(), np.full((2, 8, 8), code, np.uint8))
        with pytest.raises(ChipError, match=f"No pixel of the training chips has a class.*{says}"):
            chip_statistics(chips, ROWS)


def test_images_without_a_valid_pixel_are_refused(tmp_path):
    chips = chipset(tmp_path, np.full((2, 2, 8, 8), np.nan, np.float32), np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(ChipError, match="No pixel of 2 training chips is valid: all are nodata, NaN or masked"):
        chip_statistics(chips, ROWS)


@pytest.mark.parametrize(
    ("dtype", "value", "refused"),
    [
        ("int16", -2, True), ("int16", 256, True), ("uint16", 300, True), ("float32", 1.5, True),
        ("int16", 7, False), ("uint16", 255, False),
    ],
)  # fmt: skip
def test_label_values_outside_of_the_codes_are_refused(dtype, value, refused, tmp_path):
    """They wrapped: -2 was 254, and 256 was 0, the background."""
    labels = np.zeros((2, 8, 8), dtype)
    labels[1, 2, 3] = value
    chips = chipset(tmp_path, images(), labels)
    if refused:
        with pytest.raises(ChipError, match=r"has values from .*class codes are whole numbers from 0 to 254"):
            chip_statistics(chips, ROWS)
    else:
        chip_statistics(chips, ROWS)
        assert ChipFiles(chips).read(1, 0, 0, 8).codes[2, 3] == value


def test_images_of_another_type_than_the_folder_says_are_refused(tmp_path):
    from dataclasses import replace

    chips = chipset(tmp_path, images("int16"), np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(ChipError, match="has int16 pixels, but its folder says uint8"):
        chip_statistics(replace(chips, dtype="uint8"), ROWS)
