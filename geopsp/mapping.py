"""From images and a model to maps, and their polygons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import geopandas as gpd
import torch

from geopsp.classifier import PixelClassifier
from geopsp.errors import LabelError, OptionError, RasterError
from geopsp.labels import Area
from geopsp.maps.cluster import connect
from geopsp.maps.cost import check_size, forecast
from geopsp.maps.fit import resolve
from geopsp.maps.job import MapJob, plan_job
from geopsp.maps.making import make_map
from geopsp.maps.preflight import differences
from geopsp.maps.products import ProbabilityType
from geopsp.maps.settings import MapSettings, Precision, check_types
from geopsp.maps.targets import Targets, check_names, check_places, image_names
from geopsp.models.build import device_words, pick_device
from geopsp.package import TrainedModel, load_package
from geopsp.polygons.files import check_vector_output
from geopsp.polygons.settings import PolygonOptions, PolygonSettings
from geopsp.progress import say, shown
from geopsp.scene import Images, Scene, open_scenes


class MapOptions(TypedDict, total=False):
    """What may be asked of a map, by keyword; each may be left out."""

    polygons: str | Path | None
    """Also a vector file of the map (.gpkg, .parquet, .fgb, .geojson, .shp)."""

    polygon_options: PolygonOptions
    """How they are made: options of `raster_to_polygons`, but its confidence, which is that of the map if asked for."""

    probabilities: str | Path | None
    """Also a GeoTIFF with one band a class."""

    probability_type: ProbabilityType
    """"uint8" (the default): round(254 p), nodata 255; "float16": p itself, nodata NaN."""

    confidence: str | Path | None
    """Also a GeoTIFF of the probability of the class that was chosen."""

    disagreement: str | Path | None
    """Also a GeoTIFF of how far overlapping tiles differ: the share of their probabilities that they do not share."""

    bands: Sequence[str | int] | None
    """The model's bands in the images, by name or number from 1; None: by the names that the model knows."""

    extent: Sequence[float] | None
    """Left, bottom, right and top, in the CRS of the first image, beyond which nothing is mapped; None: all."""

    aoi: str | Path | gpd.GeoDataFrame | None
    """Polygons outside of which the map holds nodata: FILE, FILE|layername=LAYER or a GeoDataFrame."""

    cell_size: float | None
    """Side of a pixel in CRS units, to which images are resampled; None: as they are."""

    order: str
    """Which image lies on top: "given" (the default), "newest", "oldest", or a field; "-field": its largest first."""

    tile_size: int | None
    """Side of a tile in pixels; None: as the model was trained, which is what pyramid pooling needs."""

    padding: int | None
    """Pixels by which tiles overlap; None: a quarter of a tile."""

    batch_size: int | None
    """Tiles at a time; None: what fits."""

    test_time_augmentation: bool
    """True shows each tile in its eight symmetries and takes the mean. Default: False."""

    predict_background: bool
    """False never predicts the class background, but what comes next. Default: True."""

    sieve: int
    """Regions of fewer pixels join their largest neighbour; 0 (the default): none."""

    precision: Precision
    """"fp32", "bf16", or "auto" (the default): bf16 where processor or GPU have it in hardware."""

    compiled: bool
    """True compiles the network first: minutes before, less time for each tile. Default: False."""

    device: str | None
    """As torch names it; None: the first GPU, else the CPU."""

    client: Any
    """A Dask client, on whose workers the map is made."""

    scheduler: str | None
    """The address of a Dask scheduler instead ("tcp://host:port"), or "local": a process for each GPU or core here."""

    overwrite: bool
    """True may replace outputs. Default: False."""


SETTINGS = tuple(field.name for field in fields(MapSettings))


@overload
def classify_pixels(
    images: Images,
    model: PixelClassifier | str | Path,
    out: str | Path,
    *,
    per_image: Literal[False] = False,
    **options: Unpack[MapOptions],
) -> Path: ...


@overload
def classify_pixels(
    images: Images,
    model: PixelClassifier | str | Path,
    out: str | Path,
    *,
    per_image: Literal[True],
    **options: Unpack[MapOptions],
) -> list[Path]: ...


