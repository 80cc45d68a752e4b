"""The shell's command `geopsp suggest`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from geopsp.active_learning.options import SuggestOptions
from geopsp.cli.inputs import images_argument
from geopsp.cli.options import dry_run_option, options_of, take
from geopsp.cli.plan import Plan, show_plan
from geopsp.cli.results import show_verbatim, wrote
from geopsp.cli.shell_command import ShellCommand
from geopsp.core.addresses import shown
from geopsp.polygons.options import PolygonSettings


@click.command(
    cls=ShellCommand,
    strict=True,
    records=True,
    stopped="Rows that are scored are kept: the same command goes on.",
    examples=("geopsp suggest model scene.tif --out next.gpkg --number 50 --labelled chips",),
)
@click.argument("model", type=click.Path(path_type=Path))
@images_argument
@click.option("--out", required=True, type=click.Path(path_type=Path), help="GeoPackage to write (.gpkg).")
@options_of(SuggestOptions)
@options_of(PolygonSettings, unset=True)
@dry_run_option
def suggest(model: Path, images: tuple[str, ...], out: Path, dry_run: bool, **options: Any) -> None:
    """Suggest where to label next: windows of IMAGEs where a label helps MODEL most, with its own map to correct.

    MODEL is the folder of a saved model, its name on the Hugging Face Hub (hf://OWNER/NAME), or an ONNX file of
    `geopsp export`. Correct the layer `labels` of --out, e.g. in QGIS, set the status of finished windows to "done",
    and cut chips of them as the last line shows. The options from --connectivity to --regularize say how the polygons
    are made.
    """
    from geopsp.active_learning.suggest_chips import find_windows, plan_windows
    from geopsp.core.legend import BACKGROUND

    polygon_options = take(options, PolygonSettings)
    options = take(options, SuggestOptions)
    if polygon_options:
        options["polygon_options"] = polygon_options
    if dry_run:
        plan = plan_windows(model, list(images), out, SuggestOptions(**options))
        inputs = [str(options[name]) for name in ("labelled", "aoi") if name in options]
        show_plan(Plan(reads=[model, images, *inputs], notes=[plan.text], writes=[out], seconds=plan.seconds))
        return
    found = find_windows(model, list(images), out, SuggestOptions(**options))
    wrote(out)
    has_background = BACKGROUND in found.legend.names
    command = next_command(images, out, options, size=found.tile_size, has_background=has_background)
    content = {"tile_size": found.tile_size, "classes": list(found.legend.names), "next_command": command}
    show_verbatim(f"When windows are done: {command}", content)


def next_command(
    images: tuple[str, ...], out: Path, options: dict[str, Any], *, size: int, has_background: bool
) -> str:
    """Return the command that cuts chips of the windows that are done."""
    file = shown(out)
    words = ["geopsp", "chips", *images, "--labels", f"{file}|layername=labels", "--class-field", "class"]
    words += ["--aoi", f"{file}|layername=aoi", "--aoi-rule", "inside", "--size", str(size)]
    words += [] if has_background else ["--background", "ignore"]
    words += ["--stride", str(options["stride"])] if "stride" in options else []
    words += ["--bands", ",".join(map(str, options["bands"]))] if "bands" in options else []
    words += ["--cell-size", f"{options['cell_size']:.15g}"] if "cell_size" in options else []
    return f"{shlex.join(words)} --append --out CHIPS"
