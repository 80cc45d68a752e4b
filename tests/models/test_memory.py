"""The batch that fits is found by what a step keeps."""

from __future__ import annotations

import pytest
import torch

from geopsp.models.build import ModelSpec, build_network
from geopsp.models.memory import WEIGHT_COPIES, step_bytes, training_batch_size

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(ModelSpec("tu-test_resnet", 3, 4, pointrend=True, aux="pixel")).eval()


def test_a_step_keeps_in_proportion_to_its_pixels(network):
    one, two, large = (step_bytes(network, torch.zeros(n, 3, s, s), CPU) for n, s in ((1, 64), (2, 64), (1, 128)))
    assert two == pytest.approx(2 * one, rel=0.1)
    assert large == pytest.approx(4 * one, rel=0.2)
    assert one > 64 * 64 * 4 * 4, "the logits alone are more"


def test_measuring_leaves_no_trace(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    step_bytes(network, torch.randn(2, 3, 64, 64), CPU)
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(("chips", "most"), [(5, 1), (40, 4), (100, 8), (10_000, 64)])
def test_an_epoch_keeps_its_steps(network, chips, most, monkeypatch):
    monkeypatch.setattr("geopsp.models.memory.free_memory", lambda device: 1e12)
    assert training_batch_size(network, bands=3, size=64, chips=chips, device=CPU) == most


def test_memory_bounds_the_batch(network, monkeypatch):
    one, two = (step_bytes(network, torch.zeros(n, 3, 64, 64), CPU) for n in (1, 2))
    each = two - one
    weights = WEIGHT_COPIES * sum(p.numel() * 4 for p in network.parameters())
    for times, expected in ((-3, 1), (0.1, 1), (2.5, 2), (9, 8)):
        monkeypatch.setattr("geopsp.models.memory.free_memory", lambda device, t=times: (t * each + weights) / 0.8 + 1)
        assert training_batch_size(network, bands=3, size=64, chips=10_000, device=CPU) == expected
