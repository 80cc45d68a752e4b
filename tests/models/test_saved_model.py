"""A saved model is data, whole, and gives the logits that it gave."""

from __future__ import annotations

import csv
import json
import math
import pickletools
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from geopsp.core.bands import BandStats
from geopsp.core.documents import file_checksum
from geopsp.core.legend import Legend
from geopsp.core.owned_files import FILE_LIST
from geopsp.core.pixel_values import RAW, PixelValues
from geopsp.errors import InputNotFoundError, OutputError, PackageError
from geopsp.models import saved_model as package
from geopsp.models.build import ModelSpec, build_network
from geopsp.models.loss_options import ADDED, LossSpec
from geopsp.models.manifest import MANIFEST, MODEL_ITEM, WEIGHTS, manifest_checksum, read_manifest
from geopsp.models.saved_model import TrainedModel, load_model, save_model, write_history


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    torch.set_num_threads(1)
    spec = ModelSpec("tu-test_resnet", 4, 3, pyramid_sizes=(1, 3), pointrend=True, aux="pixel")
    network = build_network(spec).train()
    network(torch.randn(2, 4, 64, 64))  # so that running statistics are not the initial ones
    rng = np.random.default_rng(0)
    return TrainedModel(
        spec=spec,
        network=network.eval(),
        legend=Legend.from_names({0: "background", 5: "wäter & co", 254: "road"}, {5: "#0123ab"}),
        bands=("red", "green", "blue", "nir"),
        statistics=BandStats(77, *rng.random((2, 4)), low=-rng.random(4), high=1 + rng.random(4)),
        dtype="uint16",
        tile_size=64,
        cell_size=(0.1, 1 / 3),
        units="metre",
        losses=LossSpec(class_balancing=True, dice_loss_fraction=0.3),
        settings={"encoder_weights": None, "seed": 42, "runs": [{"epochs": 2, "lr": 1e-3}]},
        history=[{"epoch": 1, "valid_loss": 0.25}, {"epoch": 2, "valid_loss": 0.125}],
        metrics={"miou": 0.5, "per_class": {"road": {"iou": 0.25}}},
    )


@pytest.fixture
def folder(model, tmp_path):
    return save_model(model, tmp_path / "model")


def test_a_loaded_model_gives_the_same_logits_and_says_the_same(model, folder):
    loaded = load_model(folder)
    assert not loaded.network.training
    image, valid = torch.randn(2, 4, 64, 96), (torch.rand(2, 1, 64, 96) > 0.1).float()
    with torch.inference_mode():
        assert torch.equal(loaded.network(image, valid), model.network(image, valid))
    for name in ("spec", "legend", "bands", "dtype", "tile_size", "cell_size", "units", "losses", "settings"):
        assert getattr(loaded, name) == getattr(model, name), name
    assert loaded.history == model.history
    assert loaded.metrics == model.metrics
    for name in ("count", "mean", "m2", "low", "high"):
        assert np.array_equal(getattr(loaded.statistics, name), getattr(model.statistics, name)), name
    data, seen = np.ones((4, 2, 2), np.uint16), np.ones((2, 2), bool)
    assert np.array_equal(loaded.normalization(data, seen), model.normalization(data, seen))


def test_what_values_mean_is_remembered(model, folder, tmp_path):
    """And left out where nothing is known, so that models of earlier versions keep their fingerprint."""
    assert "pixel_values" not in json.loads((folder / MANIFEST).read_text())
    assert load_model(folder).pixel_values == RAW
    before = model.fingerprint()
    for values in (PixelValues(scaled=True), PixelValues(scales=((1e-4, -0.1), None, (2.0, 0.0), (1e-4, 0.0)))):
        model.pixel_values = values
        found = load_model(save_model(model, tmp_path / "values", overwrite=True))
        assert found.pixel_values == values
        assert found.fingerprint() == model.fingerprint() != before


