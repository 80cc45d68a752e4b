"""One export of chips: it resumes after a kill, appends to a folder, and never leaves half of one."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from geopsp.chips.arcgis_write import write_arcgis_files
from geopsp.chips.chip import Chip
from geopsp.chips.chip_files import Kind, write_chip
from geopsp.chips.chip_folder import CHIP_FOLDER, INDEX, JOURNAL, MANIFEST, VERSION, read_folder
from geopsp.chips.chip_set import describe_difference, to_crs
from geopsp.chips.chip_warnings import describe_labels
from geopsp.chips.class_balance import ChipWarning, class_warnings
from geopsp.chips.cutter import Cutter, cutting_here, plan
from geopsp.chips.dask_cutter import STAGING, cutting_on_cluster
from geopsp.chips.journal import ExportJournal
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec, defaults
from geopsp.chips.results import ExportTotals
from geopsp.cluster.workers import sync_on_workers
from geopsp.core.bands import BandStats
from geopsp.core.grid import Grid
from geopsp.core.legend import Legend
from geopsp.core.lock import output_lock
from geopsp.core.output import check_output, resumable_folder
from geopsp.core.owned_files import remove_unfinished, require_no_links, require_not_inputs, write_file_list
from geopsp.core.pixel_values import pixel_values_entry
from geopsp.core.progress import Progress
from geopsp.core.run_state import key_of
from geopsp.core.text import format_count, format_length
from geopsp.errors import ChipError, RasterError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Export:
    """One call of `export_training_data`."""

    inputs: LabelledScenes
    spec: ChipSpec
    kind: Kind
    options: dict[str, Any]
    """As given by the user, in JSON's types."""

    workers: int | None
    """Threads; None: one per CPU core."""

    progress: Progress | None
    client: Any = None
    """A Dask client, whose workers cut the chips; None: this process does."""

    @property
    def key(self) -> str:
        """Identifies the inputs and all that is done with them."""
        inputs = self.inputs
        fingerprints = [scene.fingerprint() for scene in inputs.scenes] + [inputs.labels.fingerprint()]
        fingerprints += [inputs.area.fingerprint()] if inputs.area else []
        fingerprints += [values for scene in inputs.scenes if (values := scene.value_identity())]
        cutting = asdict(self.spec) | {"seed": self.spec.seed if self.spec.random_chips else 0}
        return key_of([VERSION, self.kind, defaults() | self.options | cutting, fingerprints])

    def run(self, out: Path, *, overwrite: bool) -> None:
        """Write a new folder, or resume writing it.

        Raises:
            OutputError: as `check_output`, or if another run writes it.
            ChipError: if no chip is left.
        """
        check_output(out, overwrite=overwrite, folder=True, kind=CHIP_FOLDER)
        require_not_inputs([out], self.inputs.local_files())
        with output_lock(out):
            with resumable_folder(out, state_file=JOURNAL, overwrite=overwrite, kind=CHIP_FOLDER) as folder:
                journal = self._open_journal(folder, self.inputs.legend)
                if not journal.results and (folder / "images").exists():
                    logger.info(f"A previous unfinished export to {out} had other inputs or options: starting over.")
                    for name in ("images", "labels"):
                        shutil.rmtree(folder / name, ignore_errors=True)
                totals = self._write_chips(folder, journal)
                self._require_same_inputs(journal)
                manifest = {**manifest_header(self.inputs, self.spec, totals), "exports": [self._entry(totals)]}
                _write_index(folder, manifest, make_index(self.inputs, self.spec, totals))
            (out / JOURNAL).unlink()

    def append_to(self, out: Path) -> None:
        """Add the chips to those of a folder.

        Raises:
            ChipError: if these have other bands, another data type or another size, or if no chip is left.
        """
        with output_lock(out):
            require_no_links(out)
            self._append_to(out, *read_folder(out))  # read under the lock, when nobody else can change it

    def _append_to(self, out: Path, manifest: dict[str, Any], index: gpd.GeoDataFrame) -> None:
        header = manifest_header(self.inputs, self.spec, ExportTotals.empty(self.inputs))
        _require_same_format(out, manifest, header)
        new, old = header["cell_size"][0], manifest["cell_size"][0]
        if abs(new / old - 1) > 0.01:
            logger.warning(
                f"The chips in {out} have pixels of {format_length(old, header['units'])}, the new ones of "
                f"{format_length(new, header['units'])}: objects appear at different sizes."
            )
        export = replace(self, inputs=self.inputs.with_legend(Legend.from_json(manifest["legend"])))
        first = 1 + max(int(re.match(r"\d+", name)[0]) for name in index["chip"])  # type: ignore[index]
        journal = self._open_journal(out, export.inputs.legend)
        totals = export._write_chips(out, journal, first=first)  # noqa: SLF001 (the same class)
        self._require_same_inputs(journal)
        export._append_index(out, manifest, index, totals)  # noqa: SLF001
        write_file_list(out, CHIP_FOLDER)
        journal.remove()

    def _append_index(self, out: Path, manifest: dict[str, Any], index: gpd.GeoDataFrame, totals: ExportTotals) -> None:
        """Write index and manifest of the old and the new chips."""
        stats = BandStats.from_json(manifest["statistics"]).merge(totals.stats)
        new = to_crs(make_index(self.inputs, self.spec, totals), index.crs)
        both = pd.concat([index, new], ignore_index=True)
        pixels = [name for name in both.columns if name.startswith("pixels_")]
        both[pixels] = both[pixels].fillna(0).astype("int64")
        header: dict[str, Any] = {
            **manifest_header(self.inputs, self.spec, totals),
            **{name: manifest[name] for name in ("cell_size", "units", "pixel_values") if name in manifest},
            "chips": len(both),
            "statistics": stats.to_json(),
        }
        _write_index(out, {**header, "exports": [*manifest["exports"], self._entry(totals)]}, both)

    def _require_same_inputs(self, journal: ExportJournal) -> None:
        """Check that no input has changed since the export began.

        Raises:
            RasterError: if one has.
        """
        if self.key != journal.key:
            raise RasterError(
                "An image, the labels or the area of interest changed during the export. Repeat the same command when "
                "they are complete."
            )

    def _open_journal(self, folder: Path, legend: Legend) -> ExportJournal:
        codes, num_scenes = legend.codes, len(self.inputs.scenes)
        sync = None if self.client is None else partial(sync_on_workers, self.client)
        journal = ExportJournal(folder / JOURNAL, self.key, codes=codes, num_scenes=num_scenes, sync=sync)
        if journal.results:
            found = sum(len(result.rows) for result in journal.results)
            logger.info(f"Resuming an interrupted export with {format_count(found, 'chip')}.")
        return journal

    def _write_chips(self, folder: Path, journal: ExportJournal, *, first: int = 0) -> ExportTotals:
        """Write the files of all chips. A journal from which nothing can be resumed is removed, also after an error."""
        remove_unfinished(folder, STAGING)
        for name in ("images", "labels"):
            (folder / name).mkdir(exist_ok=True)

        def write(stem: str, chip: Chip) -> tuple[str, str]:
            return write_chip(folder, stem, chip, self.inputs.legend, self.kind)

        start: Start = partial(cutting_here, self.inputs, self.spec, write=write, first=first, workers=self.workers)
        if self.client is not None:
            on_cluster = partial(cutting_on_cluster, self.inputs, self.spec, client=self.client)
            start = partial(on_cluster, folder=folder, kind=self.kind, first=first)
        try:
            return cut_all(self.inputs, self.spec, start, journal=journal, progress=self.progress)
        except ChipError:  # no chip is left, however often it is tried
            journal.remove()
            raise
        finally:
            if journal.is_empty:
                journal.remove()
            else:
                with suppress(OSError):  # the disk may be full: these rows are cut again
                    journal.flush()

    def _entry(self, totals: ExportTotals) -> dict[str, Any]:
        """Return the entry of this export in chips.json."""
        sources = [source for scene in self.inputs.scenes for source in scene.fingerprint()]
        images = {scene.name: [source.path for source in scene.sources] for scene in self.inputs.scenes}
        report = make_report(self.inputs, self.spec, totals)
        entry = {"key": self.key, "options": self.options, "sources": sources, "images": images, "report": report}
        return entry | self.inputs.times_entry()


