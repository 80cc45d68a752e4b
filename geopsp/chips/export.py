"""An export at work: it goes on after a kill, adds to a folder, and never leaves half of one."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio

from geopsp.chips.arcgis_write import write_esri_files
from geopsp.chips.chip import Chip
from geopsp.chips.chip_files import Kind, write_chip
from geopsp.chips.chip_set import INDEX, MANIFEST, VERSION, read_folder
from geopsp.chips.class_balance import class_warnings
from geopsp.chips.cutter import ChipCutter, Write, plan
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec, defaults
from geopsp.chips.results import ExportJournal, ExportTotals
from geopsp.core.bands import BandStats
from geopsp.core.legend import Legend
from geopsp.core.output import check_output, output_lock, resumable_folder
from geopsp.core.parallel import cpu_count
from geopsp.core.progress import Progress
from geopsp.errors import ChipError, OptionError

logger = logging.getLogger(__name__)

LEDGER = "ledger.jsonl"


CACHE = 64 * 2**20
"""Bytes for GDAL's own cache of blocks: ours are read once."""


@dataclass(frozen=True, slots=True, eq=False)
class Export:
    """One call of `export_training_data`."""

    ground: LabelledScenes
    spec: ChipSpec
    kind: Kind
    options: dict[str, Any]
    workers: int | None
    progress: Progress | None

    @property
    def key(self) -> str:
        """Another one if any input, or what is done with it, is another."""
        ground = self.ground
        inputs = [scene.fingerprint() for scene in ground.scenes] + [ground.labels.fingerprint()]
        inputs += [ground.area.fingerprint()] if ground.area else []
        cutting = asdict(self.spec) | {"seed": self.spec.seed if self.spec.random_chips else 0}
        text = json.dumps(
            [VERSION, self.kind, defaults() | self.options | cutting, inputs], sort_keys=True, default=str
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def run(self, out: Path, *, overwrite: bool) -> None:
        """The folder holds the chips, and nothing else."""
        check_output(out, overwrite=overwrite, folder=True, marker=MANIFEST)
        with output_lock(out):
            with resumable_folder(out, state_file=LEDGER, overwrite=overwrite, marker=MANIFEST) as folder:
                ledger = self._ledger(folder)
                if not ledger.hauls and (folder / "images").exists():
                    logger.info(f"Another export to {out} was broken off; its chips are thrown away.")
                    for name in ("images", "labels"):
                        shutil.rmtree(folder / name, ignore_errors=True)
                tally = self._write(folder, ledger)
                manifest = {**manifest_header(self.ground, self.spec, tally), "exports": [self._entry(tally)]}
                _write_index(folder, manifest, index_of(self.ground, self.spec, tally))
            (out / LEDGER).unlink()

    def append_to(self, out: Path) -> None:
        """The chips are added to those of a folder.

        Raises:
            ChipError: if these have other bands, pixels or size.
        """
        with output_lock(out):
            self._append_to(out, *read_folder(out))  # as it is now that nobody else can change it

    def _append_to(self, out: Path, manifest: dict[str, Any], index: gpd.GeoDataFrame) -> None:
        _require_alike(out, manifest, manifest_header(self.ground, self.spec, ExportTotals.empty(self.ground)))
        ours, theirs = self.ground.scenes[0].cell_size[0], manifest["cell_size"][0]
        if abs(ours / theirs - 1) > 0.01:
            logger.info(
                f"The chips in {out} have pixels of {theirs:g}, the new ones {ours:g}: things show at different sizes."
            )
        export = replace(self, ground=self.ground.with_legend(Legend.from_json(manifest["legend"])))
        first = 1 + max(int(re.match(r"\d+", name)[0]) for name in index["chip"])  # type: ignore[index]
        ledger = self._ledger(out)
        tally = export._write(out, ledger, first=first)  # noqa: SLF001 (the same class)
        export._add(out, manifest, index, tally)  # noqa: SLF001
        ledger.remove()

    def _add(self, out: Path, manifest: dict[str, Any], index: gpd.GeoDataFrame, tally: ExportTotals) -> None:
        """Index and manifest hold the new chips, too."""
        stats = BandStats.from_json(manifest["statistics"]).merge(tally.stats)
        new = index_of(self.ground, self.spec, tally).to_crs(index.crs)
        both = pd.concat([index, new], ignore_index=True)
        pixels = [name for name in both.columns if name.startswith("pixels_")]
        both[pixels] = both[pixels].fillna(0).astype("int64")
        both_have = {name: manifest[name] for name in ("cell_size", "units")}
        exports = [*manifest["exports"], self._entry(tally)]
        fresh = {
            **manifest_header(self.ground, self.spec, tally),
            **both_have,
            "chips": len(both),
            "statistics": stats.to_json(),
        }
        _write_index(out, {**fresh, "exports": exports}, both)

    def _ledger(self, folder: Path) -> ExportJournal:
        ledger = ExportJournal(folder / LEDGER, self.key)
        if ledger.hauls:
            found = sum(len(haul.rows) for haul in ledger.hauls)
            logger.info(f"Going on with an export that was broken off: {found} chips are there.")
        return ledger

    def _write(self, folder: Path, ledger: ExportJournal, *, first: int = 0) -> ExportTotals:
        """The chips' files are there. Where there is nothing to go on from, the ledger is not."""
        for name in ("images", "labels"):
            (folder / name).mkdir(exist_ok=True)
        write = partial(_write_chip, folder, self.ground.legend, self.kind)
        try:
            return cut_all(
                self.ground, self.spec, write, first=first, ledger=ledger, workers=self.workers, progress=self.progress
            )
        except ChipError:  # there is none to be had, however often it is tried
            ledger.remove()
            raise
        finally:
            if ledger.empty:
                ledger.remove()

    def _entry(self, tally: ExportTotals) -> dict[str, Any]:
        sources = [source for scene in self.ground.scenes for source in scene.fingerprint()]
        images = {scene.name: [source.path for source in scene.sources] for scene in self.ground.scenes}
        report = report_of(self.ground, self.spec, tally)
        return {"key": self.key, "options": self.options, "sources": sources, "images": images, "report": report}


def _write_chip(folder: Path, legend: Legend, kind: Kind, stem: str, chip: Chip) -> tuple[str, str]:
    return write_chip(folder, stem, chip, legend, kind)


def cut_all(
    ground: LabelledScenes,
    spec: ChipSpec,
    write: Write,
    *,
    first: int = 0,
    ledger: ExportJournal | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ExportTotals:
    """All chips, from where the ledger ends."""
    if workers is not None and not (isinstance(workers, int) and workers >= 1):
        raise OptionError(f"workers is {workers!r}; needed 1 or more, or None for as many as there are cores.")
    tally = ExportTotals.empty(ground)
    start = len(ledger.hauls) if ledger else 0
    for haul in ledger.hauls if ledger else ():
        tally.add(haul)
    units = plan(ground, spec)
    total = sum(len(unit.columns) for unit in units) + spec.random_chips
    done = sum(len(unit.columns) for unit in units[:start]) + tally.counts["random_chips"]
    with ThreadPoolExecutor(workers or cpu_count()) as pool, rasterio.Env(GDAL_CACHEMAX=CACHE):
        harvest = ChipCutter(ground, spec, tally, pool, write=write, first=first + tally.numbered)
        steps = [len(unit.columns) for unit in units[start:]]
        for haul in chain(harvest.grid_chips(units[start:]), harvest.random_chips()):
            if ledger:
                ledger.add(haul)
            done += steps.pop(0) if steps else haul.counts["random_chips"]
            if progress:
                progress(done, total)
    if not tally.kept:
        raise ChipError(_nothing_left(tally, spec))
    return tally


def _nothing_left(tally: ExportTotals, spec: ChipSpec) -> str:
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


def manifest_header(ground: LabelledScenes, spec: ChipSpec, tally: ExportTotals) -> dict[str, Any]:
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


def report_of(ground: LabelledScenes, spec: ChipSpec, tally: ExportTotals) -> dict[str, Any]:
    """What was found on the way, with notes and warnings."""
    notes = [note for scene in ground.scenes for note in scene.notes] + list(ground.notes)
    sizes = [scene.cell_size[0] for scene in ground.scenes]
    if max(sizes) > 1.01 * min(sizes):
        notes.append(f"the images have pixels of {min(sizes):g} to {max(sizes):g}: things show at different sizes")
    short = spec.random_chips - tally.counts["random_chips"]
    notes += [f"{short} of {spec.random_chips} random chips were not found"] if short else []
    frame = tally.frame()
    pixels = frame.loc[frame["chip"].notna(), [f"pixels_{code}" for code in ground.legend.codes]].to_numpy(np.int64)
    warnings = class_warnings(ground.legend, pixels.sum(axis=0), (pixels > 0).sum(axis=0))
    return tally.report(ground.labels.report(), notes) | {"warnings": warnings}


def index_of(ground: LabelledScenes, spec: ChipSpec, tally: ExportTotals) -> gpd.GeoDataFrame:
    """One row a chip, with its footprint."""
    return tally.index([scene.grid for scene in ground.scenes], spec.tile_size)


def _require_alike(out: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    for what in ("tile_size", "bands", "dtype", "units"):
        if ours[what] != theirs[what]:
            raise ChipError(
                f"The chips in {out} and those to append differ in {what}: {theirs[what]} and {ours[what]}. "
                "Cut them alike, or export into another folder and train on both."
            )


def _write_index(folder: Path, manifest: dict[str, Any], index: gpd.GeoDataFrame) -> None:
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
