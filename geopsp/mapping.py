"""From images and a model to a map, and its polygons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geopsp.classifier import PixelClassifier
from geopsp.errors import OptionError
from geopsp.inference import classify
from geopsp.outputs import check_output
from geopsp.package import load_package
from geopsp.polygons import check_vector_output, raster_to_polygons
from geopsp.progress import shown
from geopsp.scene import Images, Scene


def classify_pixels(
    images: Images,
    model: PixelClassifier | str | Path,
    out: str | Path,
    *,
    polygons: str | Path | None = None,
    probabilities: str | Path | None = None,
    bands: Sequence[str | int] | None = None,
    batch_size: int | None = None,
    padding: int | None = None,
    device: str | None = None,
    overwrite: bool = False,
) -> Path:
    """A map of one raster, or of many as one mosaic: classes on the grid of the first, nodata where nothing is valid.

    Args:
        images: A raster, a glob, a folder, or a list; where they overlap, earlier ones lie on top.
        model: A classifier, or the folder that one was saved to.
        out: The GeoTIFF to write.
        polygons: Also a vector file of the map (.gpkg, .parquet, .fgb, .geojson).
        probabilities: Also a GeoTIFF with one band a class.
        bands: The model's bands in the images, by name or number from 1; None: by the names that the model knows.
        batch_size: Tiles at a time; None: 4.
        padding: Pixels at each edge of a tile that its neighbour shows too; None: a quarter of the tile.
        device: As torch names it; None: the first GPU, else the CPU.
        overwrite: True may replace outputs.

    Raises:
        InputNotFoundError, RasterError, GridError, BandError, PackageError, OptionError, OutputError: as the input is.
    """
    if isinstance(model, PixelClassifier):
        trained, device = model.model, device or model.device
    else:
        trained = load_package(model)
    if bands is not None and len(bands) != len(trained.bands):
        raise OptionError(f"{len(bands)} bands were given; the model needs {', '.join(trained.bands)}, in this order.")
    scene = Scene.open(images, bands=bands if bands is not None else trained.bands)
    places = [Path(place) for place in (out, polygons, probabilities) if place is not None]
    if len({place.resolve() for place in places}) < len(places):
        raise OptionError(f"Two outputs have the same name: {', '.join(map(str, places))}. Give each its own.")
    inputs = {Path(source.path).resolve() for source in scene.sources}
    for place in places:
        if place.resolve() in inputs:
            raise OptionError(f"{place} is an image to be mapped; it would be lost. Give the output another name.")
    if polygons is not None:
        check_vector_output(polygons, overwrite=overwrite)
    for place in places:
        check_output(place, overwrite=overwrite)
    with shown("Mapping") as progress:
        classify(
            scene,
            trained,
            out,
            probabilities=probabilities,
            batch_size=batch_size,
            padding=padding,
            device=device,
            overwrite=overwrite,
            progress=progress,
        )
    if polygons is not None:
        raster_to_polygons(out, polygons, overwrite=overwrite)
    return Path(out)
