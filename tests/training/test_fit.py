"""Training follows its options, resumes where it was interrupted, and says why it stops."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from common import slow
from lightning.pytorch.callbacks import Callback
from torchvision import tv_tensors
from torchvision.transforms import v2

from geopsp import PSPNetClassifier, prepare_data
from geopsp.core.progress import Bar
from geopsp.errors import ChipError, GeopspError, ModelError, OptionError, TrainingError
from geopsp.models.device import pick_device
from geopsp.models.network import SegmentationNetwork
from geopsp.training.checkpoint_checks import require_optimizer_state
from geopsp.training.evaluate import evaluate

TINY = "tu-test_resnet"


@pytest.fixture(scope="module")
def data(small_world):
    found = prepare_data(small_world["chips"], batch_size=8, cache=small_world["cache"])
    return replace(found, train_rows=found.train_rows[::3][:32], valid_rows=found.valid_rows[::6][:4])


def tiny(data, **options):
    options = {"use_unet": False, "encoder_weights": None} | options
    return PSPNetClassifier(data, TINY, **options)


def weights(model):
    return {name: value.clone() for name, value in model.model.network.state_dict().items()}


def changed(before, model):
    return {name for name, value in model.model.network.state_dict().items() if not torch.equal(value, before[name])}


def test_a_frozen_encoder_stays_and_an_unfrozen_one_trains(data):
    """arcgis.learn's unfreeze leaves the optimizer as it was, so that the encoder stays untrained."""
    model = tiny(data)
    before = weights(model)
    model.freeze()
    model.fit(1, 1e-3)
    moved = changed(before, model)
    assert moved
    assert not {name for name in moved if name.startswith("encoder.")}, "running statistics count too"
    model.unfreeze()
    before = weights(model)
    model.fit(1, 1e-3)
    moved = changed(before, model)
    assert {name for name, _ in model.model.network.named_parameters()} <= moved
    assert [run["frozen"] for run in model.model.settings["runs"]] == [True, False]


def test_the_low_rate_is_the_first_layers(data):
    model = tiny(data)
    before = weights(model)
    model.fit(1, slice(1e-7, 1e-2), one_cycle=False, checkpoint=False)
    after = model.model.network.state_dict()

    def moved(prefix):
        return max(float((p - before[n]).abs().max()) for n, p in after.items() if n.startswith(prefix)
                   and n.endswith("weight"))  # fmt: skip

    assert moved("encoder.model.conv1") < 1e-4 < moved("decoder.classify")


class Kill(Callback):
    """Breaks training off in an epoch, after some of its steps."""

    def __init__(self, epoch, error=None):
        self.epoch, self.error = epoch, error or RuntimeError("the power went")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 2:
            raise self.error


@pytest.mark.parametrize("options", [slow({}), {"ema": 0.9, "early_stopping": True}])
def test_a_resumed_run_is_as_an_unbroken_one(data, tmp_path, monkeypatch, options):
    options = {"monitor": "valid_miou", **options}
    shape = {"pointrend": True, "mixup": True}
    whole = tiny(data, **shape)
    whole.fit(3, 2e-3, folder=tmp_path / "whole", **options)
    broken = tiny(data, **shape)
    with monkeypatch.context() as patch:
        callbacks = [Kill(1)]
        patch.setattr("geopsp.training.fit._callbacks", with_more(callbacks))
        with pytest.raises(RuntimeError, match="the power went"):
            broken.fit(3, 2e-3, folder=tmp_path / "broken", **options)
    assert len(pd.read_csv(tmp_path / "broken" / "history.csv")) == 1
    torch.manual_seed(12345)
    again = tiny(data, **shape)
    with torch.no_grad():
        again.model.network.decoder.classify.weight.zero_()
    again.fit(3, 2e-3, folder=tmp_path / "broken", resume=True, **options)
    same = [name for name in whole.history if "seconds" not in name]
    pd.testing.assert_frame_equal(again.history[same], whole.history[same])
    assert not changed(weights(whole), again)
    written = pd.read_csv(tmp_path / "broken" / "history.csv")
    np.testing.assert_allclose(written[same].to_numpy(), whole.history[same].to_numpy())


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than there are cores
def test_neither_workers_nor_an_interruption_change_the_weights(data, tmp_path, monkeypatch):
    """torch's loader drew the seed of its workers from the generator of mixup: once a run, or once an epoch."""
    few = replace(data, train_rows=data.train_rows[:24], transforms=DrawsFromAll())
    whole = tiny(replace(few, workers=0), mixup=True)
    whole.fit(3, 2e-3, checkpoint=False)
    for workers, before in ((0, 2), (3, None)):
        model, folder = tiny(replace(few, workers=workers), mixup=True), tmp_path / str(workers)
        if before is not None:
            broken = tiny(replace(few, workers=before), mixup=True)
            with monkeypatch.context() as patch:
                patch.setattr("geopsp.training.fit._callbacks", with_more([Kill(1)]))
                with pytest.raises(RuntimeError, match="the power went"):
                    broken.fit(3, 2e-3, checkpoint=False, folder=folder)
        model.fit(3, 2e-3, checkpoint=False, folder=folder, resume=True)
        assert not changed(weights(whole), model), workers
        assert model.history["train_loss"].tolist() == whole.history["train_loss"].tolist()


