"""Two models on the same chips: predictions as in an evaluation, blocks, verdicts, other schemes and bands."""

import json
import logging
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from click.testing import CliRunner
from common import slow
from inference_common import trained_model
from sklearn.metrics import confusion_matrix, jaccard_score

from geopsp import compare_models, export_training_data
from geopsp.assessment.comparison.paired_counts import only_one_right
from geopsp.chips.chip_set import ChipSet
from geopsp.cli.commands import main
from geopsp.core.bands import BandStats
from geopsp.core.legend import Legend
from geopsp.data.ground_blocks import ground_blocks
from geopsp.errors import BandError, ChipError, ModelError, OptionError, OutputError
from geopsp.models.build import ModelSpec
from geopsp.models.losses import LossSpec
from geopsp.models.saved_model import TrainedModel
from geopsp.training.chip_predictions import predict_chips
from geopsp.training.evaluate import chip_loader, evaluate

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = {0: "background", 3: "water", 4: "forest", 90: "road"}
SIZE = 24


class Classifier:
    """What a notebook has of a model."""

    def __init__(self, model):
        self.model = model


def model_of(bands=("one",), *, size=SIZE, names=None, ignore=()):
    """A model that takes its first band's values, from 1 on, for channels."""
    model = trained_model(size=size, bands=bands)
    if names is not None:
        legend = Legend.from_names(names)
        model = TrainedModel(ModelSpec("tu-test_resnet", len(bands), 5), legend, bands, model.statistics,
                             "uint8", size, (2.0, 2.0), "metre", network=model.network)  # fmt: skip
    model.statistics = BandStats(9, np.zeros(len(bands)), np.full(len(bands), 9.0), np.zeros(len(bands)),
                                 np.full(len(bands), 255.0))  # fmt: skip
    if ignore:
        model.losses = LossSpec(ignore_classes=tuple(ignore))
    return Classifier(model)


@pytest.fixture
def truth():
    """Classes 0 to 3 by channel, in patches of 8 pixels, and unlabelled ground (9)."""
    rng = np.random.default_rng(0)
    found = np.kron(rng.integers(0, 4, (18, 24)), np.ones((8, 8), int))
    found[:5, :7] = 9
    return found


@pytest.fixture
def make_chips(make_raster, tmp_path, truth):
    """Chips of two bands: each is the truth, with errors in this share of patches of 24 pixels."""

    def make(wrong=(0.1, 0.4), *, names=NAMES, **options):
        rng = np.random.default_rng(1)
        shape = truth.shape[0] // SIZE, truth.shape[1] // SIZE
        bands = []
        for share in wrong:
            errors = np.kron(rng.random(shape) < share, np.ones((SIZE, SIZE), bool)) & (rng.random(truth.shape) < 0.7)
            bands.append(np.where(errors, (truth + 1) % 4, np.where(truth == 9, 0, truth)) + 1)
        image = make_raster("image.tif", np.array(bands, np.uint8), names=("one", "two"))
        codes = np.append(list(names), [0] * 5 + [255])[np.minimum(truth, 9)].astype(np.uint8)
        labels = make_raster("labels.tif", codes[None], nodata=255)
        mapping = {code: {"name": name, "code": code} for code, name in names.items()}
        return export_training_data(image, labels, tmp_path / "chips", tile_size=SIZE, class_mapping=mapping,
                                    background="ignore", **options)  # fmt: skip

    return make


def labels_of(chips):
    """All labelled pixels, as class names."""
    found = []
    for path in chips.index["label"]:
        with rasterio.open(path) as dataset:
            found.append(dataset.read(1))
    return np.array(found)


