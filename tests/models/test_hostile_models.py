"""Whoever made a model folder: it loads, or one clear line comes within seconds; nothing is allocated or fetched."""

from __future__ import annotations

import json
import math
import os
import socket
import time

import numpy as np
import pytest
import torch
from common import SOON, slow
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from geopsp.core.bands import BandStats
from geopsp.core.documents import file_checksum
from geopsp.core.legend import Legend
from geopsp.errors import ModelError, PackageError
from geopsp.models import saved_model as package
from geopsp.models.build import ModelSpec, build_network
from geopsp.models.check_weights import require_fitting_weights
from geopsp.models.encoder import offline
from geopsp.models.manifest import HISTORY, MANIFEST, WEIGHTS, manifest_checksum, read_manifest
from geopsp.models.saved_model import TrainedModel, load_model, save_model
from geopsp.models.weights import read_weights


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    spec = ModelSpec("resnet18", 3, 2, pyramid_sizes=(1, 2), decoder="plain")
    model = TrainedModel(
        spec=spec, network=build_network(spec).eval(), legend=Legend.from_names({0: "background", 1: "water"}),
        bands=("red", "green", "blue"),
        statistics=BandStats(9, np.zeros(3), np.full(3, 9.0), np.zeros(3), np.full(3, 255.0)),
        dtype="uint8", tile_size=64, cell_size=(1.0, 1.0), units="metre",
        history=[{"epoch": 1, "valid_loss": math.nan}],
    )  # fmt: skip
    return save_model(model, tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def folder(saved, tmp_path):
    """The same files under another name; weights are a link, as they are large."""
    copy = tmp_path / "model"
    copy.mkdir()
    (copy / MANIFEST).write_text((saved / MANIFEST).read_text())
    (copy / WEIGHTS).symlink_to(saved / WEIGHTS)
    return copy


def seal(folder, **change):
    """Write other entries, with the checksums that fit them; a name a__b stands for b in a."""
    manifest = json.loads((folder / MANIFEST).read_text())
    for name, value in change.items():
        *outer, last = name.split("__")
        inner = manifest
        for step in outer:
            inner = inner[step]
        inner[last] = value
    manifest["weights_sha256"] = file_checksum(folder / WEIGHTS)
    manifest["manifest_sha256"] = manifest_checksum(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def replace_weights(folder, state):
    (folder / WEIGHTS).unlink()
    save_file(state, folder / WEIGHTS)
    seal(folder)


def refused(folder, says):
    start = time.monotonic()
    with pytest.raises(PackageError, match=says) as caught:
        load_model(folder)
    assert time.monotonic() - start < SOON
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_the_model_itself_loads(folder):
    seal(folder)
    assert load_model(folder).bands == ("red", "green", "blue")


NAMES = ["tu-hf-hub:someone/x", "tu-hf_hub:x", "tu-local-dir:/etc", "tu-/etc", "../x", "a\\b", "", "a" * 5000, "tu-a\n"]


@pytest.mark.parametrize(
    ("entry", "value", "says"),
    [
        *(("architecture__backbone", name, r"`architecture\.backbone`") for name in NAMES),
        ("architecture__bands", 10**6, r"`architecture\.bands` is 1000000"),
        ("architecture__bands", True, r"`architecture\.bands` is True"),
        ("architecture__classes", 10**6, r"`architecture\.classes`"),
        ("architecture__pyramid_sizes", [1] * 20_000, r"`architecture\.pyramid_sizes` .* at most 16 items"),
        ("architecture__pyramid_sizes", [10**9], r"`architecture\.pyramid_sizes\[0\]` is 1000000000"),
        ("architecture__atrous_rates", [10**9], r"`architecture\.atrous_rates\[0\]`"),
        ("architecture__encoder_depth", 10**9, "encoder_depth"),
        ("architecture__output_stride", 0, "output_stride"),
        ("architecture__decoder", "a" * 10**6, r"`architecture\.decoder`"),
        ("bands", ["red"] * 10**6, "`bands`"),
        ("bands", ["red", 3, "blue"], r"`bands\[1\]` is 3, but must be a valid string"),
        ("bands", ["red", None, "blue"], r"`bands\[1\]` is None"),
        ("bands", ["red", "blue"], "3 in architecture and 2 in bands"),
        ("classes", [{"code": 0, "name": "a", "color": "red"}] * 2, r"`classes\[0\]\.color` is 'red'"),
        ("classes", [{"code": 0, "name": name, "color": "#000000"} for name in "ab"], "distinct codes"),
        ("classes", [{"code": code, "name": "a", "color": "#000000"} for code in (0, 1)], "one name to two classes"),
        ("dtype", "object", "`dtype` is 'object'"),
        ("tile_size", 10**9, "`tile_size` is 1000000000"),
        ("tile_size", 65, "65"),
        ("tile_size", -64, "`tile_size` is -64"),
        ("cell_size", [0, 0], r"`cell_size\[0\]` is 0, but must be greater than 0"),
        ("cell_size", [math.inf, 1], r"`cell_size\[0\]`"),
        ("cell_size", [1, math.nan], r"`cell_size\[1\]`"),
        ("statistics__count", -1, r"`statistics\.count` is -1"),
        ("statistics__m2", [1, -1, 1], r"`statistics\.m2\[1\]` is -1"),
        ("statistics__m2", [1, 1, math.inf], r"`statistics\.m2\[2\]` is inf"),
        ("statistics__mean", [1, math.nan, 1], r"`statistics\.mean\[1\]` is nan"),
        ("statistics__bands", 2, "for each band"),
        ("losses__ignore_classes", ["wood"], "wood"),
        ("losses__ignore_classes", [3], "ignore_classes"),
        ("losses__aux_weight", math.nan, "aux_weight"),
        ("pixel_values", {"scaled": 1, "scales": []}, r"`pixel_values\.scaled`"),
        ("history", [{"epoch": "one"}], r"`history\[0\]\.epoch` is 'one'"),
        ("settings", [], "`settings`"),
    ],
)
def test_an_entry_out_of_range_is_named_before_anything_is_built(entry, value, says, folder):
    seal(folder, **{entry: value})
    refused(folder, says)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": "geopsp-model", "a": ' + "[" * 100_000, "[1e999]", '{"a": 1, "a": 2}'],
    ids=["list", "dict", "number", "twice"],
)  # fmt: skip
def test_other_json_is_refused(text, folder):
    (folder / MANIFEST).write_text(text)
    refused(folder, MANIFEST)


def test_files_of_another_kind_are_refused(folder, tmp_path):
    if os.name == "posix":
        for name in (WEIGHTS, MANIFEST):
            (folder / name).unlink()
            os.mkfifo(folder / name)
            refused(folder, f"{name}: it is no regular file")
    (folder / MANIFEST).unlink()
    with (folder / MANIFEST).open("wb") as file:
        file.truncate(200 * 2**20)
    refused(folder, "it has 210 MB")
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).mkdir()
    refused(folder, "it is a folder")


def test_a_history_is_never_read(folder):
    (folder / HISTORY).mkdir()
    load_model(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state | {"more": torch.ones(1)},
        lambda state: {name: value for name, value in state.items() if name != "encoder.conv1.weight"},
        lambda state: state | {"encoder.conv1.weight": torch.ones(64, 4, 7, 7)},
        lambda state: state | {"encoder.conv1.weight": state["encoder.conv1.weight"].long()},
        lambda state: state | {"encoder.conv1.weight": state["encoder.conv1.weight"].half()},
        lambda state: state | {"encoder.bn1.num_batches_tracked": torch.tensor(1.0)},
    ],
    ids=["more", "missing", "shape", "int64", "half", "float count"],
)
def test_weights_are_compared_before_the_network_is_built(change, folder, monkeypatch):
    replace_weights(folder, change(load_file(folder / WEIGHTS)))
    monkeypatch.setattr(package, "build_network", None)
    refused(folder, "does not fit .*(more|conv1|tensors|tracked)")


