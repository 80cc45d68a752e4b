"""The rasters that a prediction can give, and how each is stored."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import torch
from numpy.typing import NDArray

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.paths import is_remote
from geopsp.errors import OptionError
from geopsp.inference.blend import FULL, BlendedRows
from geopsp.inference.options import MapOptions, ProbabilityType
from geopsp.inference.tile_scores import SCORE_ONE
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.open import RASTER_ENDINGS, open_raster
from geopsp.raster.scene import Scene
from geopsp.vector.open import LAYER_SEPARATOR

STEPS = 254
"""A share is stored as round(254 p), with scale 1/254 and nodata 255."""


def classes(path: Path, legend: Legend) -> RasterSpec:
    """Class codes; 255 where nothing is known."""
    return RasterSpec("classes", path, ("class",), "uint8", IGNORE_INDEX, "mode", legend)


def share(name: str, path: Path) -> RasterSpec:
    """One band of shares, 0 to 1."""
    return RasterSpec(name, path, (name,), "uint8", IGNORE_INDEX, "mean", scale=1 / STEPS)


def probabilities(path: Path, legend: Legend, kind: ProbabilityType = "uint8") -> RasterSpec:
    """One band a class."""
    names = tuple(legend.names)
    if kind == "float16":
        return RasterSpec("probabilities", path, names, kind, np.nan, "mean")
    return RasterSpec("probabilities", path, names, kind, IGNORE_INDEX, "mean", scale=1 / STEPS)


EXTRA_OUTPUTS = ("polygons", "probabilities", "confidence", "disagreement")


TIFF = (".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class OutputPaths:
    """Where the map of one scene goes, and all that is made with it; or folders of those of many."""

    out: Path
    polygons: Path | None = None
    probabilities: Path | None = None
    confidence: Path | None = None
    disagreement: Path | None = None
    probability_type: ProbabilityType = "uint8"

    @classmethod
    def from_options(cls, out: str | Path, options: MapOptions) -> OutputPaths:
        """Return the paths that the options name."""
        given = {name: Path(path) for name in EXTRA_OUTPUTS if (path := getattr(options, name)) is not None}
        return cls(Path(out), **given, probability_type=options.probability_type)

    @property
    def places(self) -> list[Path]:
        """All files."""
        return [self.out, *(place for name in EXTRA_OUTPUTS if (place := getattr(self, name)) is not None)]

    def for_image(self, name: str) -> OutputPaths:
        """The files of one image in these folders."""
        files = {its: f"{name}.gpkg" if its == "polygons" else f"{name}.tif" for its in EXTRA_OUTPUTS}
        inside = {its: folder / files[its] for its in EXTRA_OUTPUTS if (folder := getattr(self, its)) is not None}
        return replace(self, out=self.out / f"{name}.tif", **inside)

    def products(self, legend: Legend) -> tuple[RasterSpec, ...]:
        """The rasters, the classes first."""
        found = [classes(self.out, legend)]
        if self.probabilities is not None:
            found.append(probabilities(self.probabilities, legend, self.probability_type))
        found += [share(name, place) for name in ("confidence", "disagreement") if (place := getattr(self, name))]
        return tuple(found)


def image_names(scenes: Sequence[Scene]) -> list[str]:
    """What the map of each scene is called: like its image, where several are called so with the folder before it."""
    paths = [Path(scene.layers[0].name.partition("?")[0]) for scene in scenes]
    names = [path.stem if path.suffix.lower() in RASTER_ENDINGS else path.name for path in paths]
    seen = Counter(names)
    full = [
        name if seen[name] == 1 else f"{path.resolve().parent.name}_{name}"
        for name, path in zip(names, paths, strict=True)
    ]
    return [re.sub(r"[^\w.+-]+", "_", name).strip("_") for name in full]


def check_names(out: str | Path, options: MapOptions) -> None:
    """Nothing, if the rasters are named as GeoTIFFs are; of images by themselves, if they can be folders.

    Raises:
        OptionError: if not.
    """
    given = {"out": out} | {name: path for name in EXTRA_OUTPUTS if (path := getattr(options, name)) is not None}
    for name, place in given.items():
        if options.per_image:
            if Path(place).is_file():
                raise OptionError(
                    f"{name} is {place}, which is a file; needed a folder, as each image has its own map."
                )
        elif str(place).endswith(("/", os.sep)):
            raise OptionError(f"{name} is {place}, a folder; needed a file. For a map of each image give per_image.")
        elif name != "polygons" and Path(place).suffix.lower() not in TIFF:
            raise OptionError(f"{name} is {place}; needed a name that ends in .tif or .tiff.")


def check_places(
    order: Sequence[OutputPaths],
    scenes: Sequence[Scene],
    *,
    aoi: str | Path | gpd.GeoDataFrame | None = None,
    model: Path | None = None,
) -> None:
    """Nothing, if no file would be written twice, or over one that is read.

    Args:
        order: Where all goes.
        scenes: What is mapped.
        aoi: The area of interest, as the user named it.
        model: The folder of the model, if it was read from one.

    Raises:
        OptionError: if one would.
    """
    places = [place for targets in order for place in targets.places]
    twice = [place for place, count in Counter(place.resolve() for place in places).items() if count > 1]
    if twice:
        _require_once(scenes, len(order))
        raise OptionError(
            f"Two outputs have the same name: {twice[0]}. Give each its own; of images with one name, map some apart."
        )
    inputs = dict.fromkeys(_model_files(model), "of the model")
    inputs |= dict.fromkeys(_area_files(aoi), "the area of interest")
    inputs |= dict.fromkeys(_image_files(scenes), "an image to be mapped, or part of one")
    for place in places:
        if place.resolve() in inputs:
            raise OptionError(f"{place} is {inputs[place.resolve()]}; it would be lost. Give the output another name.")


def _require_once(scenes: Sequence[Scene], maps: int) -> None:
    """Raises OptionError if each is mapped by itself and one image was given twice."""
    seen = Counter(tuple(source.path for source in scene.sources) for scene in scenes)
    for paths, count in seen.items():
        if maps > 1 and count > 1:
            raise OptionError(f"{paths[0]} is given {count} times; needed once, as each image has one map.")


def _model_files(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder.resolve()
        yield from (path.resolve() for path in folder.iterdir() if path.is_file())


def _area_files(aoi: str | Path | gpd.GeoDataFrame | None) -> Iterator[Path]:
    if isinstance(aoi, str | Path):
        yield Path(str(aoi).partition(LAYER_SEPARATOR)[0]).resolve()


def _image_files(scenes: Iterable[Scene]) -> set[Path]:
    """The images' files, and those that these are made of: members of VRTs, also of VRTs in VRTs, and containers."""
    named = {source.path for scene in scenes for source in scene.sources}
    found: set[str] = set()
    left = set(named)
    while left:
        name = left.pop()
        found.add(name)
        ending = Path(name).suffix.lower()
        if (ending == ".vrt" or (name in named and ending not in TIFF)) and not is_remote(name):
            with open_raster(name) as dataset:
                left |= set(dataset.files) - found
    return {Path(name).resolve() for name in found}


def encode_output(product: RasterSpec, finished: BlendedRows, valid: NDArray[np.bool_], legend: Legend) -> NDArray[Any]:
    """(bands, rows, cols) pixels of a product, nodata where there is no ground."""
    if product.name == "classes":
        codes = legend.indices_to_codes(finished.index.cpu().numpy())
        return (codes if valid.all() else np.where(valid, codes, np.uint8(IGNORE_INDEX)))[None]
    if product.name == "disagreement":
        assert finished.agreed is not None
        shares = (1 - finished.agreed / SCORE_ONE)[None]
    else:
        sums = finished.sums.amax(dim=0, keepdim=True) if product.name == "confidence" else finished.sums
        shares = sums / FULL
    if product.dtype == "uint8":
        shares = shares.mul_(STEPS).add_(0.5).clamp_(0, STEPS).to(torch.uint8)
    pixels = shares.cpu().numpy().astype(product.dtype, copy=False)
    return np.where(valid, pixels, np.array(product.nodata, product.dtype))
