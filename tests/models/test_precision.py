"""In which precision a network runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from geopsp.models.device import resolve_precision
from geopsp.models.precision import exact_float32, network_autocast

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def switches():
    cudnn = torch.backends.cudnn
    return [switch.fp32_precision for switch in (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)]


@pytest.fixture
def fast_by_default():
    """As a user may have asked for; convolutions are so by torch's default."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.set_float32_matmul_precision(before)


def test_float32_is_no_tf32_on_a_gpu(fast_by_default):
    before = switches()
    assert before == ["tf32"] * 3
    with exact_float32(CPU):
        assert switches() == before
    with exact_float32(CUDA):
        assert switches() == ["ieee"] * 3
        assert not torch.backends.cudnn.allow_tf32
    assert switches() == before
    assert torch.backends.cudnn.allow_tf32
    with pytest.raises(RuntimeError, match="no"), exact_float32(CUDA):
        raise RuntimeError("no")
    assert switches() == before


def test_it_lasts_until_the_last_thread_is_done(fast_by_default):
    before, both_inside, first_outside = switches(), Barrier(2), Barrier(2)

    def first():
        with exact_float32(CUDA):
            both_inside.wait(10)
        first_outside.wait(10)

    def last():
        with exact_float32(CUDA):
            both_inside.wait(10)
            first_outside.wait(10)
            return switches()

    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(each) for each in (first, last)]
        assert results[1].result(30) == ["ieee"] * 3
    assert switches() == before


@pytest.mark.parametrize(
    ("capability", "bf16", "hip", "expected"),
    [
        ((6, 1), False, None, "fp32"),
        ((7, 0), False, None, "fp16"),
        ((7, 5), False, None, "fp16"),
        ((8, 0), True, None, "bf16"),
        ((9, 0), True, None, "bf16"),
        ((9, 0), False, "6.4", "fp32"),
    ],
)
def test_the_precision_that_suits_a_gpu(capability, bf16, hip, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert resolve_precision("auto", CUDA) == expected
    assert resolve_precision("fp32", CUDA) == "fp32"


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_network_runs_in_it(precision, dtype):
    with network_autocast(precision, CPU):
        found = torch.nn.functional.conv2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3))
        assert torch.is_autocast_enabled("cpu") == (dtype is not None)
    assert found.dtype == (dtype or torch.float32)