@pytest.mark.parametrize("size", [slow(SIZE), 16])
def test_predictions_are_those_of_an_evaluation(make_chips, size):
    """Also where tiles of a chip overlap; pixel by pixel of the chip."""
    chips = make_chips()
    model = model_of(size=size).model
    rows = np.flatnonzero(chips.index["labelled"] > 0)
    counts = np.zeros((5, 5), np.int64)
    legend = chips.with_legend(model.legend)
    single = ChipSet.open(chips.folders[0])
    with_one = model_of(("one", "two"), size=size).model
    for found in predict_chips(with_one, legend, rows):
        known = found.labels != 255
        np.add.at(counts, (found.labels[known], found.predicted[known]), 1)
    expected = evaluate(with_one.network, chip_loader(with_one, single), with_one.legend)
    np.testing.assert_array_equal(counts, expected.counts)
    assert counts.sum() == (labels_of(chips)[rows] != 255).sum()


def test_scores_are_those_of_scikit_learn(make_chips):
    """Models with other bands and tiles of other sizes, on the same pixels."""
    chips = make_chips()
    found = compare_models(model_of(), model_of(("two",), size=16), chips, resamples=100)
    labels, predicted = [], ([], [])
    for one, other in zip(predict_chips(model_of().model, chips, np.arange(len(chips))),
                          predict_chips(model_of(("two",), size=16).model, chips, np.arange(len(chips))),
                          strict=True):  # fmt: skip
        known = one.labels != 255
        np.testing.assert_array_equal(one.labels, other.labels)
        labels.append(one.labels[known])
        predicted[0].append(one.predicted[known])
        predicted[1].append(other.predicted[known])
    labels = np.concatenate(labels)
    for each, counts, column in zip(predicted, (found.confusion_a, found.confusion_b), ("model_a", "model_b"),
                                    strict=True):  # fmt: skip
        flat = np.concatenate(each)
        np.testing.assert_array_equal(counts[:4, :4], confusion_matrix(labels, flat, labels=range(4)))
        iou = jaccard_score(labels, flat, labels=range(4), average=None)
        np.testing.assert_allclose(found.scores[column], [iou.mean(), (labels == flat).mean(), *iou])
    assert list(found.scores.index) == ["mIoU", "overall accuracy", *(f"IoU {name}" for name in NAMES.values())]
    first, second = (np.concatenate(each) == labels for each in predicted)
    row = found.mcnemar.loc["all classes"]
    assert (row["only_a_right"], row["only_b_right"]) == ((first & ~second).sum(), (second & ~first).sum())


def test_only_one_right_is_one_class_against_the_rest():
    rng = np.random.default_rng(0)
    labels, one, other = rng.integers(0, 4, 500), rng.integers(0, 5, 500), rng.integers(0, 5, 500)
    found = only_one_right(labels, one, other, 4)
    for number in range(4):
        first, second = ((labels == number) == (each == number) for each in (one, other))
        assert found[number].tolist() == [(first & ~second).sum(), (second & ~first).sum()]
    assert found[4].tolist() == [
        ((one == labels) & (other != labels)).sum(),
        ((other == labels) & (one != labels)).sum(),
    ]


def test_the_same_model_twice_is_never_better(make_chips):
    chips = make_chips()
    found = compare_models(model_of(), model_of(), chips, resamples=200, block_size=SIZE * 2)
    assert (found.scores[["difference", "lower", "upper"]] == 0).all(axis=None)
    assert found.winner is None
    assert "score the same" in found.verdict
    assert (found.mcnemar["p_value"] == 1).all()


def test_the_better_model_is_named_whatever_the_order(make_chips):
    chips = make_chips((0.05, 0.6))
    one, other = model_of(), model_of(("two",))
    found = compare_models(one, other, chips, resamples=300, block_size=SIZE * 2)
    assert found.winner == "a"
    assert found.verdict.startswith("A is better by 0.")
    turned = compare_models(other, one, chips, resamples=300, block_size=SIZE * 2, interval="percentile")
    assert turned.winner == "b"
    np.testing.assert_allclose(turned.scores["difference"], -found.scores["difference"])
    np.testing.assert_array_equal(turned.mcnemar["only_a_right"], found.mcnemar["only_b_right"])
    again = compare_models(one, other, chips, resamples=300, block_size=SIZE * 2)
    pd.testing.assert_frame_equal(found.scores, again.scores)


