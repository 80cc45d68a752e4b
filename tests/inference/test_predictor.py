"""What the network is shown, and what becomes of what it says."""

from __future__ import annotations

from threading import Barrier, current_thread

import numpy as np
import pytest
import torch
from inference_common import CLASSES, numba_ops, torch_ops, trained_model
from torch import nn

from geopsp.core.bands import BandStats
from geopsp.errors import OptionError
from geopsp.inference.predictor import SYMMETRIES
from geopsp.inference.torch_predictor import TorchPredictor
from geopsp.models.build import ModelSpec, build_network

CPU = torch.device("cpu")


class Watching(nn.Module):
    """Remembers what it is shown; its logits are a fixed pattern of the image."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def forward(self, image, valid=None):
        self.shown.append((image.clone(), valid.clone()))
        return image[:, :1] * torch.arange(CLASSES).view(1, -1, 1, 1) / 50


def softmax(logits):
    return torch.from_numpy(logits).softmax(1).numpy()


def tiles(n=3, bands=2, size=32, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    data = rng.integers(1, 200, (n, bands, size, size)).astype(dtype)
    valid = rng.random((n, size, size)) < 0.8
    valid[0] = True
    return data, valid


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "uint16", "uint32", "int32", "int64", "float16", "float32", "float64"]
)
@pytest.mark.parametrize("make_ops", [numba_ops, torch_ops])
def test_pixels_are_normalised_as_in_training(dtype, make_ops):
    data, valid = tiles(dtype=dtype)
    if np.dtype(dtype).kind == "f":
        data[1, :, ~valid[1]] = np.nan
    model = trained_model(count=2, network=Watching())
    model.statistics = BandStats(9, np.array([40.0, 90.5]), np.array([9.0, 99.0]), np.zeros(2), np.full(2, 255.0))
    TorchPredictor(model, CPU, batch_size=3, ops=make_ops(model.normalization))(data, valid)
    image, mask = model.network.shown[0]
    for number in range(3):
        np.testing.assert_array_equal(image[number], model.normalization(data[number], valid[number]))
    np.testing.assert_array_equal(mask[:, 0], valid)


def test_scores_are_the_network_s():
    data, valid = tiles()
    scores = TorchPredictor(trained_model(count=2, network=Watching()), CPU, batch_size=3)(data, valid)
    logits = torch.from_numpy(data[:, :1] * valid[:, None] * 1.0) * torch.arange(CLASSES).view(1, -1, 1, 1) / 50
    np.testing.assert_allclose(scores, logits, rtol=1e-5)


def test_a_batch_is_always_full():
    data, valid = tiles(5)
    model = trained_model(count=2, network=Watching())
    scores = TorchPredictor(model, CPU, batch_size=4)(data, valid)
    assert scores.shape == (5, CLASSES, 32, 32)
    assert [len(image) for image, _ in model.network.shown] == [4, 4]
    assert (model.network.shown[1][1][1:] == 0).all()


def test_augmentation_shows_the_eight_symmetries_and_lays_them_back():
    data, valid = tiles(1)
    data[0, 0] = np.arange(32 * 32).reshape(32, 32) % 251
    plain = TorchPredictor(trained_model(count=2, network=Watching()), CPU)(data, valid)
    model = trained_model(count=2, network=Watching())
    turned = TorchPredictor(model, CPU, test_time_augmentation=True)(data, valid)
    assert len({image.numpy().tobytes() for image, _ in model.network.shown}) == len(SYMMETRIES) == 8
    np.testing.assert_allclose(softmax(plain), softmax(turned), atol=1e-6)


def test_augmentation_is_the_mean_of_what_differs():
    class Corner(nn.Module):
        """Class 1 in the upper left quarter of what is shown, else class 0."""

        def forward(self, image, valid=None):
            logits = torch.full((len(image), CLASSES, 32, 32), -50.0)
            logits[:, 0] = 0
            logits[:, 1, :16, :16] = 50
            return logits

    logits = TorchPredictor(trained_model(count=2, network=Corner()), CPU, test_time_augmentation=True)(*tiles(1))
    np.testing.assert_allclose(softmax(logits)[0, 1], 0.25, atol=1e-5)


def test_excluded_classes_are_never_predicted():
    model = trained_model(count=2, network=Watching())
    scores = TorchPredictor(model, CPU, batch_size=3, excluded_channels=[0, 4])(*tiles())
    assert (scores[:, [0, 4]] == -np.inf).all()
    assert np.isfinite(scores[:, 1:4]).all()
    assert model.excluded_channels() == ()
    assert model.excluded_channels(background=False) == (0,)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_where_memory_runs_out_fewer_tiles_give_the_same(error):
    class Hungry(Watching):
        def forward(self, image, valid=None):
            if len(image) > 2:
                raise error
            return super().forward(image, valid)

    data, valid = tiles(7)
    expected = TorchPredictor(trained_model(count=2, network=Watching()), CPU, batch_size=2)(data, valid)
    model = trained_model(count=2, network=Hungry())
    predictor = TorchPredictor(model, CPU, batch_size=16)
    assert np.array_equal(predictor(data, valid), expected)
    assert predictor.batch_size == 2
    assert {len(image) for image, _ in model.network.shown} == {2}


def test_too_little_memory_for_one_tile_is_told_and_other_errors_are_not_taken_for_it():
    class Broken(nn.Module):
        def __init__(self, error):
            super().__init__()
            self.error = error

        def forward(self, image, valid=None):
            raise self.error

    hungry = trained_model(count=2, network=Broken(torch.OutOfMemoryError("CUDA")))
    with pytest.raises(OptionError, match="too small for a single tile"):
        TorchPredictor(hungry, CPU, batch_size=4)(*tiles())
    wrong = trained_model(count=2, network=Broken(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        TorchPredictor(wrong, CPU, batch_size=4)(*tiles())


def test_each_thread_of_the_network_computes_alone(monkeypatch):
    """OpenMP counts its threads for each thread that starts some: the setting of the caller is not that of the pool."""
    told, set_num_threads = [], torch.set_num_threads
    monkeypatch.setattr(
        torch, "set_num_threads", lambda n: (told.append((current_thread().name, n)), set_num_threads(n))
    )
    with TorchPredictor(trained_model(), CPU).threads(2) as pool:
        meeting = Barrier(2)
        names = {future.result() for future in [pool.submit(_named, meeting) for _ in range(2)]}
    assert len(names) == 2
    assert {(name, 1) for name in names} <= set(told)


def _named(meeting):
    meeting.wait(60)
    return current_thread().name


def test_bfloat16_says_nearly_the_same():
    torch.manual_seed(0)
    model = trained_model(count=2, size=64)
    model.network = build_network(ModelSpec("tu-test_resnet", 2, CLASSES)).eval()
    data, valid = tiles(2, size=64)
    full, half = (
        TorchPredictor(model, CPU, batch_size=2, precision=precision)(data, valid) for precision in ("fp32", "bf16")
    )
    assert not np.array_equal(full, half)
    assert np.abs(softmax(full) - softmax(half)).max() < 0.05
