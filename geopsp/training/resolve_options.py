"""What options leave open: rates, precision and, in a run that is resumed, what that run has."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from geopsp.core.documents import DocumentError, read_json
from geopsp.data.loader import ChipLoaders
from geopsp.errors import OptionError
from geopsp.models.device import has_bfloat16, has_compiler, pick_device
from geopsp.models.loss_options import ADDED, LossSpec
from geopsp.models.saved_model import TrainedModel
from geopsp.training.checkpoint_checks import UNEXPECTED
from geopsp.training.checkpoints import find_checkpoint, has_checkpoint
from geopsp.training.fit_options import COMPILED_STEPS, FitOptions, RunConfig
from geopsp.training.learning_rates import default_rates, log_rates, starts_pretrained
from geopsp.training.precision import choose_precision

logger = logging.getLogger(__name__)

RUN = "run.json"
"""What a run depends on, in its folder."""


BEFORE = {"minutes": None, "graded": True, "recipe": 1, "validate_all": True}
"""What runs of version 0.1 had where they do not say it; their precision went by the device."""


DEFAULTS_BEFORE = {"monitor": "valid_loss", "ema": 0.0}
"""Defaults of version 0.1 that are others now."""


def resolve_options(
    options: FitOptions, run: RunConfig, model: TrainedModel, loaders: ChipLoaders, weight: Tensor | None
) -> FitOptions:
    """Return the options with learning rates, precision and compilation; those of a run that is resumed, if open.

    Args:
        options: As the user gave them.
        run: Devices and folder.
        model: Its network is tried, and does not change.
        loaders: The chips to train on.
        weight: (classes,) of the loss.

    Raises:
        OptionError: if the run to resume is damaged.
    """
    earlier = read_run(run.folder, run.device) if run.resume and run.folder else None
    if earlier:
        options = _as_before(options, earlier["fit"])
    if options.lr is None:
        pretrained = starts_pretrained(model.settings, trained=bool(model.history))
        batch = loaders.batch_size * options.accumulate * run.world
        rates = default_rates(model.network, pretrained=pretrained, batch=batch)
        log_rates(model.network, rates, pretrained=pretrained, batch=batch)
        options = replace(options, lr=rates, graded=False)
    if options.precision == "auto":
        precision = choose_precision(
            model.network,
            loaders,
            legend=model.legend,
            losses=model.losses,
            weight=weight,
            device=pick_device(run.device),
        )
        options = replace(options, precision=precision)
    if options.compiled is None:
        options = replace(options, compiled=compiles_by_rule(options, loaders, run))
    return options


def compiles_by_rule(options: FitOptions, loaders: ChipLoaders, run: RunConfig) -> bool:
    """Return True for long runs on one GPU; several would each compile, and their norms cut the network in pieces."""
    if options.minutes is not None or run.world > 1 or pick_device(run.device).type != "cuda" or not has_compiler():
        return False
    return options.num_epochs * (len(loaders.train) // (loaders.batch_size * options.accumulate)) >= COMPILED_STEPS


def losses_of_run(losses: LossSpec, run: RunConfig) -> LossSpec:
    """Return the loss; without weights of boundaries or classes for a run to resume that had none.

    Earlier versions had none.

    Raises:
        OptionError: if the run to resume is damaged.
    """
    earlier = read_run(run.folder, run.device) if run.resume and run.folder else None
    if earlier is None:
        return losses
    missing: dict[str, Any] = {name: value for name, value in ADDED.items() if not earlier["losses"].get(name)}
    return replace(losses, **missing)


def _as_before(options: FitOptions, earlier: Mapping[str, Any]) -> FitOptions:
    """Return the options, with those of an earlier run where they leave something open."""
    taken = {name: earlier[name] for name in ("seed", "recipe", "validate_all")}
    if options.lr is None:
        taken |= {"lr": tuple(earlier["lr"]), "graded": earlier["graded"]}
    if options.precision == "auto":
        taken["precision"] = earlier["precision"]
    if options.compiled is None:
        taken["compiled"] = earlier["compiled"]
    if earlier["recipe"] == BEFORE["recipe"]:
        now = FitOptions()
        taken |= {
            name: before
            for name, before in DEFAULTS_BEFORE.items()
            if earlier[name] == before and getattr(options, name) == getattr(now, name)
        }
    return replace(options, **taken)


def read_run(folder: Path, device: str | None = None) -> dict[str, Any] | None:
    """Read what the run in a folder depends on, with its `FitOptions` under "fit"; None if there is none to resume.

    Options that runs of version 0.1 did not have are filled in as they trained then, on this device.

    Raises:
        OptionError: if its files are damaged.
    """
    if not has_checkpoint(folder):
        return None
    try:
        inputs: dict[str, Any] = read_json(folder / RUN)
        inputs["fit"] = {**BEFORE, **inputs["fit"]}
        if "precision" not in inputs["fit"]:
            inputs["fit"]["precision"] = "bf16" if has_bfloat16(pick_device(device)) else "fp32"
        FitOptions(**{**inputs["fit"], "lr": tuple(inputs["fit"]["lr"])})
    except (OSError, *UNEXPECTED) as error:
        reason = str(error) if isinstance(error, DocumentError) else type(error).__name__
        raise OptionError(
            f"The run in {folder} cannot be resumed: its {RUN} is damaged ({reason}). Restore that file from a copy, "
            "or train in another folder."
        ) from error
    find_checkpoint(folder)
    return inputs