def test_models_as_good_as_each_other_differ_by_noise(make_chips):
    found = compare_models(model_of(), model_of(("two",)), make_chips((0.3, 0.3)), resamples=300, block_size=SIZE * 2)
    assert found.scores.loc["mIoU", "difference"] != 0
    assert found.winner is None
    assert "within noise" in found.verdict


def test_classes_match_by_name_in_any_case_and_by_mapping(make_chips, caplog):
    chips = make_chips()
    names = {0: "BACKGROUND", 1: "Lake", 2: "Forest", 3: "road", 4: "snow"}
    mapping = {"lake": "water", "snow": None}
    found = compare_models(model_of(), model_of(names=names), chips, class_mapping=mapping, resamples=100)
    assert (found.scores["difference"] == 0).all()
    with caplog.at_level(logging.WARNING, "geopsp"):
        unmapped = compare_models(model_of(), model_of(names=names), chips, resamples=100)
    assert "does not know the class water of the chips" in caplog.text
    assert unmapped.scores.loc["IoU water", "model_b"] == 0
    assert unmapped.confusion_b.sum() == unmapped.confusion_a.sum()
    merged = compare_models(model_of(), model_of(names=names), chips, class_mapping={"*": "all"}, resamples=100)
    assert merged.scores["model_a"].tolist() == [1, 1, 1]


def test_labels_that_a_model_ignores_do_not_count_for_either(make_chips, caplog):
    chips = make_chips()
    with caplog.at_level(logging.WARNING, "geopsp"):
        found = compare_models(model_of(), model_of(ignore=["road"]), chips, resamples=100)
    assert "trained to ignore road" in caplog.text
    assert "IoU road" not in found.scores.index
    assert found.chips["pixels"].sum() < compare_models(model_of(), model_of(), chips).chips["pixels"].sum()


# Blocks


def chips_at(boxes, crs="EPSG:32632", sources=None):
    frame = gpd.GeoDataFrame({"source": sources or ["a"] * len(boxes)}, geometry=boxes, crs=crs)
    return ChipSet((), frame, Legend(()), (), "uint8", 8, (1.0, 1.0), "metre", BandStats.empty(0), (), ())


def row_of(count, side=100.0, step=100.0):
    return [shapely.box(500_000 + step * i, 0, 500_000 + step * i + side, side) for i in range(count)]


def test_chips_side_by_side_make_blocks_of_four():
    found = ground_blocks(chips_at(row_of(12)), np.arange(12), None)
    assert found.block_size == pytest.approx(400, rel=5e-3)  # on the ground
    assert np.bincount(found.numbers).tolist() == [4, 4, 4]
    assert len(found) == 3


def test_overlapping_chips_stay_together():
    """Though a border between blocks runs through them."""
    boxes = [*row_of(3), shapely.box(500_350, 0, 500_450, 100), shapely.box(500_380, 10, 500_480, 110)]
    found = ground_blocks(chips_at(boxes), np.arange(5), 400).numbers
    assert found[3] == found[4]


def test_a_chain_of_overlaps_is_cut_and_said():
    found = ground_blocks(chips_at(row_of(40, step=50)), np.arange(40), 400)
    assert len(found) >= 5
    assert "chips overlap chips of another block" in found.warning


def test_blocks_in_degrees_are_as_large_in_metres():
    """Chips of 0.01 degrees at 60 degrees north are half as wide as high."""
    boxes = [shapely.box(10 + 0.01 * i, 60 + 0.01 * j, 10 + 0.01 * (i + 1), 60 + 0.01 * (j + 1))
             for i in range(8) for j in range(4)]  # fmt: skip
    found = ground_blocks(chips_at(boxes, "EPSG:4326"), np.arange(32), 4 * 1113.2)
    assert np.bincount(found.numbers).tolist() == [32]
    halves = ground_blocks(chips_at(boxes, "EPSG:4326"), np.arange(32), 2 * 1113.2)
    assert np.bincount(halves.numbers).tolist() == [8, 8, 8, 8]


