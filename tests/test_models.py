"""The network's parts against their definitions, and every combination of them in training and use."""

from __future__ import annotations

import pickle
import socket
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from geopsp.errors import ModelError
from geopsp.losses import LossSpec, total_loss
from geopsp.models import encoder as encoders
from geopsp.models.build import ModelSpec, build, check_tile, count_parameters, device_words, pick_device
from geopsp.models.encoder import (
    RESNETS,
    adapt_stem,
    build_encoder,
    load_encoder_weights,
    supported_backbones,
)
from geopsp.models.pointrend import PointHead, PointRend, sample, uncertainty
from geopsp.models.pspnet import PSPNet, TrainingOutput
from geopsp.models.pyramid import PyramidPooling, bin_matrix, masked_pool

QUICK = settings(max_examples=25, deadline=None)
RGB = ("red", "green", "blue")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


# ---- the whole network


COMBINATIONS = [("resnet18", unet, points) for unet in (True, False) for points in (True, False)]


@pytest.mark.parametrize(("backbone", "use_unet", "pointrend"), [*COMBINATIONS, ("resnet50", True, True)])
def test_every_combination_trains_a_batch_of_one_and_gives_logits(backbone, use_unet, pointrend):
    network = build(ModelSpec(backbone, 4, 3, use_unet, pointrend=pointrend)).train()
    image, labels = torch.randn(1, 4, 64, 64), torch.randint(0, 3, (1, 64, 64))
    output = network(image)
    assert output.logits.shape == output.aux.shape == (1, 3, 64, 64)
    assert (output.points is not None) == pointrend
    total_loss(output, labels, LossSpec(dice_loss_fraction=0.3), None).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    with torch.inference_mode():
        logits = network.eval()(torch.randn(2, 4, 37, 53))
    assert logits.shape == (2, 3, 37, 53)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


def test_the_auxiliary_loss_alone_trains_the_encoder():
    network = build(ModelSpec("resnet18", 3, 3)).train()
    output = network(torch.randn(1, 3, 64, 64))
    F.cross_entropy(output.aux, torch.randint(0, 3, (1, 64, 64))).backward()
    state = dict(network.named_parameters())
    assert state["encoder.conv1.weight"].grad.abs().sum() > 0
    assert state["encoder.layer3.1.conv2.weight"].grad.abs().sum() > 0
    assert state["encoder.layer4.1.conv2.weight"].grad is None
    assert all(p.grad is None for p in network.decoder.parameters())


def test_the_map_of_a_tile_does_not_depend_on_its_companions():
    network = build(ModelSpec("resnet18", 3, 4, pointrend=True)).eval()
    one, other = torch.randn(2, 1, 3, 64, 64)
    with torch.inference_mode():
        alone, together = network(one), network(torch.cat([one, other]))[:1]
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("use_unet", [True, False])
def test_bfloat16_autocast_gives_finite_float32_logits(use_unet):
    network = build(ModelSpec("resnet18", 3, 3, use_unet, pointrend=True))
    valid = torch.ones(2, 1, 64, 64)
    valid[:, :, :20] = 0
    with torch.autocast("cpu", torch.bfloat16):
        output: TrainingOutput = network.train()(torch.randn(2, 3, 64, 64), valid)
        logits = network.eval()(torch.randn(2, 3, 64, 64), valid)
    assert output.points.dtype == output.logits.dtype == logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


def test_a_tile_without_a_valid_pixel_gives_finite_logits():
    network = build(ModelSpec("resnet18", 3, 3, pointrend=True)).eval()
    assert torch.isfinite(network(torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64))).all()
    assert torch.isfinite(network.train()(torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)).point_logits).all()


@pytest.mark.parametrize("sizes", [(), (1,), (4,), (1, 2, 3), (1, 2, 3, 6), (5, 7, 9, 11, 13)])
def test_any_pyramid_sizes_train_at_a_batch_of_one(sizes):
    network = build(ModelSpec("resnet18", 3, 2, pyramid_sizes=sizes)).train()
    network(torch.randn(1, 3, 32, 32)).logits.sum().backward()
    assert network.eval()(torch.randn(1, 3, 40, 72)).shape == (1, 2, 40, 72)


