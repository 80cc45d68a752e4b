"""Rates by rule, and which parameters have which."""

from __future__ import annotations

import math

import pytest
import torch
from common import slow
from torch import nn

from geopsp.models.build import ModelSpec, build_network
from geopsp.models.encoder import build_encoder
from geopsp.models.encoder_stages import encoder_stages
from geopsp.training.learning_rates import (
    DECODER_RATE,
    ENCODER_RATE,
    SCRATCH_RATE,
    default_rates,
    log_rates,
    parameter_groups,
    starts_pretrained,
)


@pytest.fixture(scope="module")
def network():
    return build_network(ModelSpec("tu-test_resnet", bands=2, classes=3, pyramid_sizes=(1,)))


@pytest.mark.parametrize("batch", [1, 8, 32])
def test_rates_grow_with_the_root_of_the_batch(network, batch):
    scale = math.sqrt(batch / 8)
    found = default_rates(network, pretrained=True, batch=batch)
    assert found == pytest.approx((ENCODER_RATE * scale, DECODER_RATE * scale), rel=1e-2)
    assert default_rates(network, pretrained=False, batch=batch) == pytest.approx([SCRATCH_RATE * scale] * 2, rel=1e-2)


def test_a_frozen_encoder_has_no_rate(network, capsys):
    network.encoder.requires_grad_(False)
    try:
        rates = default_rates(network, pretrained=True, batch=8)
        assert rates == (DECODER_RATE, DECODER_RATE)
        log_rates(network, rates, pretrained=True, batch=8)
        assert "0.001 (the encoder is frozen, 8 chips per step)" in capsys.readouterr().err
        groups = parameter_groups(network, (1e-4, 1e-3), graded=False)
        assert {group["lr"] for group in groups} == {1e-3}
    finally:
        network.encoder.requires_grad_(True)


def test_what_counts_as_pretrained():
    assert not starts_pretrained({"encoder_weights": None}, trained=False)
    assert starts_pretrained({"encoder_weights": "imagenet"}, trained=False)
    assert starts_pretrained({"encoder_weights": None}, trained=True)


@pytest.mark.parametrize("rates", [(1e-3, 1e-3), (1e-4, 1e-3)])
@pytest.mark.parametrize("graded", [True, False])
@pytest.mark.parametrize("recipe", [1, 2])
def test_every_parameter_is_in_one_group(network, rates, graded, recipe):
    groups = parameter_groups(network, rates, graded=graded, recipe=recipe)
    found = [id(p) for group in groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in network.parameters())
    assert groups[-1]["lr"] == pytest.approx(rates[1]), "the log of epochs shows the last one"
    decayed = {id(p) for group in groups if group.get("weight_decay") != 0 for p in group["params"]}
    expected = {id(p) for p in network.parameters() if p.ndim > 1 or recipe == 1}
    assert decayed == expected


def test_norms_and_biases_do_not_decay(network):
    rate_of = {
        id(p): (group["lr"], group.get("weight_decay"))
        for group in parameter_groups(network, (1e-4, 1e-3), graded=False) for p in group["params"]
    }  # fmt: skip
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            assert rate_of[id(module.weight)][1] == rate_of[id(module.bias)][1] == 0
        elif isinstance(module, nn.Conv2d):
            assert rate_of[id(module.weight)][1] is None
    assert {rate for rate, _ in (rate_of[id(p)] for p in network.encoder.parameters())} == {1e-4}
    assert {rate for rate, _ in (rate_of[id(p)] for p in network.decoder.parameters())} == {1e-3}


def test_rates_rise_evenly_from_stage_to_stage(network):
    rates = sorted({group["lr"] for group in parameter_groups(network, (1e-6, 1e-1))})
    assert rates == pytest.approx([10.0**power for power in range(-6, 0)]), "five stages and the decoder"


STAGES = {
    "resnet18": ["conv1", "layer1", "layer2", "layer3", "layer4"],
    "efficientnet-b0": ["_conv_stem", "_blocks.0", "_blocks.3", "_blocks.5", "_blocks.9"],
    "mobilenet_v2": ["features.0", "features.2", "features.4", "features.7", "features.14"],
    "tu-tf_efficientnet_lite0": [
        "model.conv_stem", "model.blocks.1", "model.blocks.2", "model.blocks.3", "model.blocks.5",
    ],
    "tu-mobilenetv3_small_050": [
        "model.conv_stem", "model.blocks.0", "model.blocks.1", "model.blocks.2", "model.blocks.4",
    ],
    "tu-convnext_atto": ["model.stem_0", "model.stages_1", "model.stages_2", "model.stages_3"],
}  # fmt: skip


@pytest.mark.parametrize("name", [*[*STAGES][:2], *map(slow, [*STAGES][2:])])
def test_stages_are_the_levels_of_the_maps(name):
    """smp's and timm's: blocks in one child are told apart, and the first norm belongs to the stem."""
    encoder = build_encoder(name, bands=4, output_stride=8, depth=5)
    encoder.requires_grad_(False)
    names = {id(p): key for key, p in encoder.named_parameters()}
    stages = encoder_stages(encoder, 4)
    assert sum(map(len, stages)) == len(names)
    assert all(names[id(stage[0])].startswith(f"{start}.") for stage, start in zip(stages, STAGES[name], strict=True))
    assert any("bn" in names[id(p)] or p.ndim == 1 for p in stages[0])


def test_a_stage_changes_its_map_and_those_behind_it_alone():
    """A step on the parameters of a stage: compared with the maps themselves."""
    torch.manual_seed(0)
    encoder = build_encoder("tu-mobilenetv3_small_050", bands=2, output_stride=8, depth=5).eval()
    image = torch.randn(1, 2, 64, 64)
    with torch.no_grad():
        before = encoder(image)
        for level, stage in enumerate(encoder_stages(encoder, 2), 1):
            kept = [p.clone() for p in stage]
            for p in stage:
                p.add_(0.05)
            changed = [not torch.equal(a, b) for a, b in zip(encoder(image), before, strict=True)]
            assert changed == [n >= level for n in range(6)]
            for p, old in zip(stage, kept, strict=True):
                p.copy_(old)
