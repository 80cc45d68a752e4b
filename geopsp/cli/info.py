"""The shell's commands `geopsp info` and `geopsp weights`."""

from __future__ import annotations

import click

from geopsp.cli.option_values import complete_backbone
from geopsp.cli.results import show
from geopsp.cli.shell_command import ShellCommand


@click.command(cls=ShellCommand, examples=("geopsp info scene.tif", "geopsp info chips model"))
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
def info(paths: tuple[str, ...]) -> None:
    """Describe what a PATH is, and show the command that takes it.

    A PATH is a raster, a container of rasters such as NetCDF, a vector file (FILE or FILE|layername=LAYER), images
    (a folder, a glob or several files), a folder of images and masks, a chip folder or a model.
    """
    from geopsp.report.describe import describe

    found = describe(paths)
    show(str(found), found.to_json())


@click.command(cls=ShellCommand, examples=("geopsp weights --backbone resnet50",))
@click.option("--backbone", shell_complete=complete_backbone, help="Only those that fit this encoder.")
def weights(backbone: str | None) -> None:
    """List the published encoder weights for satellites that `geopsp train` takes as --weights NAME.

    With --json also their sources and checksums.
    """
    from dataclasses import asdict

    from geopsp.models.weight_sets import describe_weights, supported_weights

    rows = supported_weights(backbone)
    content = {"weights": [{**asdict(row), "url": row.url, "sha256": row.sha256} for row in rows]}
    show(describe_weights(rows) if rows else f"There are none for {backbone}.", content)