def test_saving_again_gives_the_same_weights(model, folder, tmp_path):
    again = save_model(load_model(folder), tmp_path / "again")
    assert (again / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
    assert json.loads((again / MANIFEST).read_text()) == json.loads((folder / MANIFEST).read_text())


def test_a_model_that_has_mapped_can_be_saved(model, folder, tmp_path):
    """Its tensors lie in memory otherwise (channels last)."""
    used = load_model(folder)
    used.network.to(memory_format=torch.channels_last)
    assert (save_model(used, tmp_path / "used") / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()


def test_scores_of_absent_classes_come_back_as_nan(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "metrics", {"per_class": {"road": {"iou": math.nan}}})
    loaded = load_model(save_model(model, tmp_path / "model"))
    assert math.isnan(loaded.metrics["per_class"]["road"]["iou"])


FILES = [FILE_LIST, "history.csv", MANIFEST, MODEL_ITEM, WEIGHTS]


def test_the_folder_holds_tensors_and_json_and_no_pickle(folder):
    assert sorted(path.name for path in folder.iterdir()) == FILES
    json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    spec = ModelSpec("tu-test_resnet", 4, 3, pointrend=True, aux="pixel", pyramid_sizes=(1, 3))
    assert set(load_file(folder / WEIGHTS)) == set(build_network(spec).state_dict())
    for path in map(folder.joinpath, FILES[1:]):
        with pytest.raises(ValueError, match=r"opcode|pickle|bytes|literal"):
            list(pickletools.genops(path.read_bytes()))


def test_versions_and_architecture_are_written_down(folder):
    manifest = read_manifest(folder)
    assert manifest["made_with"]["torch"].startswith(torch.__version__.split("+")[0])
    assert manifest["architecture"]["pyramid_sizes"] == [1, 3]


@pytest.mark.parametrize("part", [MANIFEST, WEIGHTS])
def test_a_missing_part_is_named(part, folder):
    (folder / part).unlink()
    with pytest.raises(PackageError, match=part.replace(".", r"\.")):
        load_model(folder)


@pytest.mark.parametrize("place", [0, 100, 0.5, -1])
def test_one_changed_byte_of_the_weights_is_noticed(place, folder):
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[int(place * len(content)) if isinstance(place, float) else place] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(PackageError, match="checksum"):
        load_model(folder)


def test_half_a_weight_file_is_noticed(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(PackageError, match="checksum"):
        load_model(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"geopsp-model"', '{"format": "other"}', "\xff\xfe"])
def test_a_damaged_manifest_is_noticed(text, folder):
    (folder / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(PackageError, match=r"Cannot read|does not describe"):
        load_model(folder)


def rewrite(folder, *, sealed=True, **change):
    """The manifest with other parts (None: without them), with the checksum that it would have, or the one it had."""
    manifest = json.loads((folder / MANIFEST).read_text()) | change
    manifest = {name: value for name, value in manifest.items() if value is not None}
    if sealed:
        manifest["manifest_sha256"] = manifest_checksum(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["classes", "bands", "tile_size", "statistics", "cell_size", "manifest_sha256"])
def test_whatever_is_changed_in_the_manifest_is_noticed(name, folder):
    rewrite(folder, sealed=False, **{name: [1]})
    with pytest.raises(PackageError, match="was changed: its checksum differs"):
        load_model(folder)


def test_pyramid_sizes_that_the_weights_would_fit_are_noticed(folder):
    text = (folder / MANIFEST).read_text()
    architecture = json.loads(text)["architecture"] | {"pyramid_sizes": [1, 2]}
    rewrite(folder, sealed=False, architecture=architecture)
    with pytest.raises(PackageError, match="was changed"):
        load_model(folder)


def test_the_layout_of_the_manifest_does_not_matter(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(dict(reversed(manifest.items())), indent=4))
    load_model(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": {"backbone": "resnet18"}},
        {"architecture": []},
        {"classes": [{"code": 300, "name": "a", "color": "#000000"}] * 3},
        {"classes": [{"code": 0, "name": "a", "color": "#000000"}]},
        {"bands": ["red"]},
        {"statistics": {"count": 5, "mean": [1], "m2": [1], "low": [1], "high": [1]}},
        {"statistics": []},
        {"cell_size": [1]},
        {"tile_size": "big"},
        {"losses": {"unheard_of": 1}},
        {"history": 7},
        *({name: None} for name in ("classes", "bands", "statistics", "tile_size", "losses", "metrics")),
    ],
)
def test_a_manifest_that_makes_no_model_is_refused(change, folder):
    rewrite(folder, **change)
    with pytest.raises(PackageError, match="does not fit"):
        load_model(folder)


@pytest.mark.parametrize(("name", "value"), [("classes", 4), ("bands", 3), ("backbone", "resnet19")])
def test_an_architecture_that_the_weights_do_not_fit_is_refused(name, value, folder):
    architecture = json.loads((folder / MANIFEST).read_text())["architecture"] | {name: value}
    rewrite(folder, architecture=architecture)
    with pytest.raises(PackageError, match="does not fit") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_noticed_even_with_their_checksum(folder):
    save_file({"a": torch.ones(2)}, folder / WEIGHTS)
    rewrite(folder, weights_sha256=file_checksum(folder / WEIGHTS))
    with pytest.raises(PackageError):
        load_model(folder)


@pytest.mark.parametrize("version", [0, 3, "1", None])
def test_another_version_is_refused(version, folder):
    rewrite(folder, version=version)
    with pytest.raises(PackageError, match="version"):
        load_model(folder)


def test_a_model_of_version_1_still_loads(model, folder):
    """It knew one network only, with U-Net or without, and its auxiliary head."""
    architecture = {"backbone": "tu-test_resnet", "bands": 4, "classes": 3, "use_unet": True, "pyramid_sizes": [1, 3],
                    "pointrend": True, "output_stride": 8}  # fmt: skip
    losses = {"class_balancing": True, "focal_loss": False, "dice_loss_fraction": 0.3, "aux_weight": 0.4}
    before = {"context.": "pyramid.", "aux.layers.": "aux."}
    state = load_file(folder / WEIGHTS)
    for new, old in before.items():
        state = {old + n.removeprefix(new) if n.startswith(new) else n: value for n, value in state.items()}
    save_file(state, folder / WEIGHTS)
    checksum = file_checksum(folder / WEIGHTS)
    rewrite(folder, version=1, architecture=architecture, losses=losses, weights_sha256=checksum)
    loaded = load_model(folder)
    assert (loaded.spec, loaded.losses) == (model.spec, replace(model.losses, **ADDED))
    image, valid = torch.randn(2, 4, 64, 96), torch.ones(2, 1, 64, 96)
    with torch.inference_mode():
        assert torch.equal(loaded.network(image, valid), model.network(image, valid))


def test_the_history_comes_as_a_table_too(folder):
    assert (folder / "history.csv").read_text().splitlines() == ["epoch,valid_loss", "1,0.25", "2,0.125"]


def test_no_cell_of_the_history_is_a_formula(tmp_path):
    write_history(
        [{"epoch": 1, "=1+1": -0.5, "note": "@SUM(1)"}, {"epoch": 2, "=1+1": 1.0, "note": "a"}], tmp_path / "h.csv"
    )
    with (tmp_path / "h.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["epoch", "'=1+1", "note"], ["1", "-0.5", "'@SUM(1)"], ["2", "1.0", "a"]]


def test_other_places_are_refused(folder, tmp_path):
    with pytest.raises(InputNotFoundError, match="none"):
        load_model(tmp_path / "none")
    with pytest.raises(InputNotFoundError):
        load_model(folder / MANIFEST)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PackageError, match=r"model\.json"):
        load_model(tmp_path / "empty")


def test_an_existing_folder_stays_unless_it_may_be_replaced(model, folder, tmp_path):
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        save_model(model, folder)
    assert (folder / "mine.txt").exists()
    with pytest.raises(OutputError, match=r"geopsp did not write.*mine\.txt"):
        save_model(model, folder, overwrite=True)
    assert (folder / "mine.txt").read_text() == "mine"
    (folder / "mine.txt").unlink()
    save_model(model, folder, overwrite=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["model", *FILES])


@pytest.mark.parametrize("there", [False, True])
def test_a_crash_while_saving_leaves_what_was_there(there, model, tmp_path, monkeypatch):
    if there:
        save_model(model, tmp_path / "model")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def crash(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(package, "model_manifest", crash)
    with pytest.raises(KeyboardInterrupt):
        save_model(model, tmp_path / "model", overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert (tmp_path / "model").exists() == there
