"""The shell's command `geopsp sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geopsp.assessment.sampling.sample_options import SampleOptions
from geopsp.cli.options import dry_run_option, options_of, take
from geopsp.cli.plan import Plan, map_seconds, show_plan
from geopsp.cli.results import show_verbatim, wrote
from geopsp.cli.shell_command import ShellCommand


@click.command(
    cls=ShellCommand,
    strict=True,
    stopped="Nothing was written.",
    examples=(
        "geopsp sample map.tif --out points.gpkg",
        "geopsp sample map.tif --out points.gpkg --size 600 --expected-accuracy 0.9,water=0.97",
        "geopsp sample map.tif --out points.gpkg --confidence conf.tif --confidence-bins 0.6,0.9",
        "geopsp sample map.tif --out points.gpkg --zones districts.gpkg --zone-field name",
        "geopsp sample map.tif --out points.gpkg --design cluster --size 40 --cluster-size 10",
    ),
)
@click.argument("class_map", metavar="MAP")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="GeoPackage to write.")
@options_of(SampleOptions)
@dry_run_option
def sample(class_map: str, out: Path, dry_run: bool, **options: Any) -> None:
    """Draw pixels of MAP, a class raster, as points for reference labels.

    Open the file in QGIS, choose a class for each point, and give it to `geopsp assess`.
    """
    from geopsp.assessment.sampling.draw_sample import check_sample_output, draw_sample
    from geopsp.assessment.sampling.sample_table import describe_sample, sample_report

    options = take(options, SampleOptions)
    if dry_run:
        given = SampleOptions(**options)
        check_sample_output(class_map, out, given)
        inputs = [str(options[name]) for name in ("confidence", "zones", "aoi") if name in options]
        size = given.size or "as many as --standard-error needs"
        show_plan(
            Plan(
                reads=[class_map, *inputs],
                notes=[f"{given.design} sample; points: {size}."],
                writes=[out],
                seconds=map_seconds(class_map, given.nodata, passes=2),
            )
        )
        return
    drawn = draw_sample(class_map, out, **options)
    show_verbatim(describe_sample(drawn), sample_report(drawn))
    wrote(out)