def classify_pixels(
    images: Images,
    model: PixelClassifier | str | Path,
    out: str | Path,
    *,
    per_image: bool = False,
    **options: Unpack[MapOptions],
) -> Path | list[Path]:
    """A map of one image, or of many as one mosaic: classes on the grid of the first, nodata where nothing is valid.

    A run that was broken off goes on where it was when it is called again.

    Args:
        images: A raster, a glob, a folder, a list ...; where they overlap, earlier ones lie on top.
        model: A classifier, or the folder that one was saved to.
        out: The GeoTIFF (COG) to write.
        per_image: True maps each image by itself; then `out` and all other outputs are folders, of files named like
            the images, and the list of maps is returned. Maps that are there from the same call are kept, and so are
            their polygons; `overwrite` traces these anew.
        options: See `MapOptions`.

    Raises:
        InputNotFoundError, RasterError, GridError, BandError, LabelError: as the input is.
        PackageError, ModelError: if the model is damaged, or cannot take such tiles.
        OptionError: if an option is out of range, or the model has no background that could be left out.
        OutputError: if an output exists and `overwrite` is False, or cannot be written.
    """
    _check_options(options)
    check_types({**options, "out": out, "per_image": per_image})
    check_names(out, options, per_image=per_image)
    trained, device = _opened(model, options.get("device"))
    asked: dict[str, Any] = {name: value for name, value in options.items() if name in SETTINGS}
    settings = MapSettings(**asked)
    trained.unwanted(background=settings.predict_background)
    _check_polygons(options).wanted(trained.legend)
    targets = Targets.of(out, options)
    scenes = _scenes(images, trained, per_image=per_image, options=options)
    order = [targets.of_image(name) for name in image_names(scenes)] if per_image else [targets]
    folder = None if isinstance(model, PixelClassifier) else Path(model)
    check_places(order, scenes, aoi=options.get("aoi"), model=folder)
    run = _Run(trained, settings, pick_device(device), device, options)
    return run.each(scenes, order) if per_image else run.whole(scenes[0], targets)


def _check_options(options: Mapping[str, Any]) -> None:
    unknown = sorted(set(options) - set(MapOptions.__annotations__))
    if unknown:
        known = ", ".join(sorted((*MapOptions.__annotations__, "per_image")))
        raise OptionError(f"No such option: {', '.join(unknown)}; there are {known}.")
    if options.get("client") is not None and options.get("scheduler") is not None:
        raise OptionError("client and scheduler are both given; needed one of them. Leave the other out.")


def _check_polygons(options: MapOptions) -> PolygonSettings:
    """What is asked of the polygons.

    Raises:
        OptionError: if that cannot be, or there shall be none.
    """
    asked: Any = options.get("polygon_options", {})
    known = [field.name for field in fields(PolygonSettings)]
    if not isinstance(asked, Mapping) or set(asked) - set(known):
        raise OptionError(f"polygon_options is {asked!r}; needed a dict with any of {', '.join(known)}.")
    if asked and options.get("polygons") is None:
        raise OptionError(f"{', '.join(asked)}: these say how polygons are made. Name their file too (polygons).")
    return PolygonSettings(**asked)


def _opened(model: PixelClassifier | str | Path, device: str | None) -> tuple[TrainedModel, str | None]:
    if isinstance(model, PixelClassifier):
        return model.model, device or model.device
    if not (isinstance(model, str | Path) and str(model)):
        raise OptionError(f"The model is {model!r}; needed a classifier, or the folder that one was saved to.")
    return load_package(model), device


def _scenes(images: Images, model: TrainedModel, *, per_image: bool, options: MapOptions) -> list[Scene]:
    """What to map, with the model's bands; images that the area of interest misses are left out."""
    bands = options.get("bands")
    if bands is not None and len(bands) != len(model.bands):
        raise OptionError(f"{len(bands)} bands were given; the model needs {', '.join(model.bands)}, in this order.")
    asked = {name: value for name, value in options.items() if name in {"cell_size", "extent", "order"}}
    chosen = model.bands if bands is None else bands
    scenes = open_scenes(images, bands=chosen, per_image=per_image, **asked)  # type: ignore[arg-type]
    for scene in scenes:
        check_size(scene)
    return scenes if options.get("aoi") is None else _met(scenes, Area.read(options["aoi"]))


