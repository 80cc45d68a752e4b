"""What fits is found by what a forward pass holds."""

from __future__ import annotations

import platform

import pytest
import torch
from common import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from geopsp.models import device, memory
from geopsp.models.build import ModelSpec, build_network
from geopsp.models.device import resolve_precision
from geopsp.models.memory import forward_bytes, inference_batch_size

CPU, META = torch.device("cpu"), torch.device("meta")
WAITING = 2 * 4 * (3 + 4) * 64 * 64
"""Bytes of a tile of 64 that wait beside the one that is computed."""


class Plain(nn.Module):
    """So plain that its memory can be counted by hand."""

    def __init__(self, bands, classes):
        super().__init__()
        self.layer = nn.Conv2d(bands, classes, 3, padding=1)

    def forward(self, image, valid):
        return self.layer(image)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(ModelSpec("tu-test_resnet", 3, 4, pointrend=True)).eval()


@given(batch=st.integers(1, 4), bands=st.integers(1, 5), classes=st.integers(2, 6), size=st.integers(8, 70))
@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_counted_by_hand(batch, bands, classes, size):
    """Image, validity and logits, then their softmax, then whole numbers of it."""
    pixel = 4 * batch * size * size
    found = forward_bytes(Plain(bands, classes), batch, bands=bands, size=size, device=CPU)
    copied = bands > 1  # to channels last, while the image itself is still there
    most = max(pixel * (bands + 1 + classes) + pixel * bands * copied, pixel * (bands + 1 + 3 * classes))
    assert pixel * (bands + 1 + classes) <= found <= most


def test_it_grows_with_the_pixels(network):
    one, two, large = (
        forward_bytes(network, n, bands=3, size=size, device=CPU) for n, size in ((1, 128), (2, 128), (1, 256))
    )
    assert two == pytest.approx(2 * one, rel=0.2)
    assert large == pytest.approx(4 * one, rel=0.2)


def test_nothing_is_computed_and_no_trace_left(network):
    """So large that it would be noticed; the network still computes as before."""
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = network(image)
        assert forward_bytes(network, 8, bands=3, size=8192, device=CPU) > 10e9
        assert torch.equal(network(image), before)
    assert not network.training


def test_fewer_bytes_in_bfloat16(network):
    full, half = (
        forward_bytes(network, 2, bands=3, size=128, device=CPU, precision=precision) for precision in ("fp32", "bf16")
    )
    assert half < 0.9 * full


@pytest.mark.parametrize(("times", "threads"), [(0.1, 1), (1.5, 1), (2.5, 2), (3.2, 3), (99, 4)])
def test_threads_on_the_cpu(network, times, threads, monkeypatch):
    each = forward_bytes(network, 1, bands=3, size=64, device=CPU) + WAITING
    monkeypatch.setattr(memory, "free_memory", lambda device: times * each / 0.8 + 1)
    monkeypatch.setattr(memory, "cpu_count", lambda: 4)
    assert inference_batch_size(network, bands=3, classes=4, size=64, device=CPU) == (1, threads)


@pytest.mark.parametrize(("times", "threads"), [(2, 2), (1.95, 1)])
def test_a_batch_that_is_given_is_kept(network, times, threads, monkeypatch):
    each = forward_bytes(network, 3, bands=3, size=64, device=CPU) + 3 * WAITING
    monkeypatch.setattr(memory, "free_memory", lambda device: times * each / 0.8 + 1)
    monkeypatch.setattr(memory, "cpu_count", lambda: 8)
    assert inference_batch_size(network, bands=3, classes=4, size=64, device=CPU, batch_size=3) == (3, threads)


@pytest.mark.parametrize(("times", "batch"), [(0.5, 1), (1, 1), (3, 2), (9, 8), (1e6, 64)])
def test_batches_on_a_device(times, batch, monkeypatch):
    """Another device than the CPU gets one thread and a power of two that fits."""
    network = nn.Sequential()
    monkeypatch.setattr(memory, "forward_bytes", lambda network, n, **options: 500 + 1000 * n)
    monkeypatch.setattr(memory, "free_memory", lambda device: times * (1000 + WAITING) / 0.8 + 1)
    assert inference_batch_size(network, bands=3, classes=4, size=64, device=META) == (batch, 1)
    assert inference_batch_size(network, bands=3, classes=4, size=64, device=META, batch_size=5) == (5, 1)


def test_memory_that_the_allocator_keeps_is_free(monkeypatch):
    """After `fit` the driver has little left, but all that training held can be used again."""
    total, reserved, allocated = 16e9, 14e9, 1e9
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (total - reserved, total))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
    assert memory.free_memory(torch.device("cuda")) == total - allocated
    monkeypatch.setattr(memory, "forward_bytes", lambda network, n, **options: 1e8 * n)
    network = nn.Sequential()
    network.to = lambda device: network
    batch, _ = inference_batch_size(network, bands=3, classes=4, size=64, device=torch.device("cuda"))
    assert batch == 64, "of the 2 GB that the driver has it would be 8"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_measured_on_a_gpu(network):
    device = torch.device("cuda")
    found = forward_bytes(network.to(device), 2, bands=3, size=128, device=device)
    assert found > 2 * 3 * 128 * 128 * 4
    batch, threads = inference_batch_size(network, bands=3, classes=4, size=128, device=device)
    assert (batch, threads) == (64, 1)
    network.cpu()


@pytest.mark.parametrize(
    ("machine", "told", "op", "found"),
    [
        ("x86_64", {"avx512_bf16": True}, False, "bf16"),
        ("x86_64", {"avx512_bf16": False, "amx_bf16": True}, False, "bf16"),
        ("x86_64", {"avx512_f": True}, True, "fp32"),
        ("aarch64", {}, True, "bf16"),
        ("arm64", {}, False, "fp32"),
    ],
)
def test_the_precision_that_serves(machine, told, op, found, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: op)
    assert resolve_precision("auto", CPU) == found
    assert resolve_precision("bf16", CPU) == "bf16"
    assert resolve_precision("fp32", CPU) == "fp32"


def test_an_old_torch_says_nothing(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolve_precision("auto", CPU) == "fp32"


def test_gpus_say_for_themselves(monkeypatch):
    for has, found in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(device, "has_bfloat16", lambda device, has=has: has)
        assert resolve_precision("auto", META) == found
