"""Suggest where to label next."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np

from geopsp.active_learning.candidates import LabelledGround, WindowGrid
from geopsp.active_learning.chip_features import chip_features
from geopsp.active_learning.journal import Journal, opened_journal
from geopsp.active_learning.options import Criterion, SuggestOptions
from geopsp.active_learning.prefilled_labels import MapPolygons, join_frames
from geopsp.active_learning.score_images import score_images
from geopsp.active_learning.score_windows import WindowScorer
from geopsp.active_learning.select_windows import Selection, select_windows
from geopsp.active_learning.tile_views import Floats, TileViews
from geopsp.core.grid import Window
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.lock import output_lock
from geopsp.core.options import describes, from_names, require_path
from geopsp.core.run_state import key_of
from geopsp.core.temporary_folder import scratch_folder
from geopsp.core.text import format_count
from geopsp.inference.classify_pixels import Classifier, named_model, open_model_scenes
from geopsp.inference.engines import MapModel, engine_of, opened_model
from geopsp.inference.input_check import compare_with_training
from geopsp.inference.job import MapJob
from geopsp.inference.options import EngineName, Precision
from geopsp.inference.output_paths import OutputPaths, check_paths
from geopsp.inference.plan_job import plan_job
from geopsp.inference.predict_parts import measure_cost
from geopsp.inference.resources import Resources
from geopsp.inference.tile_ops import Device
from geopsp.labels.lazy_area import LazyAreaOfInterest
from geopsp.models.hub_model import local_model
from geopsp.polygons.options import PolygonSettingsDict
from geopsp.raster.find_images import Images
from geopsp.raster.scene import Scene
from geopsp.vector.geopackage import check_package_output
from geopsp.vector.label_package import write_label_package

logger = logging.getLogger(__name__)

SHIFTED = 1
"""Shifted tiles for each window: most of them are shared by two."""


VERSION = 1
"""Part of the keys of runs."""


@describes(SuggestOptions)
def suggest_chips(
    model: Classifier | str | Path,
    images: Images,
    out: str | Path,
    *,
    number: int = 50,
    labelled: str | Path | gpd.GeoDataFrame | None = None,
    criterion: Criterion = "entropy",
    uncertainty_weight: float = 1.0,
    disagreement_weight: float = 0.5,
    novelty_weight: float = 1.0,
    rarity_weight: float = 0.5,
    symmetries: int = 2,
    tile_size: int | None = None,
    stride: int | None = None,
    min_valid: float = 0.5,
    max_labelled: float = 0.0,
    min_distance: float = 0.0,
    max_per_km2: float | None = None,
    seed: int = 42,
    polygon_options: PolygonSettingsDict | None = None,
    bands: Sequence[str | int] | None = None,
    aoi: str | Path | gpd.GeoDataFrame | None = None,
    cell_size: float | None = None,
    allow_resolution_mismatch: bool = False,
    batch_size: int | None = None,
    precision: Precision = "auto",
    device: str | None = None,
    engine: EngineName = "auto",
    overwrite: bool = False,
) -> Path:
    """Suggest windows of images where a label helps the model most, with its own map there to correct.

    Candidates are all windows of the grid that chips are cut on. Each has an uncertainty, a disagreement and a rarity,
    ranked from 0 to 1 among all of them, and a novelty: its distance in feature space from what is labelled or chosen.
    The windows are chosen one after the other, each with the largest weighted mean of the four; no two overlap.

    The GeoPackage has the layers `windows` (the squares, by rank), `labels` (the model's map in them, as polygons to
    correct) and `aoi` (the windows whose status is "done"). `export_training_data` takes it as labels and as area of
    interest. An interrupted run resumes when it is called again.

    Args:
        model: A classifier, the folder of a saved one, its name on the Hugging Face Hub (hf://OWNER/NAME), or an ONNX
            file that geopsp exported.
        images: A raster, a glob, a folder, a list ...; each is searched on its own grid.
        out: The GeoPackage to write (.gpkg).
        {options}

    Raises:
        InputNotFoundError, RasterError, GridError, BandError, LabelError, ChipError: as the input is, or if no window
            is left to suggest.
        PackageError, ModelError: if the model is damaged, or cannot take such tiles.
        OptionError: if an option is out of range, or `out` is no .gpkg.
        OutputError: if `out` exists and `overwrite` is False, it cannot be written, or another run writes to it.
    """
    find_windows(model, images, out, from_names(SuggestOptions, locals()))
    return Path(out)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What one needs to know to cut chips of the windows."""

    tile_size: int
    legend: Legend


def find_windows(
    model: Classifier | str | Path, images: Images, out: str | Path, options: SuggestOptions
) -> Suggestion:
    """Write the windows to label, as `suggest_chips`, and return how to cut chips of them."""
    with _opened_run(model, images, out, options) as run, output_lock(run.out):
        return Suggestion(run.write(), run.model.legend)


@dataclass(frozen=True, slots=True)
class SuggestionPlan:
    """What `suggest_chips` would do."""

    windows: int
    tile_size: int
    seconds: float

    @property
    def text(self) -> str:
        """What is searched, in words."""
        return f"{format_count(self.windows, 'window')} of {self.tile_size} x {self.tile_size} pixels."


def plan_windows(
    model: Classifier | str | Path, images: Images, out: str | Path, options: SuggestOptions
) -> SuggestionPlan:
    """Return what `suggest_chips` would do and cost, but write nothing; a few tiles are timed.

    Raises:
        GeopspError: as `suggest_chips`.
    """
    with _opened_run(model, images, out, options) as run:
        return run.plan()


@contextmanager
def _opened_run(
    model: Classifier | str | Path, images: Images, out: str | Path, options: SuggestOptions
) -> Iterator[_Run]:
    """Open model and images, and check the output."""
    require_path("out", out)
    if isinstance(model, str | Path) and str(model):
        model = local_model(model)
    named, used_device = named_model(model, options.device)
    with opened_model(named, options.engine, options.tile_size) as trained:
        options.polygon_settings.selected_codes(trained.legend)
        aoi_source = None if options.aoi is None else LazyAreaOfInterest(options.aoi)
        scenes = open_model_scenes(images, trained, aoi_source, options.map_options)
        folder = Path(model) if isinstance(model, str | Path) else None
        check_paths([OutputPaths(Path(out))], scenes, aoi=options.aoi, model=folder)
        check_paths([OutputPaths(Path(out))], scenes, aoi=options.labelled)
        target = check_package_output(out, overwrite=options.overwrite)
        yield _Run(trained, scenes, aoi_source, options, target, used_device)


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One call of `suggest_chips`."""

    model: MapModel
    scenes: Sequence[Scene]
    aoi: LazyAreaOfInterest | None
    options: SuggestOptions
    out: Path
    device: str | None

    def plan(self) -> SuggestionPlan:
        """Count the windows, and time a few tiles."""
        jobs, resources = self._jobs()
        size, stride, classes = jobs[0].tiles.size, self.options.stride, len(self.model.legend)
        windows = sum(len(WindowGrid.of(job.scene.grid, size=size, stride=stride, classes=classes)) for job in jobs)
        views = self._symmetries + SHIFTED if self._symmetries else 1
        cost = measure_cost(jobs[0], self.model, resources)
        return SuggestionPlan(windows, size, windows * views * cost.tile_seconds)

    def _jobs(self) -> tuple[list[MapJob], Resources]:
        """Return a job for each scene, and what they are computed with."""
        engine = engine_of(self.model)
        device = engine.pick_device(self.device)
        jobs = [self._job(scene, device) for scene in self.scenes]
        return jobs, Resources.for_job(jobs[0], self.model, device)

    def write(self) -> int:
        """Score, choose, and write the file; return the side of the windows in pixels."""
        engine, options = engine_of(self.model), self.options
        jobs, resources = self._jobs()
        labelled = None if options.labelled is None else LabelledGround.open(options.labelled)
        where = engine.device_name(resources.device)
        logger.info(f"Searching {', '.join(scene.name for scene in self.scenes[:3])} on {where}.")
        for scene in self.scenes:
            for warning in compare_with_training(scene, self.model, tile_size=options.tile_size):
                logger.warning(warning)
        with (
            TileViews(self.model, jobs[0], resources) as views,
            opened_journal(self.out, self._key(jobs, labelled)) as journal,
        ):
            self._tell_of_features(views)
            scorers = [self._scorer(job, views, labelled) for job in jobs]
            candidates = score_images(scorers, journal, threads=resources.threads)
            seen = self._seen(labelled, views, jobs[0].tiles.size, journal)
            selection = select_windows(candidates, seen, self.scenes, self.model.legend, jobs[0].tiles.size, options)
            labels = self._labels(selection, scorers)
            classes = self.model.legend.classes
            write_label_package(self.out, selection.table, labels, classes, overwrite=options.overwrite)
        return jobs[0].tiles.size

    def _job(self, scene: Scene, device: Device) -> MapJob:
        """Plan a map, which is never made: it says how tiles are predicted, and what they depend on."""
        rasters = OutputPaths(self.out).raster_specs(self.model.legend)
        settings = replace(self.options.map_options.settings, compiled=False)
        return plan_job(scene, self.model, rasters, settings, device=device, aoi=self.aoi)

    def _key(self, jobs: Sequence[MapJob], labelled: LabelledGround | None) -> str:
        """Return the key of all that the scores depend on."""
        options = self.options
        numbers = [options.stride, self._symmetries, options.min_valid, options.max_labelled, options.batch_size]
        return key_of([VERSION, [job.key for job in jobs], numbers, labelled and labelled.fingerprint()])

    @property
    def _symmetries(self) -> int:
        return self.options.symmetries if self.options.uses_views else 0

    def _tell_of_features(self, views: TileViews) -> None:
        if self.options.novelty_weight and not views.has_features:
            logger.warning(
                "This model gives no features (an ONNX file has none), so `novelty_weight` does not count, and "
                "suggestions may be alike. Use the folder of the saved model."
            )

    def _scorer(self, job: MapJob, views: TileViews, labelled: LabelledGround | None) -> WindowScorer:
        options, classes = self.options, len(self.model.legend)
        size = job.tiles.size
        return WindowScorer(
            scene=job.scene,
            area=None if self.aoi is None else self.aoi.area(),
            grid=WindowGrid.of(job.scene.grid, size=size, stride=options.stride, classes=classes),
            views=views,
            symmetries=self._symmetries,
            min_valid=options.min_valid,
            max_labelled=options.max_labelled,
            labelled=labelled,
            num_possible=classes - len(job.excluded_channels),
        )

    def _seen(self, labelled: LabelledGround | None, views: TileViews, size: int, journal: Journal) -> Floats:
        """Return the features of labelled chips, (n, d); none without a chip folder."""
        wanted = self.options.novelty_weight > 0 and views.has_features
        if labelled is None or labelled.chips is None or not wanted:
            return np.zeros((0, 0), np.float32)
        found = journal.read_features()
        if found is None:
            found = chip_features(labelled.chips, self.model, views, size)
            journal.write_features(found)
        return found

    def _labels(self, selection: Selection, scorers: Sequence[WindowScorer]) -> Any:
        """Return the model's map of the chosen windows as polygons."""
        legend, frames = self.model.legend, []
        with scratch_folder() as folder:
            maps = MapPolygons(legend, self.options.polygon_settings, folder)
            corners = zip(selection.scenes, selection.corners.tolist(), strict=True)
            for rank, (number, (col, row)) in enumerate(corners, 1):
                scorer = scorers[number]
                window = Window(col, row, scorer.grid.size, scorer.grid.size)
                mean, valid = scorer.mean_probabilities(window)
                codes = legend.indices_to_codes(mean.argmax(axis=0).astype(np.uint8))
                codes[~valid] = IGNORE_INDEX
                frames.append(maps.polygons(codes, scorer.scene.grid.crop(window), rank))
        return join_frames(frames, selection.table.crs)