Start = Callable[[ExportTotals], AbstractContextManager[Cutter]]
"""Returns the context of a cutter that adds results to the totals, which hold those of the rows that are done."""


def cut_all(
    inputs: LabelledScenes,
    spec: ChipSpec,
    start: Start,
    *,
    journal: ExportJournal | None = None,
    progress: Progress | None = None,
) -> ExportTotals:
    """Cut all chips, from where the journal ends.

    Args:
        inputs: Images and labels.
        spec: Which chips are cut.
        start: Gives what cuts them.
        journal: The results of rows that are done, to which the others are added.
        progress: Called after each row with the number of chips done and in total.

    Raises:
        ChipError: if no chip is left.
    """
    totals = ExportTotals.empty(inputs)
    done_results = journal.results if journal else []
    for result in done_results:
        totals.add(result)
    chip_rows = plan(inputs, spec)
    num_done = len(done_results)
    total = sum(len(chip_row.columns) for chip_row in chip_rows) + spec.random_chips
    done = sum(len(chip_row.columns) for chip_row in chip_rows[:num_done]) + totals.counts["random_chips"]
    row_sizes = [len(chip_row.columns) for chip_row in chip_rows[num_done:]]
    with (
        start(totals) as cutter,
        closing(cutter.grid_chips(chip_rows[num_done:])) as of_grid,
        closing(cutter.random_chips()) as random,
    ):
        for result in chain(of_grid, random):
            if journal:
                journal.add(result)
            done += row_sizes.pop(0) if row_sizes else result.counts["random_chips"]
            if progress:
                progress(done, total)
    if not totals.num_chips:
        raise ChipError(_no_chips_message(totals, spec))
    return totals


