"""The shell's command `geopsp calibrate`."""

from __future__ import annotations

from pathlib import Path

import click

from geopsp.cli.inputs import checked_model
from geopsp.cli.option_values import Choice
from geopsp.cli.options import dry_run_option, mismatch_option, options_of, overwrite_option
from geopsp.cli.plan import Plan, file_bytes, show_plan
from geopsp.cli.results import show, wrote
from geopsp.cli.shell_command import ShellCommand
from geopsp.models.calibration_methods import METHODS, Method
from geopsp.training.options import ModelOptions


@click.command(
    cls=ShellCommand,
    strict=True,
    stopped="Nothing was written.",
    examples=("geopsp calibrate model chips-of-this-region --out model-calibrated",),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("chips", nargs=-1, required=True, metavar="CHIPS...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Model folder to write.")
@click.option(
    "--method",
    type=Choice(list(METHODS)),
    default=METHODS[0],
    show_default=True,
    help="temperature: one number for all classes. vector: a weight and a bias for each class, for many chips.",
)
@options_of(ModelOptions, only=("device",))
@mismatch_option("Take")
@dry_run_option
@overwrite_option
def calibrate(
    model: Path,
    chips: tuple[str, ...],
    out: Path,
    method: Method,
    device: str | None,
    allow_resolution_mismatch: bool,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Calibrate the confidence of MODEL on labelled CHIPS that it was not trained on, and save it.

    Classes do not change. `geopsp train` calibrates on the validation chips by itself.
    """
    from geopsp.chips.chip_set import ChipSet
    from geopsp.core.output import check_output
    from geopsp.models.calibration import calibration_entry
    from geopsp.models.manifest import MODEL_FOLDER

    check_output(out, overwrite=overwrite, folder=True, kind=MODEL_FOLDER)
    model = checked_model(model, "calibrate")
    chip_set = ChipSet.open(list(chips))
    from geopsp.training.classifier import PixelClassifier

    classifier = PixelClassifier.from_model(model, device=device)
    if dry_run:
        from geopsp.training.estimate_scoring import estimate_scoring
        from geopsp.training.evaluate import chip_loader

        chip_loader(classifier.model, chip_set, allow_resolution_mismatch=allow_resolution_mismatch)  # its checks
        cost = estimate_scoring(classifier.model, chip_set, device)
        show_plan(
            Plan(
                reads=[model, *chips],
                notes=[cost.text],
                writes=[out],
                max_bytes=file_bytes(model),
                seconds=cost.seconds,
            )
        )
        return
    found = classifier.calibrate(chip_set, method=method, allow_resolution_mismatch=allow_resolution_mismatch)
    classifier.save(out, overwrite=overwrite, compute_metrics=False)
    show(f"Calibrated: {found.summary}.", calibration_entry(found))
    wrote(out)
