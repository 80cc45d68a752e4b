"""Chips: pairs of image and label tiles in the "Classified Tiles" folder of ArcGIS, with an index of our own.

DIR/images/000000.tif   DIR/labels/000000.tif   DIR/map.txt   DIR/stats.txt
DIR/esri_model_definition.emd   DIR/esri_accumulated_stats.json
DIR/chips.parquet       one row a chip: footprint, source, window, valid and labelled share, pixels of each class
DIR/chips.json          what was exported, how, and what was found on the way

While chips are cut, LEDGER lies in the folder; an export that was broken off goes on from it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Unpack

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
from filelock import FileLock, Timeout

from geopsp.balance import imbalance
from geopsp.chipfiles import Kind, check_kind, write_chip
from geopsp.chipset import INDEX, MANIFEST, VERSION, ChipSet, read_folder
from geopsp.cutting import Chip, ChipSpec
from geopsp.errors import ChipError, OptionError, OutputError
from geopsp.esrifiles import write_esri_files
from geopsp.ground import Cutting, Ground
from geopsp.harvest import Harvest, Write, plan
from geopsp.legend import Legend
from geopsp.machine import cores
from geopsp.outputs import resumable
from geopsp.progress import Progress, say
from geopsp.scene import Images
from geopsp.stats import BandStats
from geopsp.tally import Ledger, Tally

LEDGER = "ledger.jsonl"

CACHE = 64 * 2**20
"""Bytes for GDAL's own cache of blocks: ours are read once."""


def export_training_data(
    images: Images,
    labels: str | Path | gpd.GeoDataFrame,
    out: str | Path,
    class_field: str | None = None,
    tile_size: int = 256,
    stride: int | None = None,
    *,
    chip_format: Kind = "tif",
    append: bool = False,
    overwrite: bool = False,
    seed: int = 42,
    workers: int | None = None,
    progress: Progress | None = None,
    **cutting: Unpack[Cutting],
) -> ChipSet:
    """A folder of training chips.

    It appears when all chips are written, not before. The same call again does nothing; after a kill it goes on.

    Args:
        images: A raster, a URL, a glob, a folder, a STAC file, {band: file}, or a list of these.
        labels: Vector data (any format pyogrio reads, `file|layername=layer`, a GeoDataFrame) or a raster of codes.
        out: The folder to make.
        class_field: The attribute that holds the class; None: all polygons are one class.
        tile_size: Side of a chip in pixels.
        stride: Pixels from one chip to the next; None: `tile_size`, so that chips touch; more thins them out.
        chip_format: "tif"; "png" or "jpg" where pixel type and bands allow, with lossless labels.
        append: True adds to a folder that exists; what is in it stays as it is.
        overwrite: True replaces a folder that exists.
        seed: Of random chips.
        workers: Threads; None: as many as there are cores.
        progress: Called after each row of chips with the number done and the number of all.
        **cutting: As `Cutting` lists them.

    Raises:
        InputNotFoundError, RasterError, GridError, BandError, LabelError, OptionError, OutputError: as the input is.
        ChipError: if no chip is left, or those to append to are of another kind.
    """
    if append and overwrite:
        raise OptionError("append and overwrite exclude each other. Choose one.")
    options = {**cutting, "class_field": class_field, "tile_size": tile_size, "stride": stride, "seed": seed}
    spec, ground = ChipSpec.of(options), Ground.open(images, labels, **options)
    check_kind(chip_format, ground.scenes[0].dtype, len(ground.scenes[0].bands))
    export = Export(ground, spec, chip_format, _plain(options), workers, progress)
    known = read_folder(Path(out)) if not overwrite and (Path(out) / MANIFEST).exists() else None
    if known and export.key in [entry.get("key") for entry in known[0]["exports"]]:
        say(f"{out} holds these chips already: there is nothing to do.")
    elif known and append:
        export.append_to(Path(out), *known)
    else:
        export.make(Path(out), overwrite=overwrite)
    return ChipSet.open(out)


def survey(ground: Ground, spec: ChipSpec, *, workers: int | None = None, progress: Progress | None = None) -> ChipSet:
    """The chips that an export would write, counted but not written.

    Raises:
        RasterError: if pixels cannot be read.
        ChipError: if no chip is left.
    """
    tally = _cut(ground, spec, _not_written, workers=workers, progress=progress)
    manifest = {**_head(ground, spec, tally), "exports": [{"report": _report(ground, spec, tally)}]}
    return ChipSet.of(manifest, _index(ground, spec, tally))


