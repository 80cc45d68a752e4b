"""The shell's command `geopsp sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geopsp.assessment.sampling.sample_options import SampleOptions
from geopsp.cli.options import options_of, take
from geopsp.cli.shell_command import ShellCommand, say, say_verbatim


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
def sample(class_map: str, out: Path, **options: Any) -> None:
    """Draw pixels of MAP, a class raster, as points for reference labels.

    Open the file in QGIS, choose a class for each point, and give it to `geopsp assess`.
    """
    from geopsp.assessment.sampling.draw_sample import draw_sample
    from geopsp.assessment.sampling.sample_table import describe_sample

    drawn = draw_sample(class_map, out, **take(options, SampleOptions))
    say_verbatim(describe_sample(drawn))
    say(f"Wrote {out}")
