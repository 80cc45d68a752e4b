"""One map as a job: what it depends on, where its parts lie, and what is done.

While a map is made, the folder `.partial-NAME` lies beside its output:

    job.json         what is being made, by its key
    KEY-WxH/model/   the model, where other machines help; W x H pixels is a part
    KEY-WxH/parts/   NUMBER.RASTER; a file that is there is complete, and its part done
    KEY-WxH/done/    the finished rasters before they are moved to their places
    publish          all rasters are complete, and are being moved

A kill at any moment leaves this folder, and the same command resumes from it, with the parts of the first run. Another
model, input or option has another key, and starts over; what was made for one key is never used for another.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import rasterio
from pydantic import Field

from geopsp.core.grid import Window
from geopsp.core.legend import Legend
from geopsp.core.output import check_output, partial_path, write_errors
from geopsp.core.owned_files import FolderKind, require_owned
from geopsp.core.paths import gdal_path
from geopsp.core.run_state import read_state, write_state
from geopsp.core.schema import Schema, Sha256
from geopsp.errors import RasterError
from geopsp.inference.confidence import ConfidenceRules
from geopsp.inference.options import MapSettings, NetworkPrecision
from geopsp.inference.part_size import split_for_threads
from geopsp.inference.tile_plan import TilePlan
from geopsp.labels.lazy_area import LazyAreaOfInterest
from geopsp.models.crf import CRFParameters
from geopsp.raster.cog.part_file import is_complete
from geopsp.raster.cog.part_grid import PartGrid
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.legend_io import sidecar_path
from geopsp.raster.open import GDAL_ERRORS, read_tags
from geopsp.raster.scene import Scene

if TYPE_CHECKING:
    from geopsp.labels.area import AreaOfInterest

logger = logging.getLogger(__name__)

VERSION = 1
"""Part of the key and of job.json."""

MAX_BATCH = 2**20

PartSide = Annotated[int, Field(ge=1, lt=2**31)]


class JobState(Schema):
    """What job.json holds."""

    key: Sha256
    part: Annotated[list[PartSide], Field(min_length=2, max_length=2)]
    batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH)]


_OF_A_KEY = "[0-9a-f]*-[0-9]*x[0-9]*"

WORK_FOLDER = FolderKind(None, ("job.json", "publish", "order-*", *(_OF_A_KEY + "/*" * depth for depth in (1, 2, 3))))
"""The folder `.partial-NAME`."""


KEY_TAG, MODEL_TAG = "GEOPSP_JOB", "GEOPSP_MODEL"
"""Tags of the rasters."""


@dataclass(frozen=True, slots=True, eq=False)
class MapJob:
    """All that a map depends on, but the network; can be sent to other machines."""

    scene: Scene
    tiles: TilePlan
    parts: PartGrid
    legend: Legend
    rasters: tuple[RasterSpec, ...]
    """The classes first."""

    settings: MapSettings
    """With a tile size and a padding."""

    precision: NetworkPrecision
    compiled: bool
    """True compiles the network, which runs in `precision`."""

    excluded_channels: tuple[int, ...]
    """Channels that are never predicted."""

    aoi: LazyAreaOfInterest | None
    key: str
    """SHA-256 of all that the pixels depend on, but the batch size; it does not depend on the parts."""

    model: str
    """The model in words, with its fingerprint."""

    inputs: tuple[str, ...]
    """Fingerprints of the images and the area."""

    crf: CRFParameters | None = None
    confidence: ConfidenceRules = ConfidenceRules()  # noqa: RUF009 (frozen)

    @property
    def out(self) -> Path:
        """The path of the class raster."""
        return self.rasters[0].path

    @property
    def halo(self) -> int:
        """Pixels around a part that it depends on, beside its tiles."""
        return 0 if self.crf is None else self.crf.halo

    def num_tiles(self, window: Window) -> int:
        """Return the number of tiles that a window of the map is made of."""
        return self.tiles.count(window.pad(self.halo))

    @property
    def folder(self) -> Path:
        return partial_path(self.out)

    @property
    def _work_folder(self) -> Path:
        """The folder of this key and these parts."""
        return self.folder / f"{self.key[:16]}-{self.parts.part_width}x{self.parts.part_height}"

    @property
    def model_folder(self) -> Path:
        """Where other machines find the model."""
        return self._work_folder / "model"

    @property
    def _state_file(self) -> Path:
        return self.folder / "job.json"

    def _read_state(self) -> dict[str, Any]:
        """Return what job.json holds; {} if it is missing or damaged."""
        state = read_state(self._state_file, JobState)
        return {} if any(side % self.parts.block for side in state.get("part", ())) else state

    @property
    def _publish_file(self) -> Path:
        return self.folder / "publish"

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the rasters."""
        return {MODEL_TAG: self.model, KEY_TAG: self.key}

    def area(self) -> AreaOfInterest | None:
        """Return the area of interest, read."""
        return None if self.aoi is None else self.aoi.area()

    def with_parts(self, threads: int = 1) -> MapJob:
        """Return the job in the parts that it began with; if it has not begun, in parts that suit so many threads."""
        state = self._read_state()
        if state.get("key") == self.key:
            width, height = state["part"]
            parts = replace(self.parts, part_width=width, part_height=height)
        else:
            parts = split_for_threads(self.parts, self.tiles, threads, self.halo)
        return replace(self, parts=parts)

    def part_path(self, raster: RasterSpec, number: int) -> Path:
        return self._work_folder / "parts" / f"{number:06d}.{raster.name}"

    def sieved_path(self, number: int) -> Path:
        """Return the path of a part of the class raster after the sieve."""
        return self._work_folder / "sieved" / f"{number:06d}"

    def staged_path(self, raster: RasterSpec) -> Path:
        """Return where a finished raster waits until all are finished."""
        return self._work_folder / "done" / f"{raster.name}.tif"

    def has(self, number: int) -> bool:
        """Return whether a part is done."""
        window = self.parts.part(number).window
        return all(
            is_complete(
                self.part_path(raster, number),
                window.width,
                window.height,
                raster,
                block=self.parts.block,
                levels=self.parts.levels,
            )
            for raster in self.rasters
        )

    def missing(self) -> list[int]:
        """Return the numbers of the parts that are not done."""
        return [number for number in range(len(self.parts)) if not self.has(number)]

    @property
    def done(self) -> bool:
        """True if all rasters are in their places, made by the same job."""
        return all(raster.path.is_file() and _key_of_raster(raster.path) == self.key for raster in self.rasters)

    @property
    def publishing(self) -> bool:
        """True if all rasters are complete, and some may be in their places."""
        return read_state(self._publish_file) == self._publication

    @property
    def only_folder_left(self) -> bool:
        """True if the job is done, but was killed while its folder was removed."""
        key = read_state(self._state_file).get("key") if _is_real_folder(self.folder) else ""
        return key in (None, self.key) and self.done

    @property
    def _publication(self) -> dict[str, Any]:
        return {"key": self.key, "places": [str(raster.path) for raster in self.rasters]}

    def publish(self) -> None:
        """Record that all rasters are complete and are being moved to their places."""
        write_state(self._publish_file, self._publication)

    def check(self, *, overwrite: bool) -> None:
        """Check that all outputs can be written.

        Raises:
            OutputError: if one exists and `overwrite` is False, or cannot be written.
        """
        with write_errors(self.out):
            overwrite = overwrite or self.publishing or self.only_folder_left
        for raster in self.rasters:
            alone = not raster.path.exists()  # sidecars of an existing raster are replaced with it
            check_output(raster.path, overwrite=overwrite, companions=[sidecar_path(raster.path)] if alone else ())

    def require_same_inputs(self) -> None:
        """Check that the images and the area are those that the job was planned with.

        Raises:
            RasterError: if one has changed.
        """
        now = fingerprints(self.scene, self.aoi)
        if now != self.inputs:
            changed = sorted(set(now) ^ set(self.inputs))
            raise RasterError(
                f"An image or the area of interest has changed since the map was begun: {changed[0]}. Repeat the same "
                "command when it is complete; on a cluster use full paths on a disk that all machines share."
            )

    def begin(self, batch_size: int) -> int:
        """Make the folder, keep the parts that are done, and return the number of tiles in a batch.

        What another job left is removed. `batch_size` counts if the job is new and the settings hold none.
        """
        if os.path.lexists(self.folder):
            require_owned(self.folder, WORK_FOLDER)
        state = self._read_state()
        part = [self.parts.part_width, self.parts.part_height]
        if state.get("key") != self.key or state["part"] != part:
            if os.path.lexists(self._state_file):
                logger.warning(
                    f"A previous unfinished run of {self.out} used a different model, input or options; starting over."
                )
            self.clear()
            state = {"version": VERSION, "key": self.key, "part": part, "model": self.model, "batch_size": batch_size}
        for name in ("done", "sieved"):
            shutil.rmtree(self._work_folder / name, ignore_errors=True)
        for name in ("parts", "done", "sieved"):
            (self._work_folder / name).mkdir(parents=True, exist_ok=True)
        for incomplete in (self._work_folder / "parts").glob(".*"):
            incomplete.unlink()
        self._publish_file.unlink(missing_ok=True)
        state["batch_size"] = self.settings.batch_size or int(state["batch_size"])
        write_state(self._state_file, state)
        return int(state["batch_size"])

    def clear(self) -> None:
        """Delete the job's folder.

        `publish` goes first and `job.json` last, so that an interrupted deletion can be recognised.

        Raises:
            OutputError: if it is a link, or holds files of others.
        """
        if not os.path.lexists(self.folder):
            return
        require_owned(self.folder, WORK_FOLDER)
        self._publish_file.unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != self._state_file:
                path.unlink()
        self._state_file.unlink(missing_ok=True)
        self.folder.rmdir()

    def remove_if_empty(self) -> None:
        """Delete the job's folder if it holds no part to resume from."""
        if _is_real_folder(self.folder) and not any((self._work_folder / "parts").glob("*")):
            self.clear()

    @property
    def batch_size(self) -> int:
        """Tiles in a batch, of a job that has begun."""
        return int(self._read_state()["batch_size"])


def _key_of_raster(path: Path) -> str | None:
    """Return the key of the job that made a raster."""
    try:
        with rasterio.open(gdal_path(path)) as dataset:
            found: str | None = read_tags(dataset).get(KEY_TAG)
            return found
    except GDAL_ERRORS:
        return None


def _is_real_folder(path: Path) -> bool:
    """True for a folder that is no link."""
    return path.is_dir() and not path.is_symlink()


def fingerprints(scene: Scene, aoi: LazyAreaOfInterest | None) -> tuple[str, ...]:
    """Return what identifies the images and the area as they are now."""
    return (*scene.fingerprint(), *([] if aoi is None else aoi.area().fingerprint()))