def _not_written(stem: str, _: Chip) -> tuple[str, str]:
    return stem, stem


@dataclass(frozen=True, slots=True, eq=False)
class Export:
    """One call of `export_training_data`."""

    ground: Ground
    spec: ChipSpec
    kind: Kind
    options: dict[str, Any]
    workers: int | None
    progress: Progress | None

    @property
    def key(self) -> str:
        """Another one if any input, or what is done with it, is another."""
        ground = self.ground
        inputs = [scene.stamp() for scene in ground.scenes] + [ground.labels.stamp()]
        inputs += [ground.area.stamp()] if ground.area else []
        text = json.dumps([VERSION, self.kind, self.options, inputs], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def make(self, out: Path, *, overwrite: bool) -> None:
        """The folder holds the chips, and nothing else."""
        with (
            resumable(out, keep=LEDGER, overwrite=overwrite, mark=MANIFEST) as folder,
            _ledger(folder, self.key) as ledger,
        ):
            if not ledger.hauls:  # chips of another export, which was broken off
                for name in ("images", "labels"):
                    shutil.rmtree(folder / name, ignore_errors=True)
            tally = self.write(folder, ledger)
            manifest = {**_head(self.ground, self.spec, tally), "exports": [self.entry(tally)]}
            _commit(folder, manifest, _index(self.ground, self.spec, tally))

    def append_to(self, out: Path, manifest: dict[str, Any], index: gpd.GeoDataFrame) -> None:
        """The chips are added to those of a folder.

        Raises:
            ChipError: if these have other bands, pixels or size.
        """
        _require_alike(out, manifest, _head(self.ground, self.spec, Tally(self.ground.legend, self._none())))
        ground = self.ground.under(Legend.from_json(manifest["legend"]))
        export = replace(self, ground=ground)
        first = 1 + max(int(name[:6]) for name in index["chip"].str.split(r"[._]", regex=True).str[0])
        with _ledger(out, self.key) as ledger:
            tally = export.write(out, ledger, first=first)
            head = _head(ground, self.spec, tally)
            stats = BandStats.from_json(manifest["statistics"]).merge(tally.stats)
            both = pd.concat([index, _index(ground, self.spec, tally).to_crs(index.crs)], ignore_index=True)
            pixels = [name for name in both.columns if name.startswith("pixels_")]
            both[pixels] = both[pixels].fillna(0).astype("int64")
            exports = [*manifest["exports"], export.entry(tally)]
            _commit(out, {**head, "chips": len(both), "statistics": stats.to_json(), "exports": exports}, both)

    def _none(self) -> BandStats:
        return BandStats.none(len(self.ground.scenes[0].bands))

    def write(self, folder: Path, ledger: Ledger, *, first: int = 0) -> Tally:
        for name in ("images", "labels"):
            (folder / name).mkdir(exist_ok=True)
        write = partial(_write_chip, folder, self.ground.legend, self.kind)
        return _cut(
            self.ground, self.spec, write, first=first, ledger=ledger, workers=self.workers, progress=self.progress
        )

    def entry(self, tally: Tally) -> dict[str, Any]:
        sources = [source for scene in self.ground.scenes for source in scene.stamp()]
        report = _report(self.ground, self.spec, tally)
        return {"key": self.key, "options": self.options, "sources": sources, "report": report}


def _write_chip(folder: Path, legend: Legend, kind: Kind, stem: str, chip: Chip) -> tuple[str, str]:
    return write_chip(folder, stem, chip, legend, kind)


@contextmanager
def _ledger(folder: Path, key: str) -> Iterator[Ledger]:
    """The ledger of an export into a folder; it is removed when all is done, and when there is nothing to go on from.

    Raises:
        OutputError: if another export writes into the same folder.
    """
    lock = FileLock(folder / f"{LEDGER}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(f"Another export writes into {folder}. Wait for it, or choose another name.") from error
    ledger = Ledger(folder / LEDGER, key)
    if ledger.hauls:
        found = sum(len(haul.rows) for haul in ledger.hauls)
        say(f"Going on with an export that was broken off: {found} chips are there.")
    try:
        yield ledger
        ledger.remove()
    except ChipError:  # nothing to be had from these labels, however often it is tried
        ledger.remove()
        raise
    finally:
        if ledger.empty:
            ledger.remove()
        lock.release()
        (folder / f"{LEDGER}.lock").unlink(missing_ok=True)


def _cut(
    ground: Ground,
    spec: ChipSpec,
    write: Write,
    *,
    first: int = 0,
    ledger: Ledger | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Tally:
    """All chips, from where the ledger ends."""
    tally = Tally(ground.legend, BandStats.none(len(ground.scenes[0].bands)))
    hauls = ledger.hauls if ledger else []
    for haul in hauls:
        tally.add(haul)
    units = plan(ground, spec)
    total = sum(len(unit.columns) for unit in units) + spec.random_chips
    start = len(hauls)
    done = sum(len(unit.columns) for unit in units[:start])
    with ThreadPoolExecutor(workers or cores()) as pool, rasterio.Env(GDAL_CACHEMAX=CACHE):
        harvest = Harvest(ground, spec, tally, pool, write=write, first=first + tally.numbered)
        steps = [len(unit.columns) for unit in units[start:]]
        for haul in chain(harvest.regular(units[start:]), harvest.random()):
            if ledger:
                ledger.add(haul)
            done += steps.pop(0) if steps else haul.counts["random_chips"]
            if progress:
                progress(done, total)
    if not tally.kept:
        raise ChipError(_nothing_left(tally, spec))
    return tally


def _nothing_left(tally: Tally, spec: ChipSpec) -> str:
    reasons = {
        "outside": "reach out of the area",
        "invalid": f"have too few valid pixels (min_valid {spec.min_valid:g})",
    }
    reasons |= {"unlabelled": f"less than {spec.min_labelled:.0%} labelled", "empty": "show background only"}
    found = [f"{n} {reasons[why]}" for why in reasons if (n := tally.counts[f"skipped_{why}"])]
    return (
        f"No chip is left: {', '.join(found) or 'none was asked for'}. Lower min_labelled or min_valid, or check where "
        "labels and area lie."
    )


def _head(ground: Ground, spec: ChipSpec, tally: Tally) -> dict[str, Any]:
    """What chips.json says of all chips."""
    first = ground.scenes[0]
    return {
        "version": VERSION,
        "chips": tally.kept,
        "tile_size": spec.tile_size,
        "legend": ground.legend.to_json(),
        "bands": list(first.bands),
        "dtype": first.dtype.name,
        "cell_size": list(first.cell_size),
        "units": first.grid.crs.linear_units if first.grid.crs.is_projected else "degree",
        "statistics": tally.stats.to_json(),
    }


def _report(ground: Ground, spec: ChipSpec, tally: Tally) -> dict[str, Any]:
    notes = [note for scene in ground.scenes for note in scene.notes]
    short = spec.random_chips - tally.counts["random_chips"]
    notes += [f"{short} of {spec.random_chips} random chips were not found"] if short else []
    frame = tally.frame()
    pixels = frame.loc[frame["chip"].notna(), [f"pixels_{code}" for code in ground.legend.codes]].to_numpy(np.int64)
    warnings = imbalance(ground.legend, pixels.sum(axis=0), (pixels > 0).sum(axis=0))
    return tally.report(ground.labels.report(), notes) | {"warnings": warnings}


def _index(ground: Ground, spec: ChipSpec, tally: Tally) -> gpd.GeoDataFrame:
    return tally.index([scene.grid for scene in ground.scenes], spec.tile_size)


def _require_alike(out: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    for what in ("tile_size", "bands", "dtype", "units"):
        if ours[what] != theirs[what]:
            raise ChipError(
                f"The chips in {out} and those to append differ in {what}: {theirs[what]} and {ours[what]}. "
                "Cut them alike, or export into another folder and train on both."
            )


def _commit(folder: Path, manifest: dict[str, Any], index: gpd.GeoDataFrame) -> None:
    """Everything in the folder beside the chips is written, chips.json last: what it does not count does not exist."""
    legend, stats = Legend.from_json(manifest["legend"]), BandStats.from_json(manifest["statistics"])
    fresh = folder / ".index"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    index.to_parquet(fresh / INDEX, write_covering_bbox=True, schema_version="1.1.0")
    write_esri_files(fresh, index, legend, stats, manifest["bands"], manifest["dtype"], manifest["tile_size"])
    (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in sorted(fresh.iterdir(), key=lambda path: path.name == MANIFEST):
        path.replace(folder / path.name)
    fresh.rmdir()


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as JSON has them; polygons are known by their stamp instead."""
    given = {name: value for name, value in options.items() if value is not None}
    return {
        name: "a GeoDataFrame" if isinstance(value, gpd.GeoDataFrame) else json.loads(json.dumps(value, default=str))
        for name, value in given.items()
    }
