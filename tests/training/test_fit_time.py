"""Training for some minutes, what a run chooses by itself, and runs of version 0.1."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
import torch
from common import slow
from lightning.pytorch.callbacks import Callback

from geopsp import PSPNetClassifier, prepare_data
from geopsp.errors import OptionError
from geopsp.models.loss_options import ADDED
from geopsp.training.callbacks import EMAWeights
from geopsp.training.fit_options import FitOptions
from geopsp.training.resolve_options import BEFORE


@pytest.fixture(scope="module")
def data(small_world):
    found = prepare_data(small_world["chips"], batch_size=8, workers=0, cache=small_world["cache"])
    return replace(found, train_rows=found.train_rows[::3][:32], valid_rows=found.valid_rows[::6][:4])


def tiny(data, **options):
    return PSPNetClassifier(data, "tu-test_resnet", use_unet=False, encoder_weights=None, device="cpu", **options)


def weights(model):
    return {name: value.clone() for name, value in model.model.network.state_dict().items()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


class Look(Callback):
    """What happens at each step, and an end of the run."""

    def __init__(self, stop_in_epoch=None):
        self.rates, self.stop_in_epoch = [], stop_in_epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[-1]["lr"])
        if trainer.current_epoch == self.stop_in_epoch:
            raise RuntimeError("the power went")


def watched(monkeypatch, callback):
    from geopsp.training.fit import _callbacks

    monkeypatch.setattr("geopsp.training.fit._callbacks", lambda *arguments: [*_callbacks(*arguments), callback])
    return callback


@pytest.mark.slow
def test_a_run_takes_as_long_as_it_was_given(data, monkeypatch, tmp_path):
    """Also one that is interrupted: it has the rest of its time, and the rate ends low."""
    look, minutes = Look(stop_in_epoch=1), 0.25
    model, start = tiny(data), time.monotonic()
    with monkeypatch.context() as patch:
        watched(patch, look)
        with pytest.raises(RuntimeError, match="the power went"):
            model.fit(minutes=minutes, folder=tmp_path)
    rest = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["TimeLimit"]["elapsed"]
    assert 0 < rest < time.monotonic() - start
    again, look, start = tiny(data), Look(), time.monotonic()
    with monkeypatch.context() as patch:
        watched(patch, look)
        again.fit(minutes=minutes, folder=tmp_path, resume=True)
    assert time.monotonic() - start + rest == pytest.approx(60 * minutes, abs=2.0)
    assert look.rates[-1] < 0.1 * 2e-3
    assert again.history["epoch"].tolist() == list(range(1, len(again.history) + 1))
    assert json.loads((tmp_path / "run.json").read_text())["fit"]["minutes"] == minutes


def test_an_epoch_that_is_longer_than_the_time_ends_with_a_validation(data, monkeypatch):
    slow = replace(data, train_rows=data.train_rows.repeat(200))
    model = tiny(slow)
    model.fit(minutes=0.01)
    (row,) = model.history.to_dict("records")
    assert 0 < row["images"] < len(slow.train_rows)
    assert 0 <= row["valid_miou"] <= 1


def test_a_time_that_is_over_at_once_makes_one_step(data):
    model = tiny(data)
    model.fit(minutes=1e-6)
    (row,) = model.history.to_dict("records")
    assert row["images"] == data.train_dl.batch_size
    assert 0 <= row["valid_miou"] <= 1


def test_without_a_rate_none_is_looked_for(data, monkeypatch, capsys):
    monkeypatch.setattr("geopsp.training.classifier.find_lr", lambda *_, **__: pytest.fail("searched"))
    model = tiny(data)
    model.fit(1)
    model.fit(1)
    first, second = model.model.settings["runs"]
    assert (first["lr"], second["lr"]) == ([2e-3, 2e-3], [3e-4, 1e-3]), "the second begins from trained weights"
    assert "Learning rate: 0.002 (encoder from random weights, 8 chips per step)" in capsys.readouterr().err
    assert not first["graded"]


def as_of_old(options):
    """Options as version 0.1 took them."""
    return replace(options, recipe=1, precision="fp32", compiled=False)


@pytest.mark.parametrize("options", [slow({}), {"lr": (1e-4, 1e-2), "ema": 0.9}])
def test_a_run_of_version_0_1_goes_on_as_it_began(data, monkeypatch, tmp_path, options):
    """Called as then, without what is new: schedule, groups, average and monitor are those of the run."""
    options = {"lr": 1e-3, **options}
    then = {"monitor": "valid_loss", "ema": 0.0, **options}

    def resolve(found, *_):
        return as_of_old(found)

    whole, broken = tiny(data), tiny(data)
    with monkeypatch.context() as patch:
        patch.setattr("geopsp.training.classifier.resolve_options", resolve)
        whole.fit(3, **then)
        watched(patch, Look(stop_in_epoch=2))
        with pytest.raises(RuntimeError, match="the power went"):
            broken.fit(3, folder=tmp_path, **then)
    run = json.loads((tmp_path / "run.json").read_text())
    for name in (*BEFORE, "precision"):
        del run["fit"][name]
    (tmp_path / "run.json").write_text(json.dumps(run))
    again = tiny(data)
    again.fit(3, folder=tmp_path, resume=True, **options)
    assert again.history["train_loss"].tolist() == whole.history["train_loss"].tolist()
    assert same(weights(again), weights(whole))
    assert again.history["lr"].iloc[0] > 0.5 * FitOptions(lr=options["lr"]).rates[1], "one cycle, up in a quarter"


def test_stopping_early_before_the_rate_has_come_down_is_warned_of(data, capsys):
    few = replace(data, train_rows=data.train_rows[:8], valid_rows=data.valid_rows[:2])
    tiny(few).fit(30, 1e-12, early_stopping=True, monitor="accuracy", ema=0)
    assert "before the learning rate had come down" in capsys.readouterr().err


@pytest.mark.parametrize("decay", [0.9, 0.0])
def test_the_average_is_that_of_its_formula(decay):
    """Of weights and running statistics; counts are copied."""
    ema, task = EMAWeights(decay), network_on("cpu", torch.nn.BatchNorm2d(3))
    ema.setup(None, task, "fit")
    expected = {name: torch.zeros_like(value) for name, value in task.state_dict().items()}
    ema._average_model.module.load_state_dict(expected)
    for step in range(1, 6):
        ema._latest_update_step = step
        now = {name: torch.full_like(value, step) for name, value in expected.items()}
        task.load_state_dict(now)
        ema._update(task)
        weight = 1 - min(decay, (1 + step) / (10 + step))
        expected = {
            name: (1 - weight) * old + weight * now[name] if old.is_floating_point() else now[name]
            for name, old in expected.items()
        }
    found = ema._average_model.module.state_dict()
    assert found["network.num_batches_tracked"] == 5
    torch.testing.assert_close(dict(found), expected)


def test_the_average_follows_the_network_to_its_device(data):
    """Lightning makes it before the network is moved; `meta` stands for a GPU."""
    ema = EMAWeights(None)
    network = torch.nn.Conv2d(1, 1, 1)
    ema.setup(None, network_on("cpu", network), "fit")
    ema.on_fit_start(None, network_on("meta", network))
    assert {p.device.type for p in ema._average_model.module.parameters()} == {"meta"}
    assert ema._average_model.n_averaged.device.type == "cpu", "read at each step"


def network_on(where, network):
    import lightning as L

    module = L.LightningModule()
    module.network = network
    module._device = torch.device(where)
    return module


def test_a_short_run_has_a_short_average(data):
    """Four steps are no time for an average: its decay is 0."""
    plain, averaged = tiny(data), tiny(data)
    plain.fit(1, 1e-3, ema=0, checkpoint=False)
    averaged.fit(1, 1e-3, checkpoint=False)
    for name, value in weights(plain).items():
        torch.testing.assert_close(value, weights(averaged)[name])


class CountTiles(Callback):
    """Tiles of each validation."""

    def __init__(self):
        self.tiles = []

    def on_validation_start(self, trainer, pl_module):
        self.tiles.append(0)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.tiles[-1] += len(batch.image)


@pytest.mark.parametrize("validate_all", [True, False])
def test_each_epoch_is_scored_on_few_chips_and_the_saved_model_on_all(data, monkeypatch, tmp_path, validate_all):
    monkeypatch.setattr("geopsp.data.validation_sample.MIN_TILES", 1)
    monkeypatch.setattr("geopsp.data.validation_sample.VALIDATION_SHARE", 0.0)
    count, model = watched(monkeypatch, CountTiles()), tiny(data)
    model.fit(2, validate_all=validate_all)
    all_tiles = len(data.valid_ds)
    assert count.tiles == [all_tiles] * 2 if validate_all else max(count.tiles) < all_tiles
    model.save(tmp_path / "model")
    assert model.model.metrics == model.evaluate().to_json()


def test_a_run_is_not_resumed_with_other_weights(data, monkeypatch, tmp_path):
    """Also with none, which the loss leaves out of its JSON."""
    with monkeypatch.context() as patch:
        watched(patch, Look(stop_in_epoch=1))
        with pytest.raises(RuntimeError, match="power"):
            tiny(data).fit(2, folder=tmp_path / "run")
    with pytest.raises(OptionError, match=r"`boundary_weight` was 2\.0, is 0"):
        tiny(data, boundary_weight=0).fit(2, folder=tmp_path / "run", resume=True)
    with pytest.raises(OptionError, match=r"`class_weight_power` was 0\.3, is 0"):
        tiny(data, class_weight_power=0).fit(2, folder=tmp_path / "run", resume=True)


def test_a_run_without_weights_goes_on_without_them(data, monkeypatch, tmp_path):
    """As those of earlier versions, which had none."""
    without = dict.fromkeys(ADDED, 0)
    with monkeypatch.context() as patch:
        watched(patch, Look(stop_in_epoch=1))
        with pytest.raises(RuntimeError, match="power"):
            tiny(data, **without).fit(2, folder=tmp_path / "run")
    model = tiny(data)
    model.fit(2, folder=tmp_path / "run", resume=True)
    assert {name: getattr(model.model.losses, name) for name in ADDED} == without


def test_a_resumed_run_is_scored_as_it_began(data, monkeypatch, tmp_path):
    monkeypatch.setattr("geopsp.data.validation_sample.MIN_TILES", 1)
    monkeypatch.setattr("geopsp.data.validation_sample.VALIDATION_SHARE", 0.0)
    model = tiny(data)
    with monkeypatch.context() as patch:
        watched(patch, Look(stop_in_epoch=1))
        with pytest.raises(RuntimeError, match="power"):
            model.fit(3, validate_all=True, folder=tmp_path / "run")
    count, resumed = watched(monkeypatch, CountTiles()), tiny(data)
    resumed.fit(3, folder=tmp_path / "run", resume=True)
    assert set(count.tiles) == {len(data.valid_ds)}
