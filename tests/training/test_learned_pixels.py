"""Nothing to train on, or nothing to validate on, is refused before the first step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio

from geopsp import PSPNetClassifier, prepare_data
from geopsp.errors import ChipError, TrainingError


@pytest.fixture(scope="module")
def data(small_world):
    return prepare_data(small_world["chips"], batch_size=4, cache=small_world["cache"])


def only(data, rows, *names):
    """The rows whose chips hold no class but these."""
    index = data.chips.index.iloc[rows]
    others = [f"pixels_{info.code}" for info in data.legend if info.name not in names]
    return rows[(index[others].sum(axis=1) == 0).to_numpy()]


def classifier(data, **options):
    return PSPNetClassifier(data, "tu-test_resnet", use_unet=False, encoder_weights=None, **options)


@pytest.mark.parametrize("part", ["train_rows", "valid_rows"])
def test_chips_of_ignored_classes_alone(data, part):
    every = np.sort(np.concatenate([data.train_rows, data.valid_rows]))
    poor = replace(data, **{part: only(data, every, "background")[:8]})
    classifier(poor)._loaders(0)  # background counts: it can be learned
    words = "training" if part == "train_rows" else "validation"
    for call in ("fit", "lr_find"):
        with pytest.raises(ChipError, match=f"No pixel of the {words} chips counts: .*ignored classes .background"):
            getattr(classifier(poor, ignore_classes=["background"]), call)()


def test_scores_of_nothing(data):
    every = np.sort(np.concatenate([data.train_rows, data.valid_rows]))
    poor = replace(data, valid_rows=only(data, every, "background")[:4])
    with pytest.raises(ChipError, match="There is nothing to score: all are unlabelled or of the ignored classes"):
        classifier(poor, ignore_classes=["background"]).evaluate()


def test_labels_that_were_emptied_since_the_export(small_world, tmp_path):
    import shutil

    shutil.copytree(small_world["chips"], tmp_path / "chips")
    data = prepare_data(tmp_path / "chips", batch_size=4)
    data = replace(data, train_rows=data.train_rows[:4], valid_rows=data.valid_rows[:2])
    for path in data.chips.index["label"].iloc[data.valid_rows]:
        with rasterio.open(path, "r+") as dataset:
            dataset.write(np.full((1, 32, 32), 255, np.uint8))
    with pytest.raises(TrainingError, match="No pixel of the validation chips has a class that counts"):
        classifier(data).fit(1, 1e-3)