class DrawsFromAll(v2.Transform):
    """A transform such as users write, with the generators of torch, numpy and Python."""

    def transform(self, inpt, params):
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        return inpt + torch.rand(()) / 10 + np.random.rand() / 10 + random.random() / 10  # noqa: NPY002


def with_more(callbacks):
    from geopsp.training.fit import _callbacks

    return lambda *arguments: [*_callbacks(*arguments), *callbacks]


def test_only_the_same_run_is_resumed(data, tmp_path, capsys):
    model = tiny(data)
    model.fit(1, 1e-3, folder=tmp_path, resume=True)
    assert "no run to resume" in capsys.readouterr().err
    with pytest.raises(OptionError, match="already holds a run"):
        model.fit(1, 1e-3, folder=tmp_path)
    with pytest.raises(OptionError, match=r"holds another run: `lr` was 0\.001, is 0\.002\. Resume"):
        tiny(data).fit(1, 2e-3, folder=tmp_path, resume=True)
    with pytest.raises(OptionError, match=r"several devices\. Set `batch_size`"):
        tiny(replace(data, batch_size=None)).fit(1, devices=2)


def test_a_notebook_is_sent_to_the_shell_for_several_devices(data, monkeypatch):
    monkeypatch.setattr("geopsp.training.trainer.is_interactive", lambda: True)
    with pytest.raises(OptionError, match="needs a script or the shell"):
        tiny(data).fit(1, 1e-3, devices=2)


def test_a_stopped_run_goes_on_with_the_same_network_and_the_rate_that_was_found(data, tmp_path, monkeypatch, bars):
    """As in a notebook: the rate was looked for, Ctrl-C, then resume without naming it."""
    whole = tiny(data)
    whole.fit(3, folder=tmp_path / "whole")
    model = tiny(data)
    with monkeypatch.context() as patch:
        patch.setattr("geopsp.training.fit._callbacks", with_more([Kill(1, KeyboardInterrupt())]))
        with pytest.raises(KeyboardInterrupt):
            model.fit(3, folder=tmp_path / "stopped")
    assert len(model.history) == 1
    assert len(model.model.settings["runs"]) == 1
    model.fit(3, folder=tmp_path / "stopped", resume=True)
    assert not changed(weights(whole), model)
    assert model.history["epoch"].tolist() == [1, 2, 3]
    assert [bar.summaries[0].partition(" in ")[0] for bar in bars] == ["3 epochs", "1 epoch", "3 epochs"]


def test_a_run_that_stopped_early_stays_stopped(data, tmp_path):
    few = replace(data, train_rows=data.train_rows[:8], valid_rows=data.valid_rows[:2])
    options = {"one_cycle": False, "early_stopping": True, "monitor": "accuracy", "folder": tmp_path}
    model = tiny(few)
    model.fit(30, 1e-12, **options)
    epochs = len(model.history)
    assert 6 <= epochs < 30, "a rate at which nothing improves ends the run after the patience"
    again = tiny(few)
    again.fit(30, 1e-12, resume=True, **options)
    assert len(again.history) == epochs


