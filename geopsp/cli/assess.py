"""The shell's command `geopsp assess`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geopsp.assessment.accuracy.assess_options import AssessOptions
from geopsp.cli.inputs import input_files
from geopsp.cli.options import dry_run_option, json_option, options_of, overwrite_option, take
from geopsp.cli.plan import Plan, map_seconds, show_plan
from geopsp.cli.results import show, wrote
from geopsp.cli.shell_command import ShellCommand


@click.command(
    cls=ShellCommand,
    strict=True,
    stopped="Nothing was written.",
    examples=(
        "geopsp assess map.tif points.gpkg --html accuracy.html",
        "geopsp assess map.tif survey.gpkg --reference-field class --design simple",
    ),
)
@click.argument("class_map", metavar="MAP", type=click.Path())
@click.argument("reference", metavar="REFERENCE")
@options_of(AssessOptions)
@json_option
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), help="Also write the results as a table (.csv).")
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Also write them as a page (.html).")
@dry_run_option
@overwrite_option
def assess(
    class_map: str,
    reference: str,
    json_path: Path | None,
    csv_path: Path | None,
    html_path: Path | None,
    dry_run: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Estimate the accuracy of MAP and the areas of its classes from REFERENCE.

    REFERENCE is a sample of `geopsp sample` that was labelled, other points, polygons (FILE or FILE|layername=LAYER)
    or a raster of class codes.
    """
    from geopsp.assessment.accuracy.assess_map import assess_map, describe_reference
    from geopsp.assessment.result_files import check_results

    named = {".json": json_path, ".csv": csv_path, ".html": html_path}
    outputs = check_results(named, input_files(class_map, reference), overwrite=overwrite)
    options = take(options, AssessOptions)
    if dry_run:
        given = AssessOptions(**options)
        show_plan(
            Plan(
                reads=[class_map, reference],
                notes=[describe_reference(class_map, reference, given)],
                writes=outputs,
                seconds=map_seconds(class_map, given.nodata, passes=3),
            )
        )
        return
    found = assess_map(class_map, reference, **options)
    show(found.text(), found.to_json())
    wrote(*(found.save(path, overwrite=overwrite) for path in outputs))
