"""Precision by the hardware and a trial, and float16 with its scaler, on a CPU in place of a GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from common import slow

from geopsp import PSPNetClassifier, prepare_data
from geopsp.errors import TrainingError
from geopsp.models import device
from geopsp.training import precision, resolve_options
from geopsp.training.fit_options import FitOptions, RunConfig
from geopsp.training.lightning_module import SegmentationTask


@pytest.fixture(scope="module")
def data(small_world):
    found = prepare_data(small_world["chips"], batch_size=8, workers=0, cache=small_world["cache"])
    return replace(found, train_rows=found.train_rows[::3][:32], valid_rows=found.valid_rows[::6][:4])


def tiny(data, **options):
    return PSPNetClassifier(data, "tu-test_resnet", use_unet=False, encoder_weights=None, device="cpu", **options)


def choose(model, where="cpu"):
    found = model.model
    return precision.choose_precision(
        found.network, model._loaders(1), legend=found.legend, losses=found.losses, weight=None,
        device=torch.device(where),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("bf16", "capability", "expected"),
    [(True, (9, 0), "bf16"), (False, (7, 5), "fp16"), (False, (7, 0), "fp16"), (False, (6, 1), "fp32")],
)
def test_a_gpu_computes_in_what_its_hardware_has(data, monkeypatch, bf16, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert choose(tiny(data), "cuda") == expected
    assert device.has_float16_only(torch.device("cuda")) == (expected == "fp16")


def test_a_cpu_without_bfloat16_tries_nothing(data, monkeypatch):
    monkeypatch.setattr(precision, "time_steps", lambda *_: pytest.fail("tried"))
    assert choose(tiny(data)) == "fp32"


@pytest.mark.parametrize(
    ("seconds", "expected"), [((1.0, 0.5), "bf16"), ((1.0, 0.9), "fp32"), ((0.01, 0.002), "fp32"), ((1, 2), "fp32")]
)
def test_the_trial_takes_bfloat16_only_where_it_is_faster_by_enough(seconds, expected):
    assert precision.faster(dict(zip(("fp32", "bf16"), seconds, strict=True))) == expected


def test_steps_are_timed_in_turn_and_the_first_does_not_count():
    clock, done = [0.0], []

    def step(name):
        done.append(name)
        clock[0] += {"fp32": 0.15, "bf16": 0.1}[name] + (5 if len(done) < 3 else 0) + (0.1 if len(done) == 3 else 0)

    assert precision.time_steps(step, lambda: clock[0]) == pytest.approx({"fp32": 0.15, "bf16": 0.1})
    assert done == ["fp32", "bf16"] * 4
    assert len(done) == 2 + 2 * precision.TRIAL_STEPS


def test_the_trial_leaves_network_and_random_numbers_alone(data, monkeypatch, capsys):
    monkeypatch.setattr(precision, "resolve_precision", lambda *_: "bf16")
    monkeypatch.setattr(precision, "faster", lambda _: "bf16")
    model = tiny(data, mixup=True, pointrend=True)
    before = {name: value.clone() for name, value in model.model.network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    assert choose(model) == "bf16"
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.model.network.state_dict().items())
    assert not any(p.grad is not None for p in model.model.network.parameters())
    assert "a step of 2 chips takes" in capsys.readouterr().err


def test_what_was_tried_stays_when_the_run_goes_on(data, tmp_path, monkeypatch):
    """Another trial might end otherwise; the curve would not be the same."""
    monkeypatch.setattr("geopsp.training.resolve_options.choose_precision", lambda *_, **__: "bf16")
    model = tiny(data)
    model.fit(1, 1e-3, folder=tmp_path)
    assert model.model.settings["runs"][-1]["precision"] == "bf16"
    monkeypatch.setattr("geopsp.training.resolve_options.choose_precision", lambda *_, **__: pytest.fail("again"))
    again = tiny(data)
    again.fit(1, 1e-3, folder=tmp_path, resume=True)
    assert again.model.settings["runs"][-1]["precision"] == "bf16"


@pytest.mark.parametrize("name", ["bf16", slow("fp16")])
def test_half_precision_trains_as_float32_does(data, name):
    """A whole run on the CPU, with losses in float32 and for float16 with the scaler."""
    full, half = tiny(data), tiny(data)
    full.fit(1, 1e-3, precision="fp32", checkpoint=False)
    half.fit(1, 1e-3, precision=name, checkpoint=False)
    assert half.history["train_loss"].to_numpy() == pytest.approx(full.history["train_loss"].to_numpy(), rel=0.05)
    assert all(value.dtype != torch.float16 for value in half.model.network.state_dict().values())


class Overflow:
    """Gradients of some steps are infinite, as a scale that is too large makes them."""

    def __init__(self, monkeypatch, steps):
        self.number, self.rates, self.steps, self.scales = 0, [], steps, []
        inner = SegmentationTask._step

        def step(task, loss, batch):
            self.number += 1
            if self.number in self.steps:
                task.network.decoder.classify.bias.grad[0] = torch.inf
            self.scales.append(float(task.trainer.precision_plugin.scaler.get_scale()))
            inner(task, loss, batch)

        def optimizer_step(optimizer, *args, inner=torch.optim.AdamW.step, **options):
            self.rates.append(optimizer.param_groups[-1]["lr"])
            return inner(optimizer, *args, **options)

        monkeypatch.setattr(torch.optim.AdamW, "step", optimizer_step)
        monkeypatch.setattr(SegmentationTask, "_step", step)


def test_a_skipped_step_is_no_error_and_advances_no_schedule(data, monkeypatch):
    model = tiny(data)
    before = {name: p.clone() for name, p in model.model.network.named_parameters()}
    with monkeypatch.context() as patch:
        seen = Overflow(patch, steps={2, 3})
        model.fit(1, 1e-3, precision="fp16", ema=0, checkpoint=False)
    assert seen.rates[1] == seen.rates[2] == seen.rates[3] != seen.rates[0]
    assert seen.scales[1:] == [seen.scales[0], seen.scales[0] / 2, seen.scales[0] / 4]
    after = dict(model.model.network.named_parameters())
    assert all(torch.isfinite(p).all() for p in after.values())
    assert any(not torch.equal(p, before[name]) for name, p in after.items())


def test_gradients_that_are_never_finite_end_the_run(data, monkeypatch):
    monkeypatch.setattr("geopsp.training.lightning_module.MAX_SKIPPED", 2)
    Overflow(monkeypatch, steps={1, 2, 3})
    with pytest.raises(TrainingError, match="The gradient became"):
        tiny(data).fit(1, 1e-3, precision="fp16")


@pytest.mark.parametrize(
    ("options", "gpu", "compiler", "expected"),
    [
        ({"epochs": 750}, True, True, True),  # 4 steps each
        ({"epochs": 749}, True, True, False),
        ({"epochs": 750}, False, True, False),
        ({"epochs": 750}, True, False, False),
        ({"epochs": 750, "accumulate": 2}, True, True, False),
        ({"minutes": 600.0}, True, True, False),
    ],
)
def test_long_runs_on_a_gpu_are_compiled(data, monkeypatch, options, gpu, compiler, expected):
    monkeypatch.setattr(resolve_options, "pick_device", lambda _: torch.device("cuda" if gpu else "cpu"))
    monkeypatch.setattr(resolve_options, "has_compiler", lambda: compiler)
    assert resolve_options.compiles_by_rule(FitOptions(**options), data.loaders, RunConfig()) == expected
    assert not resolve_options.compiles_by_rule(FitOptions(**options), data.loaders, RunConfig(devices=2))
