"""The shell's command `geopsp change`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geopsp.assessment.change.change_options import ChangeOptions
from geopsp.cli.options import dry_run_option, json_option, options_of, take
from geopsp.cli.plan import Plan, show_plan
from geopsp.cli.results import show, wrote
from geopsp.cli.shell_command import ShellCommand


@click.command(
    cls=ShellCommand,
    strict=True,
    records=True,
    stopped="Parts that are made are kept: the same command goes on from them.",
    examples=(
        "geopsp change map-2020.tif map-2024.tif --out change.tif --min-area 100",
        "geopsp change map-2020.tif map-2024.tif --out change.tif --polygons change.gpkg",
    ),
)
@click.argument("map_a", type=click.Path())
@click.argument("map_b", type=click.Path())
@click.option("--out", required=True, type=click.Path(path_type=Path), help="GeoTIFF (COG) of the changes to write.")
@options_of(ChangeOptions)
@json_option
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), help="Also write the changes as a table (.csv).")
@dry_run_option
def change(
    map_a: str,
    map_b: str,
    out: Path,
    json_path: Path | None,
    csv_path: Path | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Write the change from the class map MAP_A to MAP_B, and show its areas from class to class.

    Classes are matched by name. An interrupted run resumes when the same command is called again.
    """
    from geopsp.assessment.change.compare_maps import compare_maps, plan_change
    from geopsp.assessment.result_files import check_results

    options = take(options, ChangeOptions)
    overwrite = options.get("overwrite", False)
    inputs = [map_a, map_b, *(str(options[n]) for n in ("confidence_a", "confidence_b", "reference") if n in options)]
    tables = check_results({".json": json_path, ".csv": csv_path}, inputs, overwrite=overwrite)
    rasters = [out, *([options["polygons"]] if "polygons" in options else [])]
    if dry_run:
        plan = plan_change(map_a, map_b, out, ChangeOptions(**options))
        show_plan(
            Plan(
                reads=inputs,
                notes=plan.lines,
                writes=[*rasters, *tables],
                max_bytes=plan.num_bytes,
                seconds=plan.seconds,
            )
        )
        return
    found = compare_maps(map_a, map_b, out, **options)
    show(found.text(), found.to_json())
    wrote(*rasters, *(found.save(path, overwrite=overwrite) for path in tables))
