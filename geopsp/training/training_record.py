"""Make the record of a training, which reports show: its data, split, calls, time and device."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from geopsp.chips.chip_folder import MANIFEST
from geopsp.chips.chip_set import class_pixels
from geopsp.core.addresses import shown
from geopsp.core.escape import utf8_text
from geopsp.core.log import is_main_process
from geopsp.core.stac import time_text
from geopsp.data.dataset import ChipFiles
from geopsp.data.scene_reader import SceneChipReader
from geopsp.models.device import device_name, pick_device
from geopsp.models.training_record import ClassCounts, InputEntry, SplitEntry, TrainingRecord
from geopsp.training.band_histograms import count_values, empty_histograms
from geopsp.training.chip_footprints import chip_footprints
from geopsp.training.training_data import TrainingData

PACKAGES = ("geopsp", "torch", "torchvision", "segmentation-models-pytorch", "timm", "lightning", "rasterio", "numpy")

MAX_INPUTS = 100
"""Folders and files that are named."""

MEGABYTE = 2**20


def training_record(
    data: TrainingData, calls: Sequence[str], history: Sequence[Mapping[str, float]], *, device: str | None
) -> TrainingRecord | None:
    """Return the record of a training that ends now; None in all processes but the main one.

    Args:
        data: What was trained on.
        calls: That repeat it in Python.
        history: One row per epoch.
        device: As torch names it; None: the first GPU, else the CPU.
    """
    if not is_main_process():
        return None
    chips, reader = data.chips, data.decoder or ChipFiles(data.chips)
    histograms = empty_histograms(chips.bands, data.statistics, chips.dtype)
    counts = count_values(
        histograms, reader, data.train_rows, chips.tile_size, values=chips.pixel_values, trained=chips.pixel_values
    )
    labelled = np.flatnonzero(chips.index["labelled"].to_numpy() > 0)
    dropped = np.setdiff1d(labelled, np.concatenate([data.train_rows, data.valid_rows]))
    return TrainingRecord(
        created=time_text(datetime.now(UTC)),
        seconds=round(sum(row.get("seconds", 0.0) for row in history), 1),
        device=device_name(pick_device(device)),
        platform=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        versions={name: version(name) for name in PACKAGES},
        working_folder=utf8_text(str(Path.cwd())),
        code=[utf8_text(call) for call in calls],
        inputs=input_entries(data),
        chip_size=data.chip_size,
        split=_split_entry(data),
        classes=_class_counts(data),
        footprints=chip_footprints(chips, train=data.train_rows, valid=data.valid_rows, dropped=dropped),
        bands=[each.model_copy(update={"counts": found}) for each, found in zip(histograms, counts, strict=True)],
    )


def input_entries(data: TrainingData) -> list[InputEntry]:
    """Return the folders and files that the data come from, with fingerprints; at most `MAX_INPUTS`."""
    paths = list(data.chips.folders)
    if isinstance(data.decoder, SceneChipReader):
        paths += sorted({path for path in data.decoder.labelled_scenes.local_files() if path.is_file()})
    return [fingerprint(path) for path in paths[:MAX_INPUTS]]


def fingerprint(path: Path) -> InputEntry:
    """Return what identifies a folder or file, see `InputEntry`."""
    digest = hashlib.sha256()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        sizes = [file.stat().st_size for file in files]
        for file, size in zip(files, sizes, strict=True):
            digest.update(f"{file.relative_to(path).as_posix()}\0{size}\n".encode(errors="surrogateescape"))
        if (path / MANIFEST).is_file():
            digest.update((path / MANIFEST).read_bytes())
    else:
        files, sizes = [path], [path.stat().st_size]
        digest.update(str(sizes[0]).encode())
        with path.open("rb") as content:
            digest.update(content.read(MEGABYTE))
            content.seek(max(0, sizes[0] - MEGABYTE))
            digest.update(content.read(MEGABYTE))
    return InputEntry(path=utf8_text(shown(path)), files=len(files), size=sum(sizes), sha256=digest.hexdigest())


def _split_entry(data: TrainingData) -> SplitEntry:
    audit = data.audit
    return SplitEntry(
        train=audit.train, valid=audit.valid, dropped=audit.dropped, unlabelled=audit.unlabelled,
        shared_pixels=audit.shared_pixels, gap=audit.gap, missing_in_train=list(audit.missing_in_train),
        missing_in_valid=list(audit.missing_in_valid), by=audit.by, units=audit.units, words=str(audit),
    )  # fmt: skip


def _class_counts(data: TrainingData) -> list[ClassCounts]:
    pixels = class_pixels(data.chips.index, data.legend)
    train, valid = pixels[data.train_rows], pixels[data.valid_rows]
    return [
        ClassCounts(
            name=name,
            train_pixels=int(train[:, number].sum()),
            valid_pixels=int(valid[:, number].sum()),
            train_chips=int((train[:, number] > 0).sum()),
            valid_chips=int((valid[:, number] > 0).sum()),
        )
        for number, name in enumerate(data.classes)
    ]