def _met(scenes: Sequence[Scene], area: Area) -> list[Scene]:
    """The scenes that the area touches.

    Raises:
        LabelError: if it touches none.
    """
    errors: dict[str, LabelError] = {}
    for scene in scenes:
        try:
            area.require_overlap(scene.grid)
        except LabelError as error:
            errors[scene.name] = error
    if len(errors) == len(scenes):
        raise next(iter(errors.values()))
    for name in errors:
        say(f"Note: {name} lies outside of {area.source} and is left out.")
    return [scene for scene in scenes if scene.name not in errors]


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One call: the model, and what was asked for."""

    model: TrainedModel
    settings: MapSettings
    where: torch.device
    device: str | None
    options: MapOptions

    @property
    def overwrite(self) -> bool:
        return self.options.get("overwrite", False)

    def whole(self, scene: Scene, targets: Targets) -> Path:
        """The scene's map is there."""
        job = self._job(scene, targets)
        self._check(job, targets)
        if not job.done or job.left_over or _traced(targets):
            with self._client() as client:
                self._map(job, client)
        self._trace(targets)
        return targets.out

    def each(self, scenes: Sequence[Scene], order: Sequence[Targets]) -> list[Path]:
        """A map of each scene is there; those that are there from the same call stay.

        Raises:
            RasterError: if images cannot be read, when the others are mapped.
        """
        jobs = [self._job(scene, targets) for scene, targets in zip(scenes, order, strict=True)]
        there = [job.done and _traced(its) for job, its in zip(jobs, order, strict=True)]
        if any(there):
            say(f"{sum(there)} of {len(jobs)} images are mapped already, from the same call; {self._what_stays()}.")
        stay = [whole and not self._retraced for whole in there]
        left = [(job, its) for job, its, stays in zip(jobs, order, stay, strict=True) if not stays]
        for job, targets in left:
            self._check(job, targets)
        damaged: list[RasterError] = []
        with self._client() as client:
            for job, targets in left:
                try:
                    if not job.done:
                        self._map(job, client)
                    self._trace(targets)
                except RasterError as error:
                    say(f"Note: {job.scene.name} is not mapped: {error}")
                    damaged.append(error)
        if damaged:
            raise RasterError(f"{len(damaged)} of {len(jobs)} images could not be mapped; the first: {damaged[0]}")
        return [targets.out for targets in order]

    @property
    def _retraced(self) -> bool:
        """True if polygons are made anew though they are there, as other options may be asked of them now."""
        return self.overwrite and self.options.get("polygons") is not None

    def _what_stays(self) -> str:
        """Of images that are mapped, and traced if asked for."""
        if self._retraced:
            return "the maps stay, polygons are made anew"
        if self.options.get("polygon_options"):
            return "they stay, and so do their polygons, as they are: overwrite (--overwrite) makes these anew"
        return "they stay"

    def _job(self, scene: Scene, targets: Targets) -> MapJob:
        bf16 = resolve(self.settings.precision, self.where) == "bf16"
        products = targets.products(self.model.legend)
        return plan_job(scene, self.model, products, self.settings, bf16=bf16, aoi=self.options.get("aoi"))

    def _check(self, job: MapJob, targets: Targets) -> None:
        """Raises OutputError if an output exists and may not be replaced, OptionError if polygons cannot be such."""
        if targets.polygons is not None:
            check_vector_output(targets.polygons, overwrite=self.overwrite)
        if not job.done or _traced(targets):
            job.check(overwrite=self.overwrite)

    def _client(self) -> AbstractContextManager[Any]:
        scheduler = self.options.get("scheduler")
        return nullcontext(self.options.get("client")) if scheduler is None else connect(scheduler)

    def _map(self, job: MapJob, client: Any) -> None:
        where = device_words(self.where) if client is None else "the workers of a Dask cluster"
        grid = job.scene.grid
        say(f"Mapping {job.scene.name}, {grid.width} x {grid.height} pixels, on {where}")
        for note in self._notes(job, here=client is None):
            say(f"Note: {note}.")
        with shown("Mapping") as progress:
            make_map(job, self.model, device=self.device, client=client, overwrite=self.overwrite, progress=progress)

    def _trace(self, targets: Targets) -> None:
        if targets.polygons is not None:
            from geopsp.polygons.making import raster_to_polygons  # brings a compiler, which a map alone does not need

            asked = self.options.get("polygon_options", {}) | {"confidence": targets.confidence}
            raster_to_polygons(targets.out, targets.polygons, overwrite=self.overwrite, **asked)

    def _notes(self, job: MapJob, *, here: bool) -> Iterator[str]:
        yield from job.scene.notes
        yield from differences(job.scene, self.model, tile_size=self.settings.tile_size)
        yield from forecast(job, self.model, self.where, area=job.area(), here=here)


def _traced(targets: Targets) -> bool:
    """True if no polygons are asked for, or these are there and not older than the map that is there."""
    if targets.polygons is None:
        return True
    return targets.polygons.exists() and targets.polygons.stat().st_mtime_ns >= targets.out.stat().st_mtime_ns
