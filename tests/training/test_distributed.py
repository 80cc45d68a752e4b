"""Two processes on a CPU train what one trains, and score what one scores."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import training_process
from safetensors.torch import load_file
from training_process import train


@pytest.fixture(scope="module")
def runs(small_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    train(small_world["chips"], str(folder / "on1"), 1)
    command = [sys.executable, training_process.__file__, small_world["chips"], str(folder / "on2"), "2"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Split:") == 1, "only the first process speaks"
    return folder


def read(path):
    return json.loads(path.read_text())


def test_both_processes_hold_the_same_network(runs):
    assert read(runs / "on2.first.json")["state"] == read(runs / "on2.second.json")["state"]


def test_scores_are_those_of_one_process(runs):
    """What was counted in shares during training is what one process counts over all of the chips."""
    found = read(runs / "on2.first.json")
    counts = torch.tensor(found["counts"], dtype=torch.float64)
    right = counts.diag()
    iou = right / (counts.sum(0) + counts.sum(1) - right)
    best = max(found["history"], key=lambda row: row["valid_miou"])  # which both processes brought back
    assert best["valid_miou"] == pytest.approx(float(iou[~iou.isnan()].mean()), abs=1e-6)
    assert best["accuracy"] == pytest.approx(float(right.sum() / counts.sum()), abs=1e-6)


def test_two_processes_train_what_one_trains_with_batches_twice_as_large(runs):
    """But for what Adam makes of rounding, most at its first steps: 10 % of the way that the weights go."""
    start, one, two = (load_file(runs / name / "weights.safetensors") for name in ("on1.start", "on1", "on2"))
    names = [name for name in one if one[name].is_floating_point()]
    way = torch.cat([(one[name] - start[name]).flatten() for name in names]).norm()
    apart = torch.cat([(one[name] - two[name]).flatten() for name in names]).norm()
    assert way > 0.1
    assert apart < 0.1 * way
    ours, theirs = (read(runs / f"on{devices}.first.json")["history"] for devices in (1, 2))
    assert [row["images"] for row in ours] == [row["images"] for row in theirs] == [32, 32]
    for row, other in zip(ours, theirs, strict=True):
        assert row["valid_loss"] == pytest.approx(other["valid_loss"], rel=1e-2)


def test_only_the_first_process_writes(runs):
    assert (runs / "on2" / "model.json").exists()
    assert (runs / "on2.run" / "history.csv").exists()
    assert not list(runs.glob(".partial*"))
