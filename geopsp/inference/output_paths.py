"""The files that a map is written to, and checks that none of them overwrites an input or another output."""

from __future__ import annotations

import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from geopsp.core.addresses import local_path, place_of, shown
from geopsp.core.file_endings import require_ending
from geopsp.core.legend import Legend
from geopsp.core.output import require_short_name
from geopsp.core.paths import is_remote
from geopsp.errors import OptionError
from geopsp.inference.map_item import item_path
from geopsp.inference.options import MapOptions, ProbabilityType
from geopsp.inference.outputs import OUTPUTS, extra_outputs
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.open import RASTER_ENDINGS, open_raster
from geopsp.raster.scene import Scene
from geopsp.raster.zarr_store import ZARR_ENDING

if TYPE_CHECKING:
    import geopandas as gpd

TIFF_ENDINGS = (".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class OutputPaths:
    """The files of one map; with a map for each image, the folders that they go into."""

    out: Path
    """Of the classes."""

    extra: Mapping[str, Path] = field(default_factory=dict)
    """Of the polygons and the other rasters, by the names of their options."""

    probability_type: ProbabilityType = "uint8"

    stac: bool = False
    """True if the map gets a STAC Item."""

    @classmethod
    def from_options(cls, out: str | Path, options: MapOptions) -> OutputPaths:
        """Return the paths that the options name."""
        extra = {name: local_path(path) for name, path in _extra_paths(options).items()}
        return cls(local_path(out), extra, options.probability_type, options.stac)

    @property
    def polygons(self) -> Path | None:
        return self.extra.get("polygons")

    @property
    def all_paths(self) -> list[Path]:
        return [self.out, *self.extra.values(), *([item_path(self.out)] if self.stac else [])]

    def for_image(self, name: str) -> OutputPaths:
        """Return the files of one image in these folders."""
        endings = {"polygons": ".gpkg"}
        extra = {output: folder / f"{name}{endings.get(output, '.tif')}" for output, folder in self.extra.items()}
        return replace(self, out=self.out / f"{name}.tif", extra=extra)

    def raster_specs(self, legend: Legend) -> tuple[RasterSpec, ...]:
        """Return the descriptions of the rasters, the classes first."""
        paths = {**self.extra, "classes": self.out}
        return tuple(
            output.spec(paths[name], legend, self.probability_type) for name, output in OUTPUTS.items() if name in paths
        )


def image_names(scenes: Sequence[Scene]) -> list[str]:
    """Return a file name for the map of each scene: its image's, with the folder's before it where names repeat.

    Blanks and signs become "_". Where that makes names equal, each gets a checksum of its full name.
    """
    paths = [Path(scene.layers[0].name.partition("?")[0]) for scene in scenes]
    names = [path.stem if path.suffix.lower() in RASTER_ENDINGS else path.name for path in paths]
    counts = Counter(names)
    full = [
        name if counts[name] == 1 else f"{path.resolve().parent.name}_{name}"
        for name, path in zip(names, paths, strict=True)
    ]
    plain = [re.sub(r"[^\w.+-]+", "_", name).strip("_") for name in full]
    counts = Counter(name.casefold() for name in plain)  # some disks do not tell A.tif from a.tif
    return [
        name if counts[name.casefold()] == 1 else f"{name}-{zlib.crc32(original.encode()):08x}"
        for name, original in zip(plain, full, strict=True)
    ]


def _extra_paths(options: MapOptions) -> dict[str, str | Path]:
    """Return the paths of the outputs beside the classes, by the names of their options."""
    return {name: path for name in extra_outputs() if (path := getattr(options, name)) is not None}


def raster_endings(name: str) -> tuple[str, ...]:
    """Return the endings that the file of an output can have."""
    return (*TIFF_ENDINGS, ZARR_ENDING) if name == "probabilities" else TIFF_ENDINGS


def check_names(out: str | Path, options: MapOptions) -> None:
    """Check that rasters are named as GeoTIFFs; with a map for each image, that no folder is a file.

    Raises:
        OptionError: if not.
    """
    for name, path in ({"out": out} | _extra_paths(options)).items():
        if options.per_image:
            if Path(path).is_file():
                raise OptionError(f"`{name}` is {path}, which is a file, but must be a folder: each image has its own.")
        elif str(path).endswith(("/", os.sep)):
            raise OptionError(
                f"`{name}` is {path}, a folder, but must be a file. For a map of each image use `per_image=True`."
            )
        elif name != "polygons":
            require_ending(path, *raster_endings(name), option=name)


def check_paths(
    maps: Sequence[OutputPaths],
    scenes: Sequence[Scene],
    *,
    aoi: str | Path | gpd.GeoDataFrame | None = None,
    model: Path | None = None,
) -> None:
    """Check that no file would be written twice, or over an input.

    Args:
        maps: The outputs of each map.
        scenes: The images.
        aoi: The area of interest, as the user named it.
        model: The folder of the model, if it was read from one.

    Raises:
        OptionError: if one would.
        OutputError: if a name is too long.
    """
    paths = [path for map_paths in maps for path in map_paths.all_paths]
    for path in paths:
        require_short_name(path)
    repeated = [path for path, count in Counter(map(place_of, paths)).items() if count > 1]
    if repeated:
        _require_different_images(scenes, len(maps))
        raise OptionError(
            f"Two outputs have the same name: {repeated[0]}. Give each its own name; map images that have the same "
            "name in separate calls."
        )
    inputs: dict[str | Path, str] = dict.fromkeys(_model_files(model), "part of the model")
    inputs |= dict.fromkeys(_area_files(aoi), "the area of interest")
    inputs |= dict.fromkeys(_image_files(scenes), "one of the images, or part of one")
    for path in paths:
        if (place := place_of(path)) in inputs:
            raise OptionError(
                f"The output {shown(path)} is {inputs[place]}, which would be lost. Give the output another name."
            )


def _require_different_images(scenes: Sequence[Scene], num_maps: int) -> None:
    """Raise OptionError if one image is given twice and each has its own map."""
    counts = Counter(tuple(source.path for source in scene.sources) for scene in scenes)
    for paths, count in counts.items():
        if num_maps > 1 and count > 1:
            raise OptionError(f"{paths[0]} is given {count} times, but each image has one map. Give it once.")


def _model_files(folder: Path | None) -> Iterator[str | Path]:
    if folder is not None:
        yield place_of(folder)
    if folder is not None and folder.is_dir():
        yield from (place_of(path) for path in folder.iterdir() if path.is_file())


def _area_files(aoi: str | Path | gpd.GeoDataFrame | None) -> Iterator[str | Path]:
    if isinstance(aoi, str | Path):
        from geopsp.vector.open import LAYER_SEPARATOR  # loads geopandas

        yield place_of(str(aoi).partition(LAYER_SEPARATOR)[0])


def _image_files(scenes: Iterable[Scene]) -> set[str | Path]:
    """Return the images' files and what they consist of: members of VRTs, also of VRTs in VRTs, and containers."""
    given = {source.path for scene in scenes for source in scene.sources}
    found: set[str] = set()
    pending = set(given)
    while pending:
        name = pending.pop()
        found.add(name)
        ending = Path(name).suffix.lower()
        has_members = ending == ".vrt" or (name in given and ending not in TIFF_ENDINGS)
        if has_members and not is_remote(name):
            with open_raster(name) as dataset:
                pending |= set(dataset.files) - found
    return {place_of(name) for name in found}
