"""Two processes on a CPU train what one trains, and score what one scores."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = """
import json, sys
from dataclasses import replace
import torch
from geopsp import PSPNetClassifier, prepare_data
from geopsp.core.log import is_main_process

chips, out, devices = sys.argv[1], sys.argv[2], int(sys.argv[3])
data = prepare_data(chips, batch_size=8 // devices, workers=0)
data = replace(data, train_rows=data.train_rows[::3][:33], valid_rows=data.valid_rows[::4][:7])
model = PSPNetClassifier(
    data, "tu-test_resnet", use_unet=False, encoder_weights=None, device="cpu",
    boundary_weight=0, class_weight_power=0,  # each process takes the mean over its own pixels
)
for module in model.model.network.modules():  # nothing that depends on who shares a batch
    if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
        module.forward = lambda x, m=module: torch.nn.functional.batch_norm(
            x, m.running_mean, m.running_var, m.weight, m.bias, training=False)
    elif isinstance(module, torch.nn.Dropout2d):
        module.p = 0.0
if is_main_process():
    model.save(out + ".start", compute_metrics=False)
model.fit(2, 1e-3, devices=devices, accumulate=2, precision="fp32", folder=out + ".run")
scores = model.evaluate()
model.save(out, compute_metrics=False)
process = "first" if is_main_process() else "second"
state = {name: float(value.double().sum()) for name, value in model.model.network.state_dict().items()}
with open(f"{out}.{process}.json", "w") as file:
    json.dump({"history": model.model.history, "counts": scores.counts.tolist(), "state": state}, file)
"""


@pytest.fixture(scope="module")
def runs(small_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "train.py").write_text(SCRIPT)
    for devices in (1, 2):
        command = [sys.executable, "train.py", small_world["chips"], str(folder / f"on{devices}"), str(devices)]
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