@pytest.mark.parametrize("backbone", [slow("tu-convnext_tiny"), "resnet152"])
def test_a_large_network_for_small_weights_takes_no_memory(backbone, folder, monkeypatch):
    seal(folder, architecture__backbone=backbone)
    monkeypatch.setattr(package, "build_network", None)
    refused(folder, "tensors")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1])
def test_weights_that_are_no_numbers_are_refused(bad, folder):
    state = load_file(folder / WEIGHTS)
    name = "encoder.bn1.running_var" if bad == -1 else "decoder.classify.weight"
    state[name].view(-1)[-1] = bad
    replace_weights(folder, state)
    refused(folder, f"{name} holds")


@pytest.mark.parametrize(
    "options",
    [
        {"backbone": "resnet18", "encoder_depth": 3},
        slow({"backbone": "mit_b0"}),
        slow({"backbone": "dpn68", "encoder_depth": 4}),
        {"backbone": "tu-mobilenetv3_small_050", "encoder_depth": 3, "aux": "presence"},
        slow(
            {
                "backbone": "tu-convnext_atto",
                "pyramid_sizes": (),
                "atrous_rates": (2, 4),
                "pointrend": True,
                "aux": "pixel",
            }
        ),
    ],
)
def test_every_kind_of_network_can_be_compared_without_memory(options, tmp_path):
    spec = ModelSpec(**{"bands": 5, "classes": 3, **options})
    state = build_network(spec).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / WEIGHTS)
    before = torch.get_rng_state()
    require_fitting_weights(spec, tmp_path / WEIGHTS)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_users_name_no_addresses_and_paths_either(name, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    with pytest.raises(ModelError, match="`backbone` is"):
        ModelSpec(name, 3, 2)


def test_contexts_have_an_end():
    for change in (
        {"pyramid_sizes": (1,) * 17},
        {"pyramid_sizes": (513,)},
        {"atrous_rates": (10**9,), "pyramid_sizes": ()},
    ):
        with pytest.raises(ModelError, match="at most"):
            ModelSpec("resnet18", 3, 2, **change)
    with pytest.raises(ModelError, match="`bands`"):
        ModelSpec("resnet18", 10**6, 2)


def test_the_hub_is_offline_while_a_model_is_loaded(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(
        package, "build_network", lambda spec: seen.append(constants.is_offline_mode()) or build_network(spec)
    )
    seal(folder)
    load_model(folder)
    assert seen == [True]
    before = constants.HF_HUB_OFFLINE
    with pytest.raises(ValueError, match="x"), offline():
        raise ValueError("x")
    assert before == constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.pth", b"text"), ("a.pth", {1: torch.ones(1)}), ("a.pth", {"state_dict": 3}), ("a.pth", [1]), ("a.pth", b""),
     ("a.safetensors", b"text"), ("a.safetensors", b"\xff" * 100), ("a.pth", {"a": 3})],
)  # fmt: skip
def test_files_without_named_tensors_are_no_weights(name, content, tmp_path):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        torch.save(content, tmp_path / name)
    with pytest.raises(ModelError, match="named tensors"):
        read_weights(tmp_path / name)


def test_manifests_are_read_without_building(folder):
    assert read_manifest(folder)["tile_size"] == 64