def change_weights(checkpoint):
    checkpoint["state_dict"].popitem()


def change_optimizer(checkpoint):
    checkpoint["optimizer_states"][0]["state"] = {0: {"step": "x"}}


def test_a_state_of_the_optimizer_of_another_size_is_told():
    """Fused kernels would read beyond it."""
    weights = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = torch.optim.AdamW([weights])
    weights.sum().backward()
    optimizer.step()
    require_optimizer_state(optimizer)
    optimizer.state[weights]["exp_avg"] = torch.ones(1)
    with pytest.raises(TrainingError, match=r"damaged \(exp_avg\).*Remove the folder"):
        require_optimizer_state(optimizer)


@pytest.mark.parametrize("change", [change_weights, change_optimizer])
def test_a_checkpoint_with_other_contents_is_said_to_be_one(data, tmp_path, change):
    tiny(data).fit(1, 1e-3, folder=tmp_path)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, tmp_path / "last.ckpt")
    with pytest.raises(GeopspError, match=r"damaged.*[Rr]emove .*folder"):
        tiny(data).fit(1, 1e-3, folder=tmp_path, resume=True)


def test_damaged_best_weights_are_told_before_training(data, tmp_path):
    tiny(data).fit(1, 1e-3, folder=tmp_path)
    before = (tmp_path / "last.ckpt").read_bytes()
    content = bytearray((tmp_path / "best.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "best.ckpt").write_bytes(content)
    with pytest.raises(OptionError, match=r"is damaged .*Remove the folder"):
        tiny(data).fit(1, 1e-3, folder=tmp_path, resume=True)
    assert (tmp_path / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("weight", "boundary"), [(None, 0.0), ([0.1, 1.0, 5.0], 0.0), (None, 4.0), ([9, 1, 0.5], 2.0)])
def test_parts_of_a_batch_count_by_their_labels(data, weight, boundary, mixed):
    """A batch whose chips are labelled unevenly has the loss and gradients of the whole, in however many parts."""
    from geopsp.models.losses import LossSpec
    from geopsp.training.step import Batch, MicroBatchGradients

    model = tiny(data, boundary_weight=boundary)
    frozen_norms(model)
    network = model.model.network.train()
    image, labels = torch.randn(4, 2, 32, 32), torch.randint(0, 3, (4, 32, 32))
    labels[0], labels[1], labels[2, :20], labels[3, :, 8:] = 0, 255, 255, 2
    batch = Batch(image, torch.ones(4, 1, 32, 32), labels, labels.roll(1, 0) if mixed else None, 0.7 if mixed else 1.0)
    weight = None if weight is None else torch.tensor(weight, dtype=torch.float)
    found = []
    for size in (4, 2, 1):
        losses = LossSpec(boundary_weight=boundary, aux_weight=0.0 if boundary else 0.4)  # which knows no boundaries
        loss = MicroBatchGradients(losses, size)(network, batch, weight)
        found.append((loss, torch.cat([p.grad.flatten() for p in network.parameters()])))
    for loss, gradient in found[1:]:
        torch.testing.assert_close(loss, found[0][0])
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "power"),
    [({}, 0.3), ({"class_balancing": True}, 0.5), ({"class_balancing": True, "class_weight_power": 0.8}, 0.8)],
)
def test_rare_classes_weigh_more(data, options, power):
    pixels = torch.tensor(list(data.num_pixels_per_class.values()), dtype=torch.float)
    raw = pixels**-power
    torch.testing.assert_close(tiny(data, **options)._class_weight(), raw * pixels.sum() / (raw * pixels).sum())
    assert tiny(data, class_weight_power=0)._class_weight() is None


def test_ignored_classes_do_not_sway_the_balance(data):
    one = tiny(data, class_balancing=True, ignore_classes=["background"])
    weight, pixels = one._class_weight(), torch.tensor(list(data.num_pixels_per_class.values()), dtype=torch.float)
    assert weight[0] == 0
    assert (weight * pixels)[1:].sum() / pixels[1:].sum() == pytest.approx(1, abs=1e-5)


