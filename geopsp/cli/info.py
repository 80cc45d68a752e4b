"""The shell's commands `geopsp info` and `geopsp weights`."""

from __future__ import annotations

import click

from geopsp.cli.shell_command import ShellCommand, say, say_verbatim


@click.command(cls=ShellCommand, examples=("geopsp info scene.tif", "geopsp info chips model"))
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--json", "as_json", is_flag=True, help="Show the same as JSON.")
def info(paths: tuple[str, ...], as_json: bool) -> None:
    """Describe what a PATH is, and show the command that takes it.

    A PATH is a raster, a container of rasters such as NetCDF, a vector file (FILE or FILE|layername=LAYER), images
    (a folder, a glob or several files), a folder of images and masks, a chip folder or a model.
    """
    import json

    from geopsp.report.describe import describe

    found = describe(paths)
    if as_json:
        say_verbatim(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
    else:
        say(str(found))


@click.command(cls=ShellCommand, examples=("geopsp weights --backbone resnet50",))
@click.option("--backbone", help="Only those that fit this encoder.")
@click.option("--json", "as_json", is_flag=True, help="Show the same as JSON, with sources and checksums.")
def weights(backbone: str | None, as_json: bool) -> None:
    """List the published encoder weights for satellites that `geopsp train` takes as --weights NAME."""
    import json
    from dataclasses import asdict

    from geopsp.models.weight_sets import describe_weights, supported_weights

    rows = supported_weights(backbone)
    if as_json:
        say_verbatim(json.dumps([{**asdict(row), "url": row.url, "sha256": row.sha256} for row in rows], indent=1))
    else:
        say_verbatim(describe_weights(rows) if rows else f"There are none for {backbone}.")
