"""The shell's command `geopsp report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geopsp.cli.options import dry_run_option, mismatch_option, options_of, overwrite_option
from geopsp.cli.plan import Plan, show_plan
from geopsp.cli.results import record, wrote
from geopsp.cli.shell_command import ShellCommand
from geopsp.training.options import ModelOptions

MAX_BYTES, SECONDS = 10e6, 2.0
"""Size of a report at most, and about how long it takes to make one without scores."""


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
@dry_run_option
@overwrite_option
def report(
    model: Path,
    chips: tuple[str, ...],
    map: str | None,  # noqa: A002 (the option's name)
    images: tuple[str, ...],
    out: Path,
    device: str | None,
    allow_resolution_mismatch: bool,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Write a report of MODEL: scores, errors, training, data, and how to repeat it, as one HTML file.

    What it tells of the training lies in the folder of the model. Give --chips of ground that it has not seen.
    """
    from geopsp.core.extras import require_torch
    from geopsp.training.report_classifier import check_report, scoring_cost, write_report

    if chips:
        require_torch("`geopsp report` with `chips`")
    chosen: dict[str, Any] = {"chips": list(chips) or None, "map": map, "images": list(images) or None}
    if dry_run:
        check_report(model, out, **chosen, overwrite=overwrite)
        cost = scoring_cost(model, chips, device) if chips else None
        images_read = [list(images)] if images else []
        show_plan(
            Plan(
                reads=[model, *chips, *([map] if map else []), *images_read],
                notes=[cost.text] if cost else [],
                writes=[out],
                max_bytes=MAX_BYTES,
                seconds=SECONDS + (cost.seconds if cost else 0),
            )
        )
        return
    path = write_report(
        model, out, **chosen, device=device, allow_resolution_mismatch=allow_resolution_mismatch, overwrite=overwrite
    )
    record({"model": str(model)})
    wrote(path)