class RecordingBar(Bar):
    """Keeps what it is asked to show."""

    def __init__(self, *args, **options):
        self.shown, self.html, self.summaries = [], [], []
        super().__init__(*args, **options)

    def _show(self, steps, remark):
        self.shown.append((self.title, steps, remark))

    def details(self, html):
        self.html.append(html)

    def close(self, summary=""):
        self.summaries.append(summary)


@pytest.fixture
def bars(monkeypatch):
    """The bars that are opened."""
    opened = []

    def open_bar(*args, **options):
        opened.append(RecordingBar(*args, **options))
        return opened[-1]

    monkeypatch.setattr("geopsp.training.run_display.open_bar", open_bar)
    return opened


def test_progress_is_one_bar_with_the_loss_the_best_score_and_one_clock(data, bars):
    model = tiny(data)
    model.fit(2, 1e-3)
    (bar,) = bars
    tiles = len(model.data.valid_dl)
    assert [(title, steps) for title, steps, _ in bar.shown] == [
        (f"epoch {epoch}/2{part}", f"{done} of {total} batches")
        for epoch in (1, 2) for part, total in (("", 4), (", validation", tiles)) for done in range(1, total + 1)
    ]  # fmt: skip
    notes = [note for *_, note in bar.shown]
    assert re.fullmatch(r"\d:\d\d left", notes[0]), "a loss is known one step later"
    assert all(re.fullmatch(r"loss \d\.\d{3}, (best mIoU \d\.\d{3}, )?\d:\d\d left", note) for note in notes[1:])
    first_epoch = 4 + tiles
    assert all(f"best mIoU {model.history['valid_miou'][0]:.3f}" in note for note in notes[first_epoch:])
    assert notes[1].split(",")[0] != notes[first_epoch].split(",")[0]
    best = model.history.loc[model.history["valid_miou"].idxmax()]
    (summary,) = bar.summaries
    assert re.fullmatch(
        rf"2 epochs in \d:\d\d; best: epoch {best['epoch']:.0f}, mIoU {best['valid_miou']:.3f}", summary
    )
    assert len(bar.html) == 2
    assert "<svg" in bar.html[1]


def test_accumulation_is_one_step_for_several_batches(data):
    """Without running statistics it would be exactly the larger batch."""
    model = tiny(replace(data, batch_size=4, train_rows=data.train_rows[:27]))
    model.fit(1, 1e-3, accumulate=4)
    assert model.history["images"].tolist() == [24], "all that fill a batch, not only what fills four"
    assert model.model.settings["runs"][0]["accumulate"] == 4


def frozen_norms(model):
    """Statistics that do not depend on who shares a batch, and no dropout: then parts add up to the whole."""
    for module in model.model.network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0
            module.forward = lambda x, m=module: torch.nn.functional.batch_norm(
                x, m.running_mean, m.running_var, m.weight, m.bias, training=False
            )
        elif isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0


def test_memory_that_runs_out_halves_the_batch_and_keeps_the_step(data, monkeypatch, capsys):
    """A device that holds two chips at a time gives the network that one of any size gives."""
    roomy, tight = tiny(data), tiny(data)
    frozen_norms(roomy), frozen_norms(tight)
    roomy.fit(1, 1e-3, clip=0.5)
    assert "memory ran out" not in capsys.readouterr().err
    forward, sizes = SegmentationNetwork.forward, []

    def small(self, image, valid=None):
        sizes.append(len(image))
        if self.training and len(image) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, image, valid)

    monkeypatch.setattr(SegmentationNetwork, "forward", small)
    tight.fit(1, 1e-3, clip=0.5)
    said = capsys.readouterr().err
    assert "Batches of 8 chips are now computed 4 at a time" in said
    assert "Batches of 8 chips are now computed 2 at a time" in said
    assert sizes[:3] == [8, 4, 2]
    assert tight.history["train_loss"][0] == pytest.approx(roomy.history["train_loss"][0], rel=1e-2)
    assert tight.history["images"].tolist() == roomy.history["images"].tolist()


