"""The shell's commands `geopsp predict` and `geopsp polygonize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geopsp.cli.inputs import images_argument
from geopsp.cli.options import dry_run_option, options_of, take
from geopsp.cli.plan import Plan, show_plan
from geopsp.cli.results import wrote
from geopsp.cli.shell_command import ShellCommand
from geopsp.core.addresses import ending_of
from geopsp.inference.options import MapOptions
from geopsp.models.crf import CRFOptions
from geopsp.polygons.options import PolygonOptions, PolygonSettings
from geopsp.vector.formats import ENDINGS


@click.command(
    cls=ShellCommand,
    strict=True,
    records=True,
    stopped="Parts that are made are kept: the same command goes on from them.",
    examples=(
        "geopsp predict model scene.tif --out map.tif",
        "geopsp predict model 'tiles/*.tif' --out map.tif --polygons map.gpkg --min-area 50 --simplify 0.5",
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@images_argument
@click.option("--out", required=True, type=click.Path(), help="GeoTIFF (COG) to write; with --per-image a folder.")
@options_of(MapOptions)
@options_of(CRFOptions)
@options_of(PolygonSettings, unset=True)
def predict(model: Path, images: tuple[str, ...], out: str, **options: Any) -> None:
    """Classify IMAGEs with MODEL, as one mosaic or each by itself.

    MODEL is the folder of a saved model, its name on the Hugging Face Hub (hf://OWNER/NAME), or an ONNX file of
    `geopsp export`, which needs no PyTorch.
    An interrupted run resumes when the same command is called again. The options from --connectivity to --regularize
    say how --polygons are made.
    """
    from geopsp.inference.classify_pixels import classify_pixels, plan_maps
    from geopsp.inference.map_item import item_path
    from geopsp.inference.outputs import extra_outputs

    polygon_options, crf_options = take(options, PolygonSettings), take(options, CRFOptions)
    options = take(options, MapOptions)
    if crf_options:
        options["crf"] = CRFOptions(**crf_options)
    if polygon_options:
        options["polygon_options"] = polygon_options
    if options.get("dry_run"):
        plan = plan_maps(list(images), model, out, MapOptions(**options))
        cost = plan.cost
        inputs = [str(options[name]) for name in ("aoi",) if name in options]
        show_plan(
            Plan(
                reads=[model, images, *inputs],
                notes=plan.lines,
                writes=plan.outputs,
                max_bytes=cost.num_bytes,
                seconds=cost.seconds,
            )
        )
        return
    found: Any = classify_pixels(list(images), model, out, **options)
    maps = found if isinstance(found, list) else [found]
    wrote(
        *maps,
        *(options[name] for name in extra_outputs() if name in options),
        *(item_path(path) for path in maps if options.get("stac")),
    )


@click.command(
    cls=ShellCommand,
    strict=True,
    stopped="Nothing was written.",
    examples=("geopsp polygonize map.tif --out map.gpkg --min-area 50 --simplify 0.5 --drop background",),
)
@click.argument("raster", type=click.Path())
@click.option("--out", required=True, type=click.Path(path_type=Path), help=f"File to write: {ENDINGS}.")
@options_of(PolygonSettings, unset=True)
@options_of(PolygonOptions, only=("confidence", "nodata", "overwrite", "scheduler"))
@dry_run_option
def polygonize(raster: str, out: Path, dry_run: bool, **options: Any) -> None:
    """Write the regions of a class RASTER as polygons."""
    from geopsp.polygons.estimate_polygons import estimate_polygons
    from geopsp.polygons.raster_to_polygons import raster_to_polygons
    from geopsp.vector.write import check_vector_output

    options = take(options, PolygonOptions)
    if dry_run:
        check_vector_output(out, overwrite=options.get("overwrite", False))
        cost = estimate_polygons(raster, ending_of(out), PolygonOptions(**options))
        inputs = [raster, *([options["confidence"]] if "confidence" in options else [])]
        show_plan(Plan(reads=inputs, writes=[out], max_bytes=cost.num_bytes, seconds=cost.seconds))
        return
    raster_to_polygons(raster, out, **options)
    wrote(out)
