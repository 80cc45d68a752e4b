"""Scores of a model on chips, with what a report shows of them: intervals, reliability, pictures, histograms."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from geopsp.core.text import format_count
from geopsp.data.dataset import Sample, TiledChipDataset
from geopsp.data.ground_blocks import GroundBlocks, ground_blocks
from geopsp.models.saved_model import TrainedModel
from geopsp.models.training_record import ChipScores, Footprints, ReliabilityBin, ReliabilityEntry
from geopsp.training.band_histograms import count_values
from geopsp.training.block_bootstrap import score_intervals
from geopsp.training.chip_counts import ChipCounts, ChipScore, worst_and_best
from geopsp.training.chip_footprints import chip_footprints
from geopsp.training.chip_pictures import Kind, chip_pictures
from geopsp.training.evaluate import evaluate
from geopsp.training.metrics import Confusion
from geopsp.training.reliability import Reliability

WORST, BEST = 4, 2
"""Chips that are shown."""

RESAMPLES, CONFIDENCE_LEVEL, SEED = 2000, 0.95, 0
"""Of the intervals."""

FEW_BLOCKS = 10
"""Blocks below which they are halved, down to single chips, and below which intervals are called rough."""

HALVINGS = 2

OVERLAP = "Some chips overlap chips of another block of ground, so the intervals are somewhat too narrow."


def score_chips(
    model: TrainedModel, loader: DataLoader[Sample], name: str, *, device: str | None
) -> tuple[Confusion, ChipScores]:
    """Return the scores of all tiles of a loader, and what reports show of them.

    Args:
        model: The model.
        loader: Tiles of a `TiledChipDataset`, in order.
        name: Which chips these are, in words.
        device: As torch names it; None: the first GPU, else the CPU.
    """
    dataset = _dataset_of(loader)
    ignored, rows = model.losses.ignored(model.legend), np.asarray(dataset.rows)
    blocks = _enough_blocks(dataset, rows)
    counts = ChipCounts(blocks.numbers, rows, len(model.legend))
    scores = evaluate(
        model.network, loader, model.legend, ignored=ignored, device=device, calibration=model.calibration,
        counter=counts,
    )  # fmt: skip
    counts.finish()
    worst, best = worst_and_best(counts.scores, worst=WORST, best=BEST)
    shown: list[tuple[Kind, ChipScore]] = [*(("worst", each) for each in worst), *(("best", each) for each in best)]
    return scores, ChipScores(
        name=name,
        chips=len(counts.scores),
        confusion=scores.counts.tolist(),
        boundary=None if scores.boundary is None else scores.boundary.tolist(),
        blocks=len(counts.used),
        block_words=blocks.words,
        intervals=_intervals(counts.used),
        confidence_level=CONFIDENCE_LEVEL,
        notes=_notes(blocks, len(counts.used)),
        reliability=reliability_entries(scores),
        pictures=chip_pictures(model, dataset, shown, device=device),
        bands=histograms_like(model, dataset),
    )


def histograms_like(model: TrainedModel, dataset: TiledChipDataset) -> list[list[int]]:
    """Return counts in the bins of the training's histograms; [] if these are not known."""
    if model.record is None:
        return []
    return count_values(
        model.record.bands, dataset.reader, np.asarray(dataset.rows), dataset.chips.tile_size,
        values=dataset.chips.pixel_values, trained=model.pixel_values,
    )  # fmt: skip


def with_footprints(scores: ChipScores, loader: DataLoader[Sample]) -> ChipScores:
    """Return scores that tell where their chips lie."""
    dataset = _dataset_of(loader)
    found: Footprints | None = chip_footprints(dataset.chips, valid=np.asarray(dataset.rows))
    return scores.model_copy(update={"footprints": found})


def _dataset_of(loader: DataLoader[Sample]) -> TiledChipDataset:
    dataset = loader.dataset
    assert isinstance(dataset, TiledChipDataset), dataset
    return dataset


def reliability_entries(scores: Confusion) -> list[ReliabilityEntry]:
    """Return how far confidence is accuracy, without and with calibration, as far as it was counted."""
    found = {"uncalibrated": scores.reliability, "calibrated": scores.calibrated}
    return [_entry(name, each) for name, each in found.items() if each is not None and each.pixels]


def _entry(name: str, found: Reliability) -> ReliabilityEntry:
    rows = found.bins().to_dict(orient="records")
    return ReliabilityEntry.model_validate(
        {
            "name": name, "mean_confidence": found.mean_confidence(), "ece": found.ece(), "mce": found.mce(),
            "nll": found.nll(), "brier": found.brier(),
            "bins": [ReliabilityBin.model_validate(row).model_dump() for row in rows],
        }
    )  # fmt: skip


def _enough_blocks(dataset: TiledChipDataset, rows: NDArray[np.intp]) -> GroundBlocks:
    """Return blocks of four chips a side, or smaller ones where these are few."""
    blocks = ground_blocks(dataset.chips, rows, None)
    for _ in range(HALVINGS):
        if len(blocks) >= FEW_BLOCKS or blocks.block_size is None:
            break
        blocks = ground_blocks(dataset.chips, rows, blocks.block_size / 2)
    return blocks


def _intervals(confusions: NDArray[np.int64]) -> list[list[float] | None]:
    """Return the ends of intervals, in the order of `class_scores`; None where one is not defined."""
    if not len(confusions):
        return []
    found = score_intervals(
        confusions.astype(float), resamples=RESAMPLES, confidence_level=CONFIDENCE_LEVEL,
        rng=np.random.default_rng(SEED),
    )  # fmt: skip
    return [[low, high] if math.isfinite(low + high) else None for low, high in found[:, 1:].tolist()]


def _notes(blocks: GroundBlocks, used: int) -> list[str]:
    notes = [OVERLAP] if blocks.warning else []
    if used < FEW_BLOCKS:
        count = format_count(used, "block")
        notes.append(
            f"The chips make only {count} of ground, so the intervals are rough. Label more ground for a better answer."
            if used > 1
            else f"The chips make only {count} of ground, so there are no intervals."
        )
    return notes
