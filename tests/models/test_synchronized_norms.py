"""Norms over several GPUs: nothing of the network is lost on the way there and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from geopsp.models.build import ModelSpec, build_network
from geopsp.models.synchronized_norms import synchronized_norms


@pytest.mark.parametrize("backbone", ["tu-test_resnet", "tu-test_efficientnet"])
def test_a_network_computes_the_same_with_synchronized_norms_and_afterwards(backbone):
    torch.manual_seed(0)
    network = build_network(ModelSpec(backbone, 3, 4)).eval()
    image, names = torch.randn(2, 3, 64, 64), list(network.state_dict())
    kinds = [type(module) for module in network.modules()]
    with torch.inference_mode():
        expected = network(image)
        with synchronized_norms(network, wanted=True):
            assert not any(type(module) is nn.BatchNorm2d for module in network.modules())
            assert any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())
            assert list(network.state_dict()) == names
            assert torch.allclose(network(image), expected, atol=1e-6)
        assert torch.equal(network(image), expected)
    assert [type(module) for module in network.modules()] == kinds


def test_what_was_trained_stays():
    """Also where a device's tensors take the place of those that the norms began with."""
    norms = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU())
    with synchronized_norms(norms, wanted=True):
        norms[0].running_mean = torch.tensor([3.0, 4.0])
        norms[0].weight = nn.Parameter(torch.tensor([5.0, 6.0]))
    assert type(norms[0]) is nn.BatchNorm2d
    assert norms[0].running_mean.tolist() == [3, 4]
    assert norms[0].weight.tolist() == [5, 6]


def test_one_device_keeps_its_norms():
    norms = nn.Sequential(nn.BatchNorm2d(2))
    with synchronized_norms(norms, wanted=False):
        assert type(norms[0]) is nn.BatchNorm2d


def test_torchs_own_conversion_would_lose_activations():
    """Why timm's is used."""
    network = build_network(ModelSpec("tu-test_efficientnet", 3, 4)).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = network(image)
        assert not torch.allclose(nn.SyncBatchNorm.convert_sync_batchnorm(network)(image), expected, atol=0.01)
