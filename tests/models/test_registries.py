"""A new encoder family, decoder, context, loss or source of weights is one entry in its registry."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from common import slow
from model_common import trained_step
from torch import nn
from torch.nn import functional as F

from geopsp.core.bands import BandStats
from geopsp.core.legend import Legend
from geopsp.errors import ModelError
from geopsp.models import encoder, losses, parts, weights
from geopsp.models.build import ModelSpec, build_network
from geopsp.models.encoder import supported_backbones
from geopsp.models.losses import LossSpec, total_loss
from geopsp.models.parts import ContextKind, DecoderKind
from geopsp.models.saved_model import TrainedModel, load_model, save_model
from geopsp.models.stem import match_stem
from geopsp.models.weights import Pretrained, init_encoder, init_network

SPEC = {"backbone": "resnet18", "bands": 3, "classes": 3, "pyramid_sizes": (1, 2)}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def saved(network: nn.Module, spec: ModelSpec, folder) -> TrainedModel:
    """The model, saved and loaded again."""
    model = TrainedModel(
        spec=spec, network=network, legend=Legend.from_names({1: "a", 2: "b", 3: "c"}), bands=("red", "green", "blue"),
        statistics=BandStats(9, *np.ones((4, 3))), dtype="uint8", tile_size=64, cell_size=(1.0, 1.0), units="metre",
    )  # fmt: skip
    return load_model(save_model(model, folder))


# ---- encoders


class TinyEncoder(nn.Module):
    """Four convolutions; the last stage is dilated."""

    def __init__(self, bands: int, depth: int) -> None:
        super().__init__()
        self.out_channels = (bands, 4, 8, 12, 16, 20)[: depth + 1]
        strides, dilations = (2, 2, 2, 1, 1), (1, 1, 1, 2, 4)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=s, padding=d, dilation=d), nn.BatchNorm2d(b), nn.ReLU())
            for a, b, s, d in zip(self.out_channels, self.out_channels[1:], strides, dilations, strict=False)
        )

    def forward(self, image):
        maps = [image]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps


class TinyFamily:
    hint = "tiny ones"

    def names(self):
        return ["tiny"]

    def has(self, name):
        return name == "tiny"

    def build(self, name, *, bands, output_stride, depth):
        if output_stride != 8:
            raise ValueError("dilated for 8 only")
        return TinyEncoder(bands, depth)

    def usable_stride(self, name, wanted, depth):
        return 8

    def shown_size(self, name, rows, columns):
        return rows, columns

    def weights(self, name, which):
        if which != "moon":
            return None
        return {key: torch.full_like(value, 0.5) for key, value in TinyEncoder(3, 5).state_dict().items()}


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(encoder, "FAMILIES", (*encoder.FAMILIES, TinyFamily()))


@pytest.mark.parametrize("options", [{}, {"decoder": "plain"}, {"decoder": "deeplab", "pointrend": True}])
def test_a_new_family_of_encoders(options, tiny, tmp_path):
    assert supported_backbones()[-1] == "tiny"
    spec = ModelSpec(**{**SPEC, "backbone": "tiny", "aux": "pixel"} | options)
    network = trained_step(spec)
    model = saved(network, spec, tmp_path / "model")
    assert model.composition.startswith("tiny at output stride 8")
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in model.network.state_dict().items())
    with pytest.raises(ModelError, match=r"Cannot build the backbone 'tiny'.*dilated for 8 only.*tiny.*and tiny ones"):
        build_network(ModelSpec(**{**SPEC, "backbone": "tiny", "output_stride": 16}))


def test_weights_of_a_new_family(tiny, caplog):
    network = build_network(ModelSpec(**{**SPEC, "backbone": "tiny", "bands": 4}))
    bands = ("red", "green", "blue", "nir")
    assert init_encoder(network, "tiny", "moon", bands) == "moon"
    assert network.encoder.state_dict()["stages.0.0.weight"].unique().tolist() == [0.375]
    assert network.encoder.state_dict()["stages.1.0.weight"].unique().tolist() == [0.5]
    with pytest.raises(ModelError, match="no ImageNet weights for tiny"):
        init_encoder(network, "tiny", "imagenet", bands)
    assert init_encoder(network, "tiny", "auto", bands) is None
    assert "The encoder starts from random weights. There are no ImageNet weights for tiny" in caplog.text
    with pytest.raises(ModelError, match="No weight file"):
        init_encoder(network, "tiny", "sun", bands)


# ---- sources of weights


def test_a_new_source_of_weights(monkeypatch):
    donor = build_network(ModelSpec(**SPEC)).encoder.state_dict()
    monkeypatch.setattr(
        weights, "SOURCES", (lambda name, named: Pretrained(donor) if named == "donor" else None, *weights.SOURCES)
    )
    network = build_network(ModelSpec(**SPEC))
    assert init_encoder(network, "resnet18", "donor", ("red", "green", "blue")) == "donor"
    assert all(torch.equal(value, donor[key]) for key, value in network.encoder.state_dict().items())
    with pytest.raises(ModelError, match="No weight file"):
        init_encoder(network, "resnet18", "other", ("red", "green", "blue"))


def test_an_encoder_starts_from_a_saved_model(tmp_path):
    spec = ModelSpec(**SPEC)
    donor = build_network(spec)
    saved(donor, spec, tmp_path / "model")
    network = build_network(ModelSpec(**{**SPEC, "classes": 5}))
    init_encoder(network, "resnet18", tmp_path / "model", ("red", "green", "blue"))
    assert all(
        torch.equal(value, donor.encoder.state_dict()[key]) for key, value in network.encoder.state_dict().items()
    )


@pytest.mark.parametrize("by_path", [True, False])
def test_bands_of_a_saved_model_are_matched_by_name(by_path, tmp_path):
    donor = build_network(ModelSpec(**SPEC))
    saved(donor, ModelSpec(**SPEC), tmp_path / "model")
    network, bands = build_network(ModelSpec(**{**SPEC, "classes": 5})), ("BLUE", "B4", "red")
    if by_path:
        assert init_network(network, "resnet18", tmp_path / "model", bands).endswith("(the encoder's)")
    else:
        init_encoder(network, "resnet18", tmp_path / "model", bands)
    expected = match_stem(donor.encoder.conv1.weight, (2, None, 0))
    torch.testing.assert_close(network.encoder.conv1.weight, expected)
    others = build_network(ModelSpec(**{**SPEC, "classes": 5}))  # none in common: in order, as they always were
    init_encoder(others, "resnet18", tmp_path / "model", ("a", "b", "c"))
    torch.testing.assert_close(others.encoder.conv1.weight, donor.encoder.conv1.weight)


# ---- decoders


class SumDecoder(nn.Module):
    """Logits of the context and of the map at stride 4, added."""

    def __init__(self, inputs) -> None:
        super().__init__()
        self.deep = nn.Conv2d(inputs.context_channels, inputs.classes, 1)
        self.shallow = nn.Conv2d(inputs.encoder_channels[2], inputs.classes, 1)

    def forward(self, context, features):
        size = features[2].shape[-2:]
        return self.shallow(features[2]) + F.interpolate(self.deep(context), size), features[2]


@pytest.mark.parametrize("pointrend", [True, slow(False)])
def test_a_new_decoder(pointrend, monkeypatch, tmp_path):
    with pytest.raises(ModelError, match="`decoder` is 'sum', but must be one of 'plain', 'unet', 'deeplab'"):
        ModelSpec(**SPEC, decoder="sum")
    kind = DecoderKind("sum of two", lambda inputs: (SumDecoder(inputs), inputs.encoder_channels[2]))
    monkeypatch.setitem(parts.DECODERS, "sum", kind)
    spec = ModelSpec(**SPEC, decoder="sum", pointrend=pointrend)
    model = saved(trained_step(spec), spec, tmp_path / "model")
    assert "pyramid (1, 2), sum of two" in model.composition


# ---- contexts


class Strips(nn.Module):
    """Means of horizontal strips."""

    def __init__(self, channels: int, counts) -> None:
        super().__init__()
        self.counts = counts
        self.project = nn.Conv2d(channels * (1 + len(counts)), 128, 1)

    def forward(self, features, valid_share):
        size = features.shape[-2:]
        strips = [F.interpolate(F.adaptive_avg_pool2d(features, (count, 1)), size) for count in self.counts]
        return self.project(torch.cat([features, *strips], dim=1))


@dataclass(frozen=True, slots=True)
class StripSpec(ModelSpec):
    strip_counts: tuple[int, ...] = ()


def test_a_new_context(monkeypatch):
    kind = ContextKind("strips", lambda channels, counts, dropout: (Strips(channels, counts), 128))
    monkeypatch.setitem(parts.CONTEXTS, "strip_counts", kind)
    spec = StripSpec(**SPEC | {"pyramid_sizes": ()}, strip_counts=(2, 3))
    assert isinstance(trained_step(spec).context, Strips)
    assert StripSpec.from_json({**spec.to_json(), "strip_counts": [2, 3]}) == spec
    model = TrainedModel(
        spec, Legend.from_names({1: "a", 2: "b"}), ("red",), BandStats.empty(1), "uint8", 64, (1.0, 1.0), "metre",
        network=build_network(spec),
    )  # fmt: skip
    assert "strips (2, 3), U-Net decoder" in model.composition
    with pytest.raises(
        ModelError, match=r"`pyramid_sizes` is \(1, 2\) and `strip_counts` is \(2,\), but a network has"
    ):
        StripSpec(**SPEC, strip_counts=(2,))
    with pytest.raises(ModelError, match=r"`strip_counts` is \(0,\), but must hold whole numbers"):
        StripSpec(**SPEC | {"pyramid_sizes": ()}, strip_counts=(0,))


# ---- losses


@dataclass(frozen=True, slots=True)
class SquareLossSpec(LossSpec):
    square_fraction: float = 0.0


def test_each_fraction_has_a_loss():
    assert {field.name for field in fields(LossSpec) if field.name.endswith("_fraction")} == set(losses.FRACTIONS)


def test_a_new_loss(monkeypatch):
    monkeypatch.setitem(losses.FRACTIONS, "square_fraction", lambda logits, labels, spec: logits.square().mean())
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    output = losses.TrainingOutput(logits, None, None, None)
    spec = SquareLossSpec(square_fraction=0.25)
    expected = spec.entropy_fraction * losses.cross_entropy(logits, labels) + 0.25 * logits.square().mean()
    torch.testing.assert_close(total_loss(output, labels, torch.ones(2, 1, 8, 8), spec, None), expected)
    trained_step(ModelSpec(**SPEC), spec)
