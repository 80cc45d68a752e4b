"""The shell's command `geopsp report`."""

from __future__ import annotations

from pathlib import Path

import click

from geopsp.cli.options import mismatch_option, options_of, overwrite_option
from geopsp.cli.shell_command import ShellCommand, say
from geopsp.training.options import ModelOptions


@click.command(
    cls=ShellCommand,
    strict=True,
    stopped="Nothing was written.",
    examples=(
        "geopsp report model --chips test-chips",
        "geopsp report model --map map.tif --images scene.tif --out report.html",
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--chips", multiple=True, metavar="CHIPS", help="Labelled chips to score; may be repeated. Default: the "
              "scores on the validation chips are shown.")  # fmt: skip
@click.option("--map", type=click.Path(), help="A map that the model made, to look at beside --images.")
@click.option("--images", multiple=True, metavar="IMAGE", help="Images that the map was made of; may be repeated.")
@click.option("--out", default="report.html", show_default=True, type=click.Path(path_type=Path), help="File to write.")
@options_of(ModelOptions, only=("device",))
@mismatch_option("Score")
@overwrite_option
def report(
    model: Path,
    chips: tuple[str, ...],
    map: str | None,  # noqa: A002 (the option's name)
    images: tuple[str, ...],
    out: Path,
    device: str | None,
    allow_resolution_mismatch: bool,
    overwrite: bool,
) -> None:
    """Write a report of MODEL: scores, errors, training, data, and how to repeat it, as one HTML file.

    What it tells of the training lies in the folder of the model. Give --chips of ground that it has not seen.
    """
    from geopsp.core.extras import require_torch
    from geopsp.training.report_classifier import write_report

    if chips:
        require_torch("`geopsp report` with `chips`")
    path = write_report(
        model, out, chips=list(chips) or None, map=map, images=list(images) or None, device=device,
        allow_resolution_mismatch=allow_resolution_mismatch, overwrite=overwrite,
    )  # fmt: skip
    say(f"Report: {path}")
