"""One map as a job: what makes it another one, where its parts lie, and what of it is done.

While a map is made, the folder `.partial-NAME` lies beside its place:

    job.json         what is being made, by its key
    KEY-WxH/model/   the model, where other machines help; W x H pixels is a part
    KEY-WxH/parts/   NUMBER.PRODUCT; a file that is there is whole, and its part done
    KEY-WxH/done/    the finished products on their way out
    publish          all of them are whole, and are being moved to their places

A kill at any moment leaves this folder, and the same command goes on from it, with the parts of the first run. Another
model, input or option has another key, and begins anew; what was made for one key is never taken for another's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import geopandas as gpd
import rasterio
from rasterio.errors import RasterioError

from geopsp.core.legend import Legend
from geopsp.core.output import check_output, partial_path, write_errors
from geopsp.errors import RasterError
from geopsp.inference.options import MapSettings
from geopsp.inference.part_size import part_height, part_width, split_for_threads
from geopsp.inference.tile_plan import TilePlan
from geopsp.labels.area import AreaOfInterest
from geopsp.models.build import check_tile_size
from geopsp.models.saved_model import TrainedModel
from geopsp.raster.cog.part_file import is_complete
from geopsp.raster.cog.part_grid import BLOCK, PartGrid
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.mosaic import layers_identity
from geopsp.raster.scene import Scene

logger = logging.getLogger(__name__)

VERSION = 1


KEY_TAG, MODEL_TAG = "GEOPSP_JOB", "GEOPSP_MODEL"


AreaSource: TypeAlias = str | Path | gpd.GeoDataFrame


class LazyAreaOfInterest:
    """An area of interest, as the user named it; opened when it is first asked for, once in each process."""

    def __init__(self, named: AreaSource) -> None:
        self.named = named
        self._area: AreaOfInterest | None = None

    def area(self) -> AreaOfInterest:
        """The polygons.

        Raises:
            InputNotFoundError, LabelError: as `Area.read`.
        """
        if self._area is None:
            self._area = AreaOfInterest.read(self.named)
        return self._area

    def __reduce__(self) -> tuple[type[LazyAreaOfInterest], tuple[AreaSource]]:
        return LazyAreaOfInterest, (self.named,)


@dataclass(frozen=True, slots=True, eq=False)
class MapJob:
    """All that is needed to make a map, but the network; can be sent to other machines."""

    scene: Scene
    tiles: TilePlan
    parts: PartGrid
    legend: Legend
    products: tuple[RasterSpec, ...]
    """The classes first."""

    settings: MapSettings
    """With a tile size and a padding."""

    bf16: bool
    """True runs the network in bfloat16."""

    excluded_channels: tuple[int, ...]
    """Channels that are never predicted."""

    aoi: LazyAreaOfInterest | None
    key: str
    """Another one if anything is that the map depends on, but for the number of tiles at a time; not of its parts."""

    model: str
    """Which model it is, in words."""

    inputs: tuple[str, ...]
    """What tells the images and the area from others."""

    @property
    def out(self) -> Path:
        """Where the class raster shall appear."""
        return self.products[0].path

    @property
    def folder(self) -> Path:
        return partial_path(self.out)

    @property
    def _own(self) -> Path:
        """What is made for this very key, in parts of these sides."""
        return self.folder / f"{self.key[:16]}-{self.parts.part_width}x{self.parts.part_height}"

    @property
    def model_folder(self) -> Path:
        """Where other machines find the model."""
        return self._own / "model"

    @property
    def tags(self) -> dict[str, str]:
        """What the rasters say of themselves."""
        return {MODEL_TAG: self.model, KEY_TAG: self.key}

    def area(self) -> AreaOfInterest | None:
        """The area of interest, opened."""
        return None if self.aoi is None else self.aoi.area()

    def with_parts(self, threads: int = 1) -> MapJob:
        """The job in the parts that it was begun with; if it was not, as suits so many threads, wherever they are."""
        told = _json(self.folder / "job.json")
        if told.get("key") == self.key:
            width, height = told["part"]
            parts = replace(self.parts, part_width=width, part_height=height)
        else:
            parts = split_for_threads(self.parts, self.tiles, threads)
        return replace(self, parts=parts)

    def part_path(self, product: RasterSpec, number: int) -> Path:
        return self._own / "parts" / f"{number:06d}.{product.name}"

    def sieved_path(self, number: int) -> Path:
        """Where a part of the class raster lies after the sieve."""
        return self._own / "sieved" / f"{number:06d}"

    def staged_path(self, product: RasterSpec) -> Path:
        """Where a finished product waits until all are."""
        return self._own / "done" / f"{product.name}.tif"

    def has(self, number: int) -> bool:
        """True if a part is done."""
        window = self.parts.part(number).window
        return all(
            is_complete(
                self.part_path(product, number),
                window.width,
                window.height,
                product,
                block=self.parts.block,
                levels=self.parts.levels,
            )
            for product in self.products
        )

    def missing(self) -> list[int]:
        """Numbers of the parts that are not done."""
        return [number for number in range(len(self.parts)) if not self.has(number)]

    @property
    def done(self) -> bool:
        """True if all rasters are at their places, made by the same job."""
        return all(product.path.is_file() and _key_of(product.path) == self.key for product in self.products)

    @property
    def publishing(self) -> bool:
        """True if all products are whole, and some may be at their places."""
        told = _json(self.folder / "publish")
        return told == self._publication

    @property
    def only_folder_left(self) -> bool:
        """True if nothing but the folder is left of a job that is done: a kill came as it was being removed."""
        return self.folder.is_dir() and _json(self.folder / "job.json").get("key") in (None, self.key) and self.done

    @property
    def _publication(self) -> dict[str, Any]:
        return {"key": self.key, "places": [str(product.path) for product in self.products]}

    def publish(self) -> None:
        """From now on the products are on their way to their places."""
        fresh = self.folder / "publish.new"
        fresh.write_text(json.dumps(self._publication), encoding="utf-8")
        fresh.replace(self.folder / "publish")

    def check(self, *, overwrite: bool) -> None:
        """Nothing, if all outputs can be written.

        Raises:
            OutputError: if one exists and `overwrite` is False, or cannot be written.
        """
        with write_errors(self.out):
            overwrite = overwrite or self.publishing or self.only_folder_left
        for product in self.products:
            check_output(product.path, overwrite=overwrite)

    def require_same_inputs(self) -> None:
        """Nothing, if the images and the area are those that the job was planned with.

        Raises:
            RasterError: if they are others.
        """
        now = _inputs(self.scene, self.aoi)
        if now != self.inputs:
            changed = sorted(set(now) ^ set(self.inputs))
            raise RasterError(
                f"An image or the area is not the one that the map was begun with, or was changed meanwhile: "
                f"{changed[0]}. Give the same command again when it is complete; on a cluster, full paths on a disk "
                "that all machines share."
            )

    def begin(self, batch_size: int) -> int:
        """The folder is there, with what is done of this very job and nothing else; gives the tiles at a time.

        Where nobody asked for a number, it is the one with which the job was begun.
        """
        told = _json(self.folder / "job.json")
        part = [self.parts.part_width, self.parts.part_height]
        if told.get("key") != self.key or told["part"] != part:
            if told:
                logger.info(f"What was begun of {self.out} had another model, input or option; it is thrown away.")
            self.clear()
            told = {"version": VERSION, "key": self.key, "part": part, "model": self.model, "batch_size": batch_size}
        for name in ("done", "sieved"):
            shutil.rmtree(self._own / name, ignore_errors=True)
        for name in ("parts", "done", "sieved"):
            (self._own / name).mkdir(parents=True, exist_ok=True)
        for torn in (self._own / "parts").glob(".*"):
            torn.unlink()
        (self.folder / "publish").unlink(missing_ok=True)
        told["batch_size"] = self.settings.batch_size or int(told["batch_size"])
        fresh = self.folder / "job.json.new"
        fresh.write_text(json.dumps(told), encoding="utf-8")
        fresh.replace(self.folder / "job.json")
        return int(told["batch_size"])

    def clear(self) -> None:
        """The folder is gone: first that it is being published, last what it is of, so that a kill leaves no riddle."""
        if not self.folder.is_dir():
            self.folder.unlink(missing_ok=True)
            return
        (self.folder / "publish").unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "job.json":
                path.unlink()
        (self.folder / "job.json").unlink(missing_ok=True)
        self.folder.rmdir()

    def remove_if_empty(self) -> None:
        """A folder with nothing in it to go on from is gone."""
        if self.folder.is_dir() and not any((self._own / "parts").glob("*")):
            self.clear()

    @property
    def batch_size(self) -> int:
        """Tiles at a time, of a job that has begun."""
        return int(_json(self.folder / "job.json")["batch_size"])


def _json(path: Path) -> dict[str, Any]:
    """What a file of ours says; nothing if it is not there or torn."""
    try:
        told: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _key_of(path: Path) -> str | None:
    """The key of the job that made a raster."""
    try:
        with rasterio.open(path) as dataset:
            found: str | None = dataset.tags().get(KEY_TAG)
            return found
    except RasterioError:
        return None


def _inputs(scene: Scene, aoi: LazyAreaOfInterest | None) -> tuple[str, ...]:
    """As they are now."""
    return (*scene.fingerprint(), *([] if aoi is None else aoi.area().fingerprint()))


def plan_job(
    scene: Scene,
    model: TrainedModel,
    products: Sequence[RasterSpec],
    settings: MapSettings,
    *,
    bf16: bool = False,
    aoi: LazyAreaOfInterest | None = None,
    part_side: int | None = None,
    block: int = BLOCK,
) -> MapJob:
    """The job that these make; nothing is written.

    Args:
        scene: What to map, its bands in the model's order.
        model: What is asked for its identity, classes and tile size.
        products: The class raster first.
        settings: As the user gave them.
        bf16: True runs the network in bfloat16.
        aoi: Polygons outside of which there is no map.
        part_side: Pixels along a part, a multiple of `block`; None: as suits the scene.
        block: Side of the blocks that rasters are stored in.

    Raises:
        OptionError, ModelError: as the settings are.
        OptionError: if the background shall not be predicted and there is none.
        LabelError, GridError: if the area cannot be read or misses the scene.
    """
    size = settings.tile_size or model.tile_size
    check_tile_size(size)
    padding = size // 4 if settings.padding is None else settings.padding
    width = part_side or part_width(scene, size, products, len(model.legend), block)
    height = part_side or part_height(scene)
    tiles = TilePlan(scene.grid.width, scene.grid.height, size, padding)
    parts = PartGrid(scene.grid.width, scene.grid.height, width, height, block)
    unwanted = model.excluded_channels(background=settings.predict_background)
    if aoi is not None:
        aoi.area().require_overlap(scene.grid)
    identity, inputs = model.fingerprint(), _inputs(scene, aoi)
    more = [inputs, bf16, unwanted, identity, model.legend.to_json()]
    key = _key(scene, [size, padding, block], products, settings, more)
    words = f"{model.composition}; tiles of {size}; bands {', '.join(model.bands)}; sha256 {identity}"
    placed = tuple(replace(product, path=product.path.absolute()) for product in products)
    return MapJob(scene, tiles, parts, model.legend, placed, settings, bf16, unwanted, aoi, key, words, inputs)


def _key(
    scene: Scene, tiling: list[int], products: Sequence[RasterSpec], settings: MapSettings, more: Sequence[Any]
) -> str:
    """Another one if anything is that the pixels depend on, but the number of tiles at a time."""
    grid = scene.grid
    lattice = [grid.crs.to_wkt(), *grid.transform[:6], grid.width, grid.height]
    asked = {name: value for name, value in asdict(settings).items() if name not in ("batch_size", "precision")}
    wanted = [[product.name, product.dtype, len(product.bands)] for product in products]
    read = [layers_identity(scene.layers), scene.bands, lattice, scene.resampling.name]
    text = json.dumps([VERSION, read, tiling, asked, wanted, *more], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