def _no_chips_message(totals: ExportTotals, spec: ChipSpec) -> str:
    reasons = {
        "outside": "not completely inside the area of interest",
        "invalid": f"less than {spec.min_valid:.0%} valid" if spec.min_valid else "without valid pixels",
        "unlabelled": f"less than {spec.min_labelled:.0%} labelled",
        "empty": "background only",
    }
    found = [f"{n:,} {words}" for reason, words in reasons.items() if (n := totals.counts[f"skipped_{reason}"])]
    return (
        f"No chip is left: {', '.join(found) or 'there is none'}. Lower `min_labelled` or `min_valid`, or check where "
        "the labels and the area of interest lie."
    )


def manifest_header(inputs: LabelledScenes, spec: ChipSpec, totals: ExportTotals) -> dict[str, Any]:
    """Return what chips.json says of all chips."""
    first = inputs.scenes[0]
    placed = next((scene for scene in inputs.scenes if scene.grid.crs), first)
    return {
        "version": VERSION,
        "chips": totals.num_chips,
        "tile_size": spec.tile_size,
        "legend": inputs.legend.to_json(),
        "bands": list(first.bands),
        "dtype": first.dtype.name,
        "cell_size": list(placed.cell_size),
        "units": _units(placed.grid),
        "statistics": totals.stats.to_json(),
        **pixel_values_entry(first.pixel_values),
    }


def _units(grid: Grid) -> str:
    """Return the unit of the CRS; "pixel" without one."""
    if not grid.crs:
        return "pixel"
    return "degree" if grid.crs.is_geographic else str(grid.crs.linear_units)


def make_report(inputs: LabelledScenes, spec: ChipSpec, totals: ExportTotals) -> dict[str, Any]:
    """Return the report of an export for chips.json: counts, notes and warnings; log what is newly warned of."""
    units = manifest_header(inputs, spec, totals)["units"]
    sizes = [scene.cell_size[0] for scene in inputs.scenes if scene.grid.crs] or [1.0]
    texts = []
    if max(sizes) > 1.01 * min(sizes):
        smallest, largest = (format_length(size, units) for size in (min(sizes), max(sizes)))
        texts.append(f"The images have pixels of {smallest} to {largest}: objects appear at different sizes.")
    if missing := spec.random_chips - totals.counts["random_chips"]:
        texts.append(f"{missing} of {format_count(spec.random_chips, 'random chip')} could not be found.")
    frame = totals.frame()
    pixels = frame.loc[frame["chip"].notna(), [f"pixels_{code}" for code in inputs.legend.codes]].to_numpy(np.int64)
    balance = class_warnings(inputs.legend, pixels.sum(axis=0), (pixels > 0).sum(axis=0))
    for text in (*texts, *(warning["text"] for warning in balance)):
        logger.warning(text)
    report = totals.report(inputs.labels.report(), [note for scene in inputs.scenes for note in scene.notes])
    logger.info(f"Labels: {describe_labels(report)}.")
    warnings = [ChipWarning(kind="input", text=text) for text in (*inputs.warnings, *texts)]
    return report | {"warnings": [*warnings, *balance]}


def make_index(inputs: LabelledScenes, spec: ChipSpec, totals: ExportTotals) -> gpd.GeoDataFrame:
    """Return one row per chip, with its footprint."""
    return totals.index([scene.grid for scene in inputs.scenes], spec.tile_size)


def _require_same_format(out: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    if difference := describe_difference(old, new):
        raise ChipError(
            f"The chips in {out} and those to append differ in {difference}. "
            "Cut them with the same options, or export to another folder and train on both."
        )


def _write_index(folder: Path, manifest: dict[str, Any], index: gpd.GeoDataFrame) -> None:
    """Write all files but the chips; chips.json last, as chips that it does not count do not exist."""
    legend, stats = Legend.from_json(manifest["legend"]), BandStats.from_json(manifest["statistics"])
    staging = folder / ".index"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    index.to_parquet((staging / INDEX).absolute(), write_covering_bbox=True, schema_version="1.1.0")
    write_arcgis_files(staging, index, legend, stats, manifest["bands"], manifest["dtype"], manifest["tile_size"])
    (staging / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in sorted(staging.iterdir(), key=lambda path: path.name == MANIFEST):
        path.replace(folder / path.name)
    staging.rmdir()
