"""One whole checkpoint is there at any moment, and a run goes on from it to the weights of an unbroken one."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from common import REPOSITORY
from inference_common import disk_of

from geopsp import PSPNetClassifier, prepare_data
from geopsp.core.lock import output_lock
from geopsp.errors import OptionError, OutputError
from geopsp.training.checkpoints import AtomicCheckpoints, damage, find_checkpoint

EPOCHS = 3


@pytest.fixture(scope="module")
def data(small_world):
    found = prepare_data(small_world["chips"], batch_size=8, cache=small_world["cache"])
    return replace(found, train_rows=found.train_rows[::5][:8], valid_rows=found.valid_rows[::6][:1])


def train(data, folder=None, epochs=EPOCHS, **options):
    model = PSPNetClassifier(data, "tu-test_resnet", use_unet=False, encoder_weights=None)
    model.fit(epochs, 2e-3, folder=folder, monitor="valid_miou", **options)
    return {name: value.clone() for name, value in model.model.network.state_dict().items()}


@pytest.fixture(scope="module")
def whole(data):
    return train(data)


def same(weights, others):
    return all(torch.equal(value, others[name]) for name, value in weights.items())


class StopError(Exception):
    pass


@pytest.fixture(scope="module")
def stopped_run(data, tmp_path_factory):
    """The files of a run that stopped after two of three epochs, and its folder."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:

        def stop(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                raise StopError

        patch.setattr("geopsp.training.callbacks.EpochLogger.on_train_epoch_start", stop)
        with pytest.raises(StopError):
            train(data, folder)
    return folder, {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def stopped(stopped_run):
    """The folder of that run, as it was when it stopped."""
    folder, files = stopped_run
    shutil.rmtree(folder)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def flip(content):
    """Change one byte of the weights."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize("harm", [lambda content: content[: len(content) // 2], flip, lambda content: b"", None])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(stopped, caplog, harm):
    last = stopped / "last.ckpt"
    if harm:
        last.write_bytes(harm(last.read_bytes()))
        assert damage(last)
    else:
        last.unlink()
    assert find_checkpoint(stopped) == stopped / "previous.ckpt"
    assert ("goes on from the epoch before" in caplog.text) == (harm is not None)


def test_a_run_with_a_damaged_checkpoint_ends_as_an_unbroken_one(data, whole, stopped):
    (stopped / "last.ckpt").write_bytes(flip((stopped / "last.ckpt").read_bytes()))
    assert same(train(data, stopped, resume=True), whole)


def test_a_run_without_a_whole_checkpoint_is_said_to_be_one_and_kept(data, stopped):
    for name in ("last.ckpt", "previous.ckpt"):
        (stopped / name).write_bytes(flip((stopped / name).read_bytes()))
    before = {path.name: path.read_bytes() for path in stopped.iterdir()}
    with pytest.raises(OptionError, match=r"no whole checkpoint before it\. best\.ckpt holds the best weights so far"):
        train(data, stopped, resume=True)
    (stopped / "run.json").write_text("{")
    with pytest.raises(OptionError, match=r"its run\.json is damaged .*Restore that file"):
        train(data, stopped, resume=True)
    assert {**{path.name: path.read_bytes() for path in stopped.iterdir()}, "run.json": before["run.json"]} == before


WHOLE = {
    "global_step": 1, "state_dict": {"weights": torch.zeros(999)}, "optimizer_states": [], "lr_schedulers": [],
    "loops": {}, "callbacks": {},
}  # fmt: skip


def test_wherever_writing_breaks_off_a_whole_checkpoint_is_left(tmp_path, monkeypatch):
    """At each rename, sync and write in turn, as if the process were killed or the disk full."""
    monkeypatch.setenv("GEOPSP_SYNC", "1")
    move, sync, write = Path.replace, os.fsync, Path.write_bytes
    for number in range(1, 99):
        last, calls = tmp_path / str(number) / "last.ckpt", 0
        last.parent.mkdir()
        writer = AtomicCheckpoints("Resume.")
        for epoch in (1, 2):
            writer.save_checkpoint({**WHOLE, "epoch": epoch}, last)

        def count(number=number):
            nonlocal calls
            calls += 1
            if calls == number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", lambda path, target: (count(), move(path, target))[1])
            patch.setattr(os, "fsync", lambda descriptor: (count(), sync(descriptor))[1])
            patch.setattr(Path, "write_bytes", lambda path, data: (write(path, data[:99]), count(), write(path, data)))
            with pytest.raises(OutputError, match=r"Is the disk full\? Resume") if number < 6 else nullcontext():
                writer.save_checkpoint({**WHOLE, "epoch": 3}, last)
        found = find_checkpoint(last.parent)
        assert torch.load(found)["epoch"] == (2 if number < 6 else 3), number
        assert not list(last.parent.glob(".*"))
        if calls < number:
            break
    assert number == 7


def test_a_full_disk_of_temporary_files_is_told(data):
    with pytest.raises(OutputError, match=r"best\.ckpt.*Is the disk full\? Set TMPDIR"), disk_of(30_000):
        train(data, epochs=1)


def test_a_disk_that_was_full_for_a_while_changes_nothing(data, whole, stopped):
    with pytest.raises(OutputError, match=r"best\.ckpt.*Is the disk full\? The run can be resumed"), disk_of(30_000):
        train(data, stopped, resume=True)
    assert same(train(data, stopped, resume=True), whole)


def test_of_two_runs_in_a_folder_one_goes_on(data, tmp_path):
    """The other one is in another process, which says who it is."""
    code = (
        "import sys, time; from pathlib import Path; from geopsp.core.lock import output_lock\n"
        f"with output_lock(Path({str(tmp_path / 'run')!r})): print('held', flush=True); sys.stdin.read()"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    pipe = subprocess.PIPE
    other = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, env=environment, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=rf"Another run \(process {other.pid} on \S+ since .*\) is writing to"):
            train(data, tmp_path / "run")
    finally:
        other.communicate("")
    train(data, tmp_path / "run", epochs=1)


def test_a_lock_that_a_kill_left_is_no_hindrance(tmp_path):
    lock = tmp_path / ".run.lock"
    lock.write_text("geopsp: process 1 on elsewhere since 2026-01-01 00:00:00\n")
    with output_lock(tmp_path / "run"):
        assert f"process {os.getpid()} on" in lock.read_text()
    assert not lock.exists()


def test_without_a_folder_for_temporary_files_training_needs_one_of_its_own(data, tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    with pytest.raises(OutputError, match=r"No usable temporary directory found.* Set TMPDIR"):
        train(data)
    train(data, tmp_path, epochs=1)


def test_a_read_only_folder_is_told(data, tmp_path, monkeypatch):
    def refuse(self, *args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="Read-only file system"):
        train(data, tmp_path / "new")
