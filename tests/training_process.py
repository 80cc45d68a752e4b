"""A training that does not depend on how a batch is shared between processes; run with several devices as a script."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from geopsp import PSPNetClassifier, prepare_data
from geopsp.core.log import is_main_process


def train(chips: Path | str, out: str, devices: int) -> None:
    """Write a model before and after training, and what each process holds in the end."""
    torch.manual_seed(0)
    data = prepare_data(chips, batch_size=8 // devices, workers=0)
    data = replace(data, train_rows=data.train_rows[::3][:33], valid_rows=data.valid_rows[::4][:7])
    model = PSPNetClassifier(
        data, "tu-test_resnet", use_unet=False, encoder_weights=None, device="cpu",
        boundary_weight=0, class_weight_power=0,  # each process takes the mean over its own pixels
    )  # fmt: skip
    for module in model.model.network.modules():  # nothing that depends on who shares a batch
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.forward = lambda x, m=module: torch.nn.functional.batch_norm(
                x, m.running_mean, m.running_var, m.weight, m.bias, training=False
            )
        elif isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    if is_main_process():
        model.save(f"{out}.start", compute_metrics=False)
    model.fit(2, 1e-3, devices=devices, accumulate=2, precision="fp32", folder=f"{out}.run")
    scores = model.evaluate()
    model.save(out, compute_metrics=False)
    process = "first" if is_main_process() else "second"
    state = {name: float(value.double().sum()) for name, value in model.model.network.state_dict().items()}
    found = {"history": model.model.history, "counts": scores.counts.tolist(), "state": state}
    Path(f"{out}.{process}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], int(sys.argv[3]))
