"""The Item of a saved model: valid, and it says what the network takes and gives."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pystac
import pytest
import torch
from safetensors.torch import load_file
from stac_common import require_valid

from geopsp.core.bands import BandStats
from geopsp.core.legend import Legend
from geopsp.core.owned_files import FILE_LIST
from geopsp.core.stac import plain_name
from geopsp.models.build import ModelSpec, build_network
from geopsp.models.manifest import MODEL_FOLDER, MODEL_ITEM, WEIGHTS, read_manifest
from geopsp.models.saved_model import TrainedModel, load_model, save_model
from geopsp.models.stac_item import SEMVER, model_name, onnx_item
from geopsp.models.training_area import TRAINING_AREA, known_area

SQUARE = [[[8.0, 47.0], [9.0, 47.0], [9.0, 48.0], [8.0, 48.0], [8.0, 47.0]]]
AREA = {
    "chips": 12, "geometry": {"type": "Polygon", "coordinates": SQUARE}, "bbox": [8.0, 47.0, 9.0, 48.0], "gsd": 2.5,
    "start": "2024-01-01T00:00:00Z", "end": "2024-12-31T10:30:00Z",
}  # fmt: skip
NAMES = ("model", "ünï cödé", "x", "9 lives", "模型", "a/b", "-", "été.", "m" * 200, "<script>", "a\nb", "v1.2 (final)")
MLM_NAME = r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    torch.set_num_threads(1)
    spec = ModelSpec("resnet18", 3, 3, pyramid_sizes=(1, 3), aux="pixel")
    rng = np.random.default_rng(0)
    return TrainedModel(
        spec=spec,
        network=build_network(spec).eval(),
        legend=Legend.from_names({0: "background", 5: "wäter & <co>", 254: "\x1b[2J"}, {5: "#0123ab"}),
        bands=("red", "B8A (narrow)", "nir\u202e"),
        statistics=BandStats(77, *rng.random((2, 3)), low=-rng.random(3), high=1 + rng.random(3)),
        dtype="uint16",
        tile_size=64,
        cell_size=(0.1, 1 / 3),
        units="metre",
        settings={
            "network": "UnetClassifier", "encoder_weights": "imagenet", "batch_size": 8, "seed": 1,
            "runs": [{"epochs": 2, "lr": [1e-5, 1e-3], "clip": float("inf")}],
        },
        history=[{"epoch": 1, "valid_loss": 0.25}],
        metrics={"miou": float("nan")},
    )  # fmt: skip


def item_of(folder):
    return json.loads((folder / MODEL_ITEM).read_text(encoding="utf-8"), parse_constant=pytest.fail)


def saved(model, folder, monkeypatch, **changes):
    for name, value in changes.items():
        monkeypatch.setattr(model, name, value)
    return item_of(save_model(model, folder))


def test_it_says_what_the_network_is(model, tmp_path):
    folder = save_model(model, tmp_path / "model")
    item, state = item_of(folder), load_file(folder / WEIGHTS)
    require_valid(item)
    told = item["properties"]
    assert item["id"] == f"model-{hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()[:8]}"
    assert told["mlm:architecture"] == "U-Net"
    assert told["mlm:total_parameters"] == sum(p.numel() for p in model.network.parameters())
    assert told["mlm:memory_size"] == sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    assert told["mlm:framework_version"].startswith(torch.__version__.partition("+")[0])
    assert (told["mlm:pretrained"], told["mlm:pretrained_source"]) == (True, "imagenet")
    assert told["mlm:hyperparameters"]["training.lr"] == [1e-5, 1e-3]
    assert "training.clip" not in told["mlm:hyperparameters"]
    assert told["gsd"] == pytest.approx(1 / 3, rel=1e-5)
    assert [band["name"] for band in told["bands"]] == list(model.bands) == told["mlm:input"][0]["bands"]
    classes = told["mlm:output"][0]["classification:classes"]
    assert [(each["value"], each["description"], f"#{each['color_hint'].lower()}") for each in classes] == [
        (info.code, info.name, info.color) for info in model.legend
    ]
    assert pystac.Item.from_dict(item).ext.has("mlm")


def test_its_scaling_is_the_network_s_normalisation(model, tmp_path):
    item = item_of(save_model(model, tmp_path / "model"))
    data = np.random.default_rng(1).random((3, 4, 5)).astype(np.float32)
    scaling = item["properties"]["mlm:input"][0]["value_scaling"]
    found = np.stack([(band - row["mean"]) / row["stddev"] for band, row in zip(data, scaling, strict=True)])
    np.testing.assert_allclose(found, model.normalization(data, np.ones((4, 5), bool)), rtol=1e-5)


def test_assets_have_size_and_checksum_of_their_files(model, tmp_path):
    folder = save_model(model, tmp_path / "model")
    item = pystac.Item.from_file(str(folder / MODEL_ITEM))
    assert set(item.assets) == {"weights", "manifest", "history"}
    for asset in item.assets.values():
        content = (folder / asset.href).read_bytes()
        assert asset.extra_fields["file:size"] == len(content)
        assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    assert (folder / FILE_LIST).read_text().count(MODEL_ITEM) == 1
    assert MODEL_FOLDER.matches(MODEL_ITEM)


@pytest.mark.parametrize("name", [name for name in NAMES if "/" not in name])
def test_names_are_made_plain(model, tmp_path, name):
    item = item_of(save_model(model, tmp_path / name))
    require_valid(item)
    assert re.fullmatch(MLM_NAME, item["properties"]["mlm:name"])


@pytest.mark.parametrize("name", NAMES)
def test_names_fit_the_pattern(name):
    assert re.fullmatch(MLM_NAME, model_name(name))
    assert re.fullmatch(r"[A-Za-z0-9_.-]*", plain_name(name))


def test_the_training_area_gives_place_and_time(model, tmp_path, monkeypatch):
    item = saved(model, tmp_path / "model", monkeypatch, settings=model.settings | {TRAINING_AREA: AREA})
    require_valid(item)
    assert (item["geometry"], item["bbox"]) == (AREA["geometry"], AREA["bbox"])
    told = item["properties"]
    assert (told["datetime"], told["start_datetime"], told["end_datetime"]) == (None, AREA["start"], AREA["end"])
    assert told["gsd"] == 2.5


@pytest.mark.parametrize(
    "area",
    [
        None, "here", {**AREA, "start": "yesterday"}, {**AREA, "bbox": [0, 0, 0]}, {**AREA, "gsd": -1},
        {**AREA, "geometry": {"type": "Polygon", "coordinates": [[[8, 1e9]]]}}, {**AREA, "geometry": {"type": "Point"}},
    ],
)  # fmt: skip
def test_a_training_area_that_is_none_is_left_out(model, tmp_path, monkeypatch, area):
    """A received model may hold anything; it is saved all the same."""
    item = saved(model, tmp_path / "model", monkeypatch, settings=model.settings | {TRAINING_AREA: area})
    require_valid(item)
    assert item["geometry"] is None
    assert "bbox" not in item
    assert item["properties"]["datetime"] == item["properties"]["created"]
    assert known_area({TRAINING_AREA: area}) == {}


@pytest.mark.parametrize("settings", [{}, {"runs": "none"}, {"runs": [3]}, {"batch_size": True, "encoder_weights": 3}])
def test_settings_of_others_do_no_harm(model, tmp_path, monkeypatch, settings):
    require_valid(saved(model, tmp_path / "model", monkeypatch, settings=settings, history=[]))


@pytest.mark.parametrize(("units", "gsd"), [("degree", 37106), ("US survey foot", 0.101600), ("unknown", None)])
def test_pixel_sizes_are_in_metres(model, tmp_path, monkeypatch, units, gsd):
    item = saved(model, tmp_path / "model", monkeypatch, units=units)
    require_valid(item)
    assert item["properties"].get("gsd") == (None if gsd is None else pytest.approx(gsd, rel=1e-4))


def test_nothing_reads_it(model, tmp_path):
    """A damaged Item, or none, as of an earlier version: the same model."""
    folder = save_model(model, tmp_path / "model")
    for content in ("{", None):
        (folder / MODEL_ITEM).unlink() if content is None else (folder / MODEL_ITEM).write_text(content)
        assert load_model(folder).fingerprint() == model.fingerprint()


def test_the_onnx_file_takes_raw_pixels(model, tmp_path):
    folder = save_model(model, tmp_path / "model")
    file = tmp_path / "my model.onnx"
    file.write_bytes(b"onnx")
    item = onnx_item(file, read_manifest(folder), version="1.23.2")
    require_valid(item)
    (given,) = item["properties"]["mlm:input"]
    assert given["value_scaling"] is None
    assert item["assets"]["model"]["href"] == "./my%20model.onnx"
    assert item["assets"]["model"]["file:checksum"] == "1220" + hashlib.sha256(b"onnx").hexdigest()


@pytest.mark.parametrize(("text", "good"), [("2.15.0", True), ("2.15.0+cu128", True), ("2.15", False), ("", False)])
def test_versions_are_semantic(text, good):
    assert bool(SEMVER.fullmatch(text)) is good
