"""Training that stops when it should, and says why."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from geopsp import PSPNetClassifier, prepare_data
from geopsp.data import loader
from geopsp.errors import ChipError, ModelError, OptionError, TrainingError
from geopsp.models.build import pick_device
from geopsp.training import FitSpec, count_pairs, evaluate


@pytest.fixture(scope="module")
def data(small_world):
    return prepare_data(small_world["chips"], batch_size=8)


def small(data, **options):
    return PSPNetClassifier(data, "resnet18", use_unet=False, encoder_weights=None, **options)


def test_a_loss_that_is_not_finite_stops_training(data):
    model = small(data)
    with torch.no_grad():
        model.model.network.decoder.classify.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"became nan at step 0 .*Lower the rate"):
        model.fit(1, 1e-3)


def test_memory_that_runs_out_is_said(data, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = small(data)
    monkeypatch.setattr(model.model.network.pyramid, "forward", fail)
    with pytest.raises(TrainingError, match="Lower batch_size"):
        model.fit(1, 1e-3)


def test_early_stopping(data):
    """A rate at which nothing improves ends the run after the patience, not after all epochs."""
    few = replace(data, train_rows=data.train_rows[:8], valid_rows=data.valid_rows[:2])
    model = small(few)
    model.fit(30, 1e-12, one_cycle=False, early_stopping=True, monitor="accuracy")
    assert 6 <= len(model.history) < 30


def test_balanced_classes_weigh_by_their_pixels(data):
    model = small(data, class_balancing=True)
    weight = model._class_weight()
    pixels = torch.tensor(list(data.num_pixels_per_class.values()), dtype=torch.float)
    assert (weight * pixels).sum() / pixels.sum() == pytest.approx(1, abs=1e-5)
    assert weight.argsort().tolist() == pixels.argsort(descending=True).tolist()


def test_count_pairs_is_a_confusion_matrix():
    labels = torch.tensor([[0, 1, 255], [2, 2, 0]])
    logits = torch.nn.functional.one_hot(torch.tensor([[0, 2, 1], [2, 1, 1]]), 3).movedim(-1, 0)[None].float()
    assert count_pairs(labels[None], logits, 3).tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 1]]


def test_validation_counts_every_labelled_pixel(data):
    counts = evaluate(small(data).model.network, data.valid_dl, data.legend).counts.sum(axis=1)
    expected = data.chips.index.iloc[data.valid_rows][[f"pixels_{c}" for c in data.legend.codes]].sum()
    assert counts.tolist() == expected.tolist()


def test_loader_keeps_the_order_of_validation(data):
    batches = list(loader(data.valid_ds, 5))
    assert sum(len(batch.image) for batch in batches) == len(data.valid_ds)
    assert torch.equal(batches[0].label[0], data.valid_ds[0].label)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"monitor": "taste"}])
def test_options_out_of_range(options):
    with pytest.raises(OptionError):
        FitSpec(**options)


def test_an_unknown_device_is_refused():
    with pytest.raises(ModelError, match="'abacus'"):
        pick_device("abacus")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"chip_size": 16}, "chip_size is 16"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"val_split_pct": 1.5}, "val_split_pct is 1.5"),
    ],
)
def test_prepare_data_options(small_world, options, says):
    with pytest.raises(OptionError, match=says):
        prepare_data(small_world["chips"], **options)


def test_data_speaks_arcgis(data):
    assert data.classes == ["background", "a", "b"]
    assert data.c == 3
    assert data.class_mapping == {0: "background", 1: "a", 2: "b"}
    assert set(data.color_mapping) == {0, 1, 2}
    assert data.audit.shared_pixels == 0
    assert "0 pixels shared" in repr(data)


def test_no_folder_is_an_error():
    with pytest.raises(ChipError, match="No chip folder"):
        prepare_data([])