def test_memory_too_small_for_one_chip_is_said(data, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = tiny(data)
    monkeypatch.setattr(model.model.network.context, "forward", fail)
    with pytest.raises(TrainingError, match=r"too small for 1 chip at a time\. Lower `batch_size`"):
        model.fit(1, 1e-3)


def test_a_loss_that_is_not_finite_stops_and_names_the_batch(data):
    model = tiny(data)
    good = weights(model)
    row = int(data.train_rows[3])
    wild = data.chips.index["image"].iloc[row]

    class Wild:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def read(self, number, *window):
            pixels = self.inner.read(number, *window)
            return pixels._replace(data=np.full(pixels.data.shape, np.inf, np.float32)) if number == row else pixels

    model.data = replace(data, decoder=Wild(data.decoder))
    with pytest.raises(TrainingError, match=r"The (loss|gradient) became nan at step \d .*Lower `lr`") as error:
        model.fit(1, 1e-3)
    assert wild in str(error.value)
    assert "4" not in str(error.value).split("and ")[-1].split(" more")[0] or "more" not in str(error.value)
    assert all(torch.isfinite(v).all() for n, v in model.model.network.named_parameters())
    assert good.keys() == weights(model).keys()


def test_what_is_best_so_far_is_kept_when_training_breaks_off(data, monkeypatch):
    reference = tiny(data)
    reference.fit(3, 1e-3, checkpoint=False)
    model = tiny(data)
    monkeypatch.setattr("geopsp.training.fit._callbacks", with_more([Kill(1)]))
    with pytest.raises(RuntimeError, match="the power went"):
        model.fit(3, 1e-3)
    assert len(model.history) == 1
    assert model.evaluate().mean_iou() == pytest.approx(model.history["valid_miou"][0], abs=1e-6)


@pytest.mark.parametrize("epochs", [0, 2])
def test_ctrl_c_is_an_interrupt_that_keeps_the_best_epoch_and_says_so(data, monkeypatch, epochs):
    class Stop(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if len(model.history) == epochs:
                raise KeyboardInterrupt

    monkeypatch.setattr("geopsp.training.fit._callbacks", with_more([Stop()]))
    model = tiny(data)
    with pytest.raises(KeyboardInterrupt) as stopped:
        model.fit(3, 1e-3)
    assert not stopped.value.__cause__
    rows = model.history
    assert len(rows) == epochs
    if epochs:
        best = rows.loc[rows["valid_miou"].idxmax()]
        kept = f"those of epoch {best['epoch']:.0f}, the best so far (mIoU {best['valid_miou']:.3f})"
        assert model.evaluate().mean_iou() == pytest.approx(best["valid_miou"], abs=1e-6)
    else:
        kept = "those of its last step, as no epoch was kept"
    told = f"Training was interrupted after {epochs} epochs. The weights of the model are {kept}."
    assert str(stopped.value) == told
    assert stopped.value._render_traceback_() == [told], "what a notebook shows of it"


def test_the_best_epoch_comes_back(data):
    model = tiny(data)
    model.fit(4, 5e-3, monitor="dice")
    best = model.history["dice"].max()
    assert model.evaluate().mean_dice() == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("monitor", ["valid_loss", "dice", *map(slow, ("accuracy", "valid_miou"))])
def test_all_that_can_be_monitored_is_in_the_history(data, monitor):
    model = tiny(data)
    assert monitor in model.available_metrics
    model.fit(1, 1e-3, monitor=monitor)
    assert np.isfinite(model.history[monitor]).all()


@pytest.mark.parametrize("checkpoint", [True, slow(False)])
def test_the_moving_average_is_validated_and_kept(data, checkpoint):
    """With a decay near 1 and a wild rate the average lags far behind the weights themselves."""
    plain, smooth = tiny(data), tiny(data)
    start = weights(plain)
    plain.fit(1, 1e-2, one_cycle=False, checkpoint=False)
    smooth.fit(1, 1e-2, one_cycle=False, checkpoint=checkpoint, ema=0.99)
    name = "decoder.classify.weight"
    far, near = ((m.model.network.state_dict()[name] - start[name]).norm() for m in (plain, smooth))
    assert 0 < near < far
    assert smooth.evaluate().mean_iou() == pytest.approx(smooth.history["valid_miou"][0], abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        slow({"mixup": True}),
        {"aux": "presence"},
        slow({"ohem": 0.3, "label_smoothing": 0.1}),
        {"dice_loss_fraction": 0.3, "lovasz_fraction": 0.2, "tversky_fraction": 0.1},
        slow({"class_balancing": True, "focal_loss": True, "pointrend": True}),
    ],
)
def test_every_loss_learns(data, options):
    model = tiny(data, **options)
    model.fit(3, 5e-3)
    assert model.history["train_loss"].iloc[-1] < model.history["train_loss"].iloc[0]
    assert np.isfinite(model.history.to_numpy(float)).all()


@pytest.mark.slow
def test_a_compiled_run_trains_and_leaves_a_plain_network(data, monkeypatch):
    monkeypatch.setattr(SegmentationNetwork, "compile", lambda self: torch.nn.Module.compile(self, backend="eager"))
    plain, model = tiny(data), tiny(data)
    plain.fit(1, 1e-3)
    model.fit(1, 1e-3, compiled=True)
    assert model.model.network._compiled_call_impl is None
    assert model.history["train_loss"][0] == pytest.approx(plain.history["train_loss"][0], rel=1e-3)


def test_tensorboard_and_other_loggers(data, tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    model = tiny(data)
    model.fit(1, 1e-3, tensorboard=True, folder=tmp_path, loggers=[CSVLogger(tmp_path / "more")])
    assert list((tmp_path / "tensorboard").glob("events.*"))
    assert list((tmp_path / "more").rglob("metrics.csv"))
    assert list(pd.read_csv(tmp_path / "history.csv")["epoch"]) == [1]


def test_the_rate_is_found_and_the_network_left_alone(data):
    model = tiny(data)
    before = weights(model)
    rate = model.lr_find(allow_plot=True, steps=24)
    assert 1e-6 < rate < 1
    assert not changed(before, model)
    assert not any(p.grad is not None for p in model.model.network.parameters())


def test_balanced_classes_weigh_by_their_pixels(data):
    model = tiny(data, class_balancing=True)
    weight = model._class_weight()
    pixels = torch.tensor(list(data.num_pixels_per_class.values()), dtype=torch.float)
    assert (weight * pixels).sum() / pixels.sum() == pytest.approx(1, abs=1e-5)
    assert weight.argsort().tolist() == pixels.argsort(descending=True).tolist()


def test_validation_counts_every_labelled_pixel(data):
    """arcgis.learn validates on one centre crop."""
    counts = evaluate(tiny(data).model.network, data.valid_dl, data.legend).counts.sum(axis=1)
    expected = data.chips.index.iloc[data.valid_rows][[f"pixels_{c}" for c in data.legend.codes]].sum()
    assert counts.tolist() == expected.tolist()


def test_an_unknown_device_is_refused():
    with pytest.raises(ModelError, match="'abacus'"):
        pick_device("abacus")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"chip_size": 16}, "`chip_size` is 16, but must be"),
        ({"batch_size": 0}, "`batch_size` is 0"),
        ({"val_split_pct": 1.5}, "`val_split_pct` is 1.5, but must be"),
    ],
)
def test_prepare_data_options(small_world, options, says):
    with pytest.raises(OptionError, match=says):
        prepare_data(small_world["chips"], **options)


def test_data_speaks_arcgis(data):
    assert data.classes == ["background", "a", "b"]
    assert data.c == 3
    assert data.class_mapping == {0: "background", 1: "a", 2: "b"}
    assert set(data.color_mapping) == {0, 1, 2}
    assert data.audit.shared_pixels == 0
    assert "no overlap" in repr(data)


def test_no_folder_is_an_error():
    with pytest.raises(ChipError, match="No chip folder"):
        prepare_data([])
