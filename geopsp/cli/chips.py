"""The shell's command `geopsp chips`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from geopsp.chips.options import CUTTING, ExportOptions
from geopsp.cli.inputs import images_argument, input_files, labels_help, labels_of
from geopsp.cli.options import dry_run_option, json_option, options_of, take
from geopsp.cli.plan import Plan, show_plan
from geopsp.cli.results import show, wrote
from geopsp.cli.shell_command import ShellCommand


@click.command(
    cls=ShellCommand,
    strict=True,
    records=True,
    stopped="Chips that are cut are kept: the same command goes on from them.",
    examples=(
        "geopsp chips scene.tif --labels fields.gpkg --class-field crop --out chips",
        "geopsp chips 'images/*.tif' --labels 'masks/*.png' --out chips --size 512 --stride 256",
    ),
)
@images_argument
@click.option("--labels", required=True, multiple=True, help=labels_help)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Chip folder to write.")
@options_of(*CUTTING, ExportOptions)
@json_option
@click.option("--picture", type=click.Path(path_type=Path), help="Also draw the chips over the images (.png).")
@dry_run_option
def chips(
    images: tuple[str, ...],
    labels: tuple[str, ...],
    out: Path,
    json_path: Path | None,
    picture: Path | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Cut georeferenced training chips from IMAGEs and labels.

    An IMAGE is a raster, a URL, a glob, a folder, or a STAC item or item collection.
    """
    from geopsp.chips.export_training_data import export_training_data, plan_chips
    from geopsp.core.output import check_output
    from geopsp.core.owned_files import require_not_inputs
    from geopsp.core.progress import progress_bar
    from geopsp.report.summary import chip_report, describe_chips, write_chip_report

    options = take(options, *CUTTING, ExportOptions)
    overwrite, reports = options.get("overwrite", False), [path for path in (json_path, picture) if path]
    for path in reports:
        check_output(path, overwrite=overwrite)
    if reports:
        require_not_inputs(reports, input_files(*images, *labels))
    if dry_run:
        start = time.monotonic()
        with progress_bar("Cutting chips") as progress:
            cut = plan_chips(list(images), labels_of(images, labels), out, progress=progress, **options)
        show(describe_chips(cut), chip_report(cut))
        show_plan(
            Plan(
                reads=[images, *labels],
                writes=[out, *reports],
                max_bytes=len(cut) * chip_bytes(cut),
                seconds=WRITING * (time.monotonic() - start),
            )
        )
        return
    with progress_bar("Cutting chips") as progress:
        chip_set = export_training_data(list(images), labels_of(images, labels), out, progress=progress, **options)
    show(describe_chips(chip_set), chip_report(chip_set))
    require_not_inputs(reports, [Path(file) for files in chip_set.files.values() for file in files])
    if json_path:
        write_chip_report(chip_set, json_path, overwrite=overwrite)
    if picture:
        from geopsp.report.chip_map import chip_map
        from geopsp.training.plots import save_figure

        save_figure(chip_map(chip_set, images=chip_set.files), picture, overwrite=overwrite)
    wrote(out, *reports)


WRITING = 2
"""Time of an export by that of finding its chips, which reads images and labels but writes no files."""


def chip_bytes(chips: Any) -> int:
    """Return the size of a chip of a `ChipSet` without compression: its bands and its labels."""
    import numpy as np

    return int(chips.tile_size**2 * (len(chips.bands) * np.dtype(chips.dtype).itemsize + 1))
