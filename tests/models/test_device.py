"""Devices of other machines: GPUs that this torch cannot use, several of them, mixed ones."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from geopsp.errors import ModelError
from geopsp.models import device
from geopsp.models.device import has_bfloat16, memory_format, pick_device

NO_KERNEL = RuntimeError("CUDA error: no kernel image is available for execution on the device")


@pytest.fixture
def gpu(monkeypatch):
    """A machine whose GPU torch sees, but has no kernels for; returns the devices that were tried."""
    tried, zeros = [], torch.zeros

    def fail(*size, device):
        tried.append(device)
        if device.type == "cuda":
            raise NO_KERNEL
        return zeros(*size, device=device)

    device._warn_once.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", fail)
    return tried


def test_a_gpu_without_kernels_is_not_taken_unasked(gpu, capsys):
    assert pick_device() == pick_device(None) == torch.device("cpu")
    said = capsys.readouterr().err
    assert said.count("no kernel image") == 1, "said once"
    assert "Computing on the CPU instead" in said


def test_a_gpu_that_was_asked_for_is_an_error(gpu):
    with pytest.raises(ModelError, match="no kernel image"):
        pick_device("cuda")


@pytest.mark.parametrize(
    ("name", "ranks", "expected"),
    [
        ("cuda", {}, []),
        ("cuda", {"LOCAL_RANK": "0"}, []),
        ("cuda", {"LOCAL_RANK": "2"}, [2]),
        ("cuda", {"SLURM_LOCALID": "1"}, [1]),
        ("cuda", {"LOCAL_RANK": "0", "SLURM_LOCALID": "1"}, []),
        ("cuda", {"LOCAL_RANK": "7"}, []),  # each process sees its own GPU alone
        ("cuda:1", {"LOCAL_RANK": "2"}, []),
    ],
)
def test_each_process_touches_its_own_gpu_only(monkeypatch, name, ranks, expected):
    current, zeros = [], torch.zeros
    for variable in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(variable, raising=False)
    for variable, rank in ranks.items():
        monkeypatch.setenv(variable, rank)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch, "zeros", lambda n, device: zeros(n))
    pick_device(name)
    assert current == expected


def test_bfloat16_is_asked_of_the_device_itself(monkeypatch):
    """torch tells of the current device: here cuda:0 has bfloat16, and cuda:1 has not."""
    current = [0]

    @contextmanager
    def on(where):
        before, current[0] = current[0], where.index
        yield
        current[0] = before

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: current[0] == 0)
    assert has_bfloat16(torch.device("cuda"))
    assert has_bfloat16(torch.device("cuda:0"))
    assert not has_bfloat16(torch.device("cuda:1"))
    assert not has_bfloat16(torch.device("cpu"))


@pytest.mark.parametrize(
    ("where", "half", "capability", "expected"),
    [
        ("cpu", False, None, torch.channels_last),
        ("cuda", False, (7, 5), torch.contiguous_format),
        ("cuda", True, (7, 5), torch.channels_last),
        ("cuda", False, (8, 0), torch.channels_last),
    ],
)
def test_old_gpus_have_channels_last_in_half_precision_only(monkeypatch, where, half, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert memory_format(torch.device(where), half=half) == expected