def test_only_with_a_pyramid_does_a_far_pixel_count():
    """The receptive field of the plain network is smaller than the picture; that of the pyramid is not."""
    image = torch.randn(1, 3, 1024, 32)
    other = image.clone()
    other[:, :, -32:] += 10
    for sizes, reaches in (((), False), ((1,), True)):
        network = build(ModelSpec("resnet18", 3, 2, pyramid_sizes=sizes, use_unet=False)).eval()
        with torch.inference_mode():
            moved = (network(image) - network(other))[:, :, 0].abs().max() > 1e-6
        assert bool(moved) == reaches


# ---- encoder


@pytest.mark.parametrize("name", RESNETS)
def test_resnets_build(name):
    with torch.device("meta"):
        network = build(ModelSpec(name, 3, 5))
    assert count_parameters(network) > 10e6


@pytest.mark.parametrize(("use_unet", "millions"), [(False, 46.6), (True, 49.2)])
def test_the_parameter_count_is_that_of_the_architecture(use_unet, millions):
    with torch.device("meta"):
        network = build(ModelSpec("resnet50", 3, 10, use_unet))
    assert (count_parameters(network) - count_parameters(network.aux)) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(("stride", "dilations", "last"), [(8, (2, 4), 8), (16, (1, 2), 4), (32, (1, 1), 2)])
def test_dilation_stands_in_for_stride(stride, dilations, last):
    encoder = build_encoder("resnet18", bands=3, output_stride=stride).eval()
    maps = encoder(torch.zeros(1, 3, 64, 64))
    assert maps[-1].shape[-1] == last
    for stage, dilation in zip((encoder.layer3, encoder.layer4), dilations, strict=True):
        convs = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert {m.dilation for m in convs} == {(dilation, dilation)}
        assert all(m.stride == (1, 1) for m in convs) == (dilation > 1)


@pytest.mark.parametrize("bands", range(1, 13))
def test_any_number_of_bands(bands):
    encoder = build_encoder("resnet18", bands=bands, output_stride=8).eval()
    with torch.inference_mode():
        maps = encoder(torch.randn(1, bands, 32, 32))
    assert [m.shape[1] for m in maps] == list(encoder.out_channels) == [bands, 64, 64, 128, 256, 512]


def test_an_unknown_backbone_is_answered_with_those_that_exist():
    with pytest.raises(ModelError) as caught:
        build(ModelSpec("resnet19", 3, 2))
    assert all(name in str(caught.value) for name in (*RESNETS, "mit_b0", "tu-NAME"))


@pytest.mark.parametrize("name", ["vgg16", "densenet121", "tu-no_such_model"])
def test_a_backbone_that_cannot_be_dilated_is_refused(name):
    assert name not in supported_backbones()
    with pytest.raises(ModelError, match=f"{name}.*cannot be built"):
        build(ModelSpec(name, 3, 2))


@pytest.mark.parametrize("name", ["mit_b0", "mobilenet_v2", "tu-resnet10t"])
def test_other_families_train_with_both_decoders(name):
    for use_unet in (True, False):
        network = build(ModelSpec(name, 2, 3, use_unet, pointrend=True)).train()
        network(torch.randn(1, 2, 64, 64)).logits.sum().backward()
        assert network.eval()(torch.randn(1, 2, 64, 64)).shape == (1, 3, 64, 64)


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
    with pytest.raises(ModelError, match=r"1 of its 100 tensors are missing and 1 have another shape.*bn1\.bias"):
        load_encoder_weights(encoder, "resnet18", str(tmp_path / "w.safetensors"), RGB)
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("bare", [True, False])
def test_a_weight_file_with_code_is_refused_and_its_code_not_run(bare, tmp_path):
    path, crater = tmp_path / "w.pth", tmp_path / "crater"
    if bare:
        path.write_bytes(pickle.dumps(Bomb(crater), protocol=2))
    else:
        torch.save({"conv1.weight": Bomb(crater)}, path)
    encoder = build_encoder("resnet18", bands=3, output_stride=8)
    with pytest.raises(ModelError, match="no code") as caught:
        load_encoder_weights(encoder, "resnet18", str(path), RGB)
    assert not crater.exists()
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no weights", "folder", "list", "tensor", "numbers"])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_other_files_are_refused(content, ending, tmp_path):
    path = tmp_path / f"w{ending}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    else:
        torch.save({"list": [1], "tensor": torch.ones(3), "numbers": {"conv1.weight": 1}}[content], path)
    encoder = build_encoder("resnet18", bands=3, output_stride=8)
    with pytest.raises(ModelError):
        load_encoder_weights(encoder, "resnet18", str(path), RGB)


