"""An untrained network's mean scores are the shares of the classes."""

from __future__ import annotations

import pytest
import torch

from geopsp.models.build import ModelSpec, build_network
from geopsp.models.class_bias import MIN_SHARE, set_class_bias


def build(**options):
    return build_network(ModelSpec("tu-test_resnet", bands=2, classes=4, pyramid_sizes=(1,), **options))


@pytest.mark.parametrize(
    "options", [{}, {"decoder": "plain", "aux": "pixel"}, {"decoder": "deeplab", "pointrend": True}]
)
def test_the_last_layers_begin_with_the_shares(options):
    network = build(**options)
    pixels = torch.tensor([600, 300, 100, 0])
    set_class_bias(network, pixels)
    layers = [network.decoder.classify]
    layers += [network.pointrend.head.classify] if network.pointrend else []
    layers += [network.aux.layers[-1]] if network.aux else []
    assert len(layers) == 1 + bool(options.get("aux")) + bool(options.get("pointrend"))
    for layer in layers:
        torch.testing.assert_close(layer.bias[:3].softmax(0), torch.tensor([0.6, 0.3, 0.1]))


def test_ignored_and_very_rare_classes():
    network = build()
    before = network.decoder.classify.bias.clone()
    set_class_bias(network, torch.zeros(4))
    assert torch.equal(network.decoder.classify.bias, before)
    set_class_bias(network, torch.tensor([10**9, 1, 0, 0]))
    bias = network.decoder.classify.bias.detach()
    assert torch.equal(bias[2:], before[2:])
    assert (bias[0] - bias[1]).exp() == pytest.approx(1 / MIN_SHARE, rel=1e-3)


def test_a_head_of_presence_keeps_its_bias():
    network = build(aux="presence")
    before = network.aux.layers[-1].bias.clone()
    set_class_bias(network, torch.tensor([1, 2, 3, 4]))
    assert torch.equal(network.aux.layers[-1].bias, before)
