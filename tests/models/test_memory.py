"""The batch that fits is found by what a step keeps."""

from __future__ import annotations

import pytest
import torch

from geopsp.errors import TrainingError
from geopsp.models.build import ModelSpec, build_network
from geopsp.models.memory import WEIGHT_COPIES, is_out_of_memory, memory_errors, step_bytes, training_batch_size

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


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] DefaultCPUAllocator: not enough memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in ..."),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp"),
    ],
    ids=lambda error: str(error)[:40],
)
def test_libraries_say_in_many_words_that_memory_runs_out(error):
    assert is_out_of_memory(error)
    with pytest.raises(TrainingError, match="Lower `batch_size`"), memory_errors():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Expected all tensors to be on the same device"),
        RuntimeError("CUDA error: no kernel image is available for execution on the device"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
        OSError(28, "No space left on device"),
        ValueError("out of memory"),
        KeyboardInterrupt("out of memory"),
    ],
    ids=lambda error: str(error)[:40],
)
def test_other_errors_stay(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)), memory_errors():
        raise error