def test_a_missing_weight_file_is_named(tmp_path):
    encoder = build_encoder("resnet18", bands=3, output_stride=8)
    with pytest.raises(ModelError, match=r"none\.pth"):
        load_encoder_weights(encoder, "resnet18", str(tmp_path / "none.pth"), RGB)


def not_cached(**place):
    raise LocalEntryNotFoundError("not cached")


def no_network(*args, **options):
    raise socket.gaierror("no network")


def test_without_network_imagenet_weights_fail_at_once(monkeypatch):
    monkeypatch.setattr(encoders, "hf_hub_download", not_cached)
    monkeypatch.setattr(encoders, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    encoder = build_encoder("resnet18", bands=3, output_stride=8)
    for name in ("resnet18", "tu-resnet18"):
        with pytest.raises(ModelError, match=r"no network.*encoder_weights=None"):
            load_encoder_weights(encoder, name, "imagenet", RGB)


def test_imagenet_weights_come_from_the_cache(monkeypatch, tmp_path):
    state = donor_state()
    save_file(state, tmp_path / "model.safetensors")
    asked = []

    def cached(**place):
        asked.append(place)
        return str(tmp_path / place["filename"])

    monkeypatch.setattr(encoders, "hf_hub_download", cached)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    encoder = build_encoder("resnet18", bands=3, output_stride=8)
    load_encoder_weights(encoder, "resnet18", "imagenet", RGB)
    assert all(torch.equal(state[key], value) for key, value in encoder.state_dict().items())
    assert [place["local_files_only"] for place in asked] == [True]


def test_a_damaged_cache_and_missing_imagenet_weights_are_told(monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"half")
    monkeypatch.setattr(encoders, "hf_hub_download", lambda **place: str(tmp_path / place["filename"]))
    encoder = build_encoder("resnet18", bands=3, output_stride=8)
    with pytest.raises(ModelError, match="cannot be downloaded"):
        load_encoder_weights(encoder, "resnet18", "imagenet", RGB)
    with pytest.raises(ModelError, match="no ImageNet weights for resnext101_32x4d"):
        load_encoder_weights(encoder, "resnext101_32x4d", "imagenet", RGB)


# ---- pyramid


@given(size=st.integers(1, 40), bins=st.integers(1, 9))
@QUICK
def test_bins_are_those_of_adaptive_pooling(size, bins):
    matrix = bin_matrix(size, bins, torch.zeros(1))
    pooled = F.adaptive_avg_pool1d(torch.eye(size)[None], bins)[0].T  # (bins, size) weights
    assert torch.equal(matrix > 0, pooled > 0)


@given(height=st.integers(1, 24), width=st.integers(1, 24), bins=st.integers(1, 9))
@QUICK
def test_where_all_is_valid_it_is_adaptive_average_pooling(height, width, bins):
    features = torch.randn(2, 3, height, width)
    pooled = masked_pool(features, torch.ones(2, 1, height, width), bins)
    torch.testing.assert_close(pooled, F.adaptive_avg_pool2d(features, bins), rtol=1e-5, atol=1e-5)


@given(height=st.integers(1, 16), width=st.integers(1, 16), bins=st.integers(1, 6), seed=st.integers(0, 99))
@QUICK
def test_what_lies_in_invalid_cells_does_not_count(height, width, bins, seed):
    torch.manual_seed(seed)
    features, weight = torch.randn(1, 3, height, width), (torch.rand(1, 1, height, width) > 0.5).float()
    other = torch.where(weight > 0, features, 1e4 * torch.randn_like(features))
    pooled = masked_pool(features, weight, bins)
    assert torch.equal(pooled, masked_pool(other, weight, bins))
    if bins == 1 and weight.any():
        mean = features[0][:, weight[0, 0] > 0].mean(dim=1)
        torch.testing.assert_close(pooled[0, :, 0, 0], mean, rtol=1e-5, atol=1e-5)


def test_a_bin_without_valid_cells_is_0_and_partly_valid_cells_count_in_part():
    features = torch.tensor([[1.0, 2.0, 3.0, 4.0]])[None, None]
    weight = torch.tensor([[0.0, 0.0, 1.0, 0.25]])[None, None]
    assert masked_pool(features, weight, 2)[0, 0, 0].tolist() == pytest.approx([0, (3 + 1) / 1.25])


def test_invalid_ground_does_not_reach_the_valid_part_through_the_pyramid():
    pyramid = PyramidPooling(16, (1, 2, 3, 6), 8, 0.1).eval()
    features, weight = torch.randn(1, 16, 12, 12), torch.ones(1, 1, 12, 12)
    weight[..., 6:] = 0
    other = features.clone()
    other[..., 6:] = 50
    near, far = (pyramid(f, weight)[..., :5] for f in (features, other))
    torch.testing.assert_close(near, far)


@pytest.mark.parametrize("channels", [64, 128, 256, 512])
@pytest.mark.parametrize("sizes", [(1,), (1, 2, 3), (1, 2, 3, 6)])
def test_the_global_bin_tells_one_tile_from_another(channels, sizes):
    """A norm over too few values would give +-1, or nothing, whatever the tile."""
    pyramid = PyramidPooling(channels, sizes, 8, 0.1)
    branch = pyramid.branches[0]
    values = branch[1](branch[0](torch.randn(6, channels, 1, 1)))
    assert values.round(decimals=3).unique().numel() > values.numel() / 2


# ---- PointRend


@given(height=st.integers(1, 9), width=st.integers(1, 9))
@QUICK
def test_sampling_at_pixel_centres_gives_the_pixels(height, width):
    features = torch.randn(2, 3, height, width)
    rows, cols = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([(cols + 0.5) / width, (rows + 0.5) / height], dim=-1).view(1, -1, 2).expand(2, -1, -1)
    torch.testing.assert_close(sample(features, points), features.flatten(2), rtol=1e-4, atol=1e-5)


def test_sampling_between_centres_is_bilinear_and_keeps_to_the_border():
    features = torch.tensor([[0.0, 4.0]])[None, None]
    points = torch.tensor([[[0.5, 0.5], [0.375, 0.1], [0.0, 0.0], [1.0, 1.0]]])
    assert sample(features, points)[0, 0].tolist() == pytest.approx([2, 1, 0, 4])


def test_uncertainty_is_minus_the_lead():
    logits = torch.tensor([[3.0, 1.0], [1.0, 5.0], [2.5, 5.0]])[None]
    assert uncertainty(logits)[0].tolist() == pytest.approx([-0.5, 0])
    assert uncertainty(torch.zeros(1, 1, 4)).tolist() == [[0, 0, 0, 0]]


def pointrend(classes=3, fine=4, share=1 / 32):
    return PointRend(fine, classes, width=8, layers=3, train_share=1 / 64, share=share)


class CoarseHead(nn.Module):
    def forward(self, fine, coarse):
        return coarse


def bilinear(coarse, size):
    return F.interpolate(coarse, size, mode="bilinear", align_corners=False)


def test_a_head_that_answers_with_the_coarse_logits_does_no_harm():
    """At the centres of a map enlarged at one stroke, the coarse map's samples are that map."""
    rend = pointrend(share=1.0)
    rend.head = CoarseHead()
    coarse, valid = torch.randn(2, 3, 8, 8), torch.ones(2, 1, 64, 64)
    refined = rend.refine(coarse, torch.randn(2, 4, 16, 16), valid)
    torch.testing.assert_close(refined, bilinear(coarse, 64), rtol=1e-4, atol=1e-4)


@given(seed=st.integers(0, 50), height=st.integers(8, 20), width=st.integers(8, 20))
@QUICK
def test_only_the_least_certain_cells_are_decided_anew(seed, height, width):
    torch.manual_seed(seed)
    rend = pointrend(share=1 / 8)
    rend.head = Constant(100.0)
    logits, valid = torch.randn(2, 3, height, width), (torch.rand(2, 1, height, width) > 0.3).float()
    decided = rend._decide(logits, logits, torch.zeros(2, 4, height, width), valid)
    changed = (decided == 100).all(dim=1)
    assert torch.equal(decided[~changed[:, None].expand_as(decided)], logits[~changed[:, None].expand_as(logits)])
    count = max(16, height * width // 8)
    assert (changed.flatten(1).sum(1) == count).all()
    for cells, unsure, seen in zip(changed, uncertainty(logits), valid[:, 0] > 0, strict=True):
        if seen.sum() >= count:
            assert seen[cells].all()
            assert unsure[cells].min() >= unsure[seen & ~cells].max() if (seen & ~cells).any() else True
        else:
            assert cells[seen].all()


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, fine, coarse):
        return torch.full_like(coarse, self.value)


class Position(nn.Module):
    """Answers with the first channels of the fine map: where the point lies, if the map holds coordinates."""

    def forward(self, fine, coarse):
        return fine[:, :2]


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (512, 32)])
def test_points_are_put_back_where_they_were_taken(size):
    """A fine map of coordinates comes back as coordinates, also under bfloat16: they are float32 throughout."""
    height, width = size
    rend = pointrend(classes=2, share=1.0)
    rend.head = Position()
    rows, cols = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    fine = torch.cat([torch.stack([rows, cols]), torch.zeros(2, height, width)])[None]
    with torch.autocast("cpu", torch.bfloat16):
        refined = rend.refine(torch.zeros(1, 2, height // 8, width // 8), fine, torch.ones(1, 1, height, width))
    torch.testing.assert_close(refined[0, 0], rows, rtol=0, atol=0.01)
    torch.testing.assert_close(refined[0, 1], cols, rtol=0, atol=0.01)


def test_training_points_are_unsure_and_valid_where_they_can_be():
    torch.manual_seed(0)
    rend = pointrend(classes=2)
    coarse, valid = torch.zeros(1, 2, 16, 16), torch.ones(1, 1, 128, 128)
    coarse[:, 0] = torch.linspace(-9, 9, 16)  # the surer, the farther from the middle column
    valid[:, :, :64] = 0
    points, logits = rend.train_points(coarse, torch.randn(1, 4, 32, 32, requires_grad=True), valid)
    assert points.shape == (1, 256, 2)
    assert logits.shape == (1, 2, 256)
    chosen = points[0, :192]
    assert (chosen[:, 1] > 0.49).all()
    assert (chosen[:, 0] - 0.5).abs().max() < 0.33
    assert (points[0, 192:, 0] - 0.5).abs().max() > 0.4


def test_gradients_of_points_reach_both_maps():
    rend = pointrend()
    coarse, fine = torch.randn(1, 3, 8, 8, requires_grad=True), torch.randn(1, 4, 16, 16, requires_grad=True)
    rend.train_points(coarse, fine, torch.ones(1, 1, 64, 64))[1].sum().backward()
    assert coarse.grad.abs().sum() > 0
    assert fine.grad.abs().sum() > 0


def test_the_head_sees_the_coarse_logits_in_every_layer():
    head = PointHead(4, 3, width=8, layers=3)
    assert [layer.in_channels for layer in head.layers] == [7, 11, 11]
    assert head.classify.in_channels == 11


# ---- build


@pytest.mark.parametrize(
    "wrong",
    [
        {"bands": 0},
        {"classes": 1},
        {"pyramid_sizes": (1, 0)},
        {"output_stride": 4},
    ],
)
def test_a_spec_out_of_range_is_refused(wrong):
    with pytest.raises(ModelError, match="needed"):
        ModelSpec(**({"backbone": "resnet18", "bands": 3, "classes": 2} | wrong))


@given(
    bands=st.integers(1, 20),
    classes=st.integers(2, 99),
    sizes=st.lists(st.integers(1, 9), max_size=5).map(tuple),
    flags=st.tuples(st.booleans(), st.booleans()),
    stride=st.sampled_from([8, 16, 32]),
)
@QUICK
def test_a_spec_comes_back_from_json(bands, classes, sizes, flags, stride):
    spec = ModelSpec("resnet18", bands, classes, flags[0], sizes, flags[1], stride)
    assert ModelSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("size", [32, 64, 96, 256, 512])
def test_good_tiles(size):
    check_tile(size)


@pytest.mark.parametrize(("size", "hint"), [(0, 32), (31, 32), (33, 64), (100, 128), (500, 512)])
def test_bad_tiles_are_answered_with_a_good_one(size, hint):
    with pytest.raises(ModelError, match=f"e.g. {hint};"):
        check_tile(size)


def test_a_tile_must_leave_more_than_one_cell():
    """At stride 32 a tile of 32 is one cell, which BatchNorm cannot normalise at batch one."""
    check_tile(64, output_stride=32)
    with pytest.raises(ModelError, match=r"e\.g\. 64;"):
        check_tile(32, output_stride=32)


def test_devices():
    assert pick_device("cpu").type == "cpu"
    assert "CPU" in device_words(torch.device("cpu"))
    for name in ("cuda:77", "nonsense"):
        with pytest.raises(ModelError, match=name):
            pick_device(name)


def test_networks_are_pspnets():
    with torch.device("meta"):
        assert isinstance(build(ModelSpec("resnet18", 3, 2)), PSPNet)