def test_without_georeference_blocks_are_sources():
    chips = chips_at([None] * 5, None, ["a", "b", "a", "c", "b"])
    found = ground_blocks(chips, np.arange(5), 100)
    assert found.numbers.tolist() == [0, 1, 0, 2, 1]
    assert found.block_size is None
    assert "grouped by source image" in found.warning
    assert not ground_blocks(chips, np.arange(5), None).warning


def test_few_blocks_are_said(make_chips):
    found = compare_models(model_of(), model_of(), make_chips(), block_size=10_000)
    assert any("1 block" in warning for warning in found.warnings)
    assert "cannot be told" in found.verdict
    assert found.winner is None
    assert found.mcnemar["p_value"].isna().all()


def test_chips_of_the_training_are_said(make_chips):
    chips = make_chips()
    model = model_of()
    hull = gpd.GeoSeries([chips.index.union_all().envelope.buffer(5)], crs=chips.index.crs).to_crs(4326).iloc[0]
    model.model.settings["training_area"] = {"chips": 9, "geometry": json.loads(shapely.to_geojson(hull))}
    found = compare_models(model, model_of(), chips)
    (warning,) = (each for each in found.warnings if "training chips of `model_a`" in each)
    assert warning.startswith(f"{len(found.chips)} of ")


# Results and messages


def test_files_and_words(make_chips, tmp_path):
    chips = make_chips()
    found = compare_models(model_of(), model_of(("two",)), chips, block_size=SIZE * 2)
    document = json.loads(found.save(tmp_path / "r.json").read_text())
    assert document["scores"][0]["score"] == "mIoU"
    assert document["verdict"] == found.verdict
    frame = pd.read_csv(found.save(tmp_path / "r.csv"))
    assert len(frame) == len(found.chips) == document["chips"]
    np.testing.assert_allclose(frame["miou_difference"], frame["miou_b"] - frame["miou_a"])
    with pytest.raises(OutputError, match="already exists"):
        found.save(tmp_path / "r.csv")
    for words in (found.verdict, "blocks", "Obuchowski", "all classes"):
        assert words in found.text()
    assert repr(found).startswith("<ModelComparison on ")


def test_what_cannot_be_compared_is_said(make_chips, tmp_path):
    chips = make_chips()
    one = model_of()
    for other, options, error, match in (
        (model_of(("three",)), {}, BandError, "three"),
        (model_of(size=32), {}, ChipError, "needs at least 32"),
        (tmp_path / "model.onnx", {}, ModelError, "ONNX"),
        (model_of(names=dict(enumerate("vwxyz"))), {}, ChipError, "knows none of the classes"),
        (one, {"class_mapping": {"see": "water"}}, OptionError, "names see"),
        (one, {"class_mapping": {"*": None}}, OptionError, "leaves no class"),
        (one, {"resamples": 3}, OptionError, "resamples"),
        (one, {"block_size": 0}, OptionError, "block_size"),
        (one, {"interval": "t"}, OptionError, "percentile"),
    ):
        with pytest.raises(error, match=match):
            compare_models(one, other, chips, **options)


def test_the_shell(tmp_path):
    model, chips = GOLDEN / "model", GOLDEN / "chips"
    arguments = ["compare", str(model), str(model), str(chips), "--resamples", "100", "--block-size", "100",
                 "--json", str(tmp_path / "r.json"), "--csv", str(tmp_path / "r.csv")]  # fmt: skip
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "The models score the same" in result.output
    assert json.loads((tmp_path / "r.json").read_text())["better"] is None
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    none = CliRunner().invoke(main, ["compare", str(model), str(tmp_path / "none"), str(chips)])
    assert none.exit_code == 2
    assert "Traceback" not in none.output
