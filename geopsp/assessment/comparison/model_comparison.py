"""The result of comparing two models on the same chips: differences, their intervals, and what they mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geopsp.assessment.result_files import json_text, save_results
from geopsp.core.escape import csv_text, printable, printable_lines
from geopsp.core.text import format_count

FORMAT, VERSION = "geopsp comparison", 1

MEAN_IOU, ACCURACY = "mIoU", "overall accuracy"
"""Names of the first two scores; those of the others are "IoU CLASS"."""

ALL_CLASSES = "all classes"
"""Name of the last row of McNemar's tests."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ModelComparison:
    """Scores of two models on the same labelled pixels. Differences are those of B less those of A."""

    model_a: str
    model_b: str

    scores: pd.DataFrame
    """Index score: mIoU, overall accuracy, IoU of each class that the labels have. Columns: model_a, model_b,
    difference, lower, upper (interval of the difference; NaN if it is not defined)."""

    mcnemar: pd.DataFrame
    """Index class, the last one all classes. Columns: only_a_right, only_b_right (pixels), statistic, p_value, p_holm
    (adjusted for the number of classes); NaN with fewer than two blocks."""

    chips: pd.DataFrame
    """One row per chip: chip, block, pixels (labelled), accuracy_a, accuracy_b, miou_a, miou_b, miou_difference; mean
    IoU is over the classes that the chip's labels have."""

    classes: tuple[str, ...]

    confusion_a: NDArray[np.int64]
    """(classes, classes + 1) pixels by label and prediction of the first model; the last column is of predictions that
    are no class of the comparison."""

    confusion_b: NDArray[np.int64]
    """The same of the second model."""

    num_blocks: int
    """Blocks of ground with labelled pixels."""

    block_words: str
    """What the blocks are."""

    block_size: float | None
    """Side of a block in metres; None for source images."""

    interval: str
    resamples: int
    confidence_level: float
    seed: int
    warnings: tuple[str, ...] = ()

    @property
    def winner(self) -> str | None:
        """The better model, "a" or "b"; None if the interval of the difference in mean IoU does not leave out 0."""
        _, lower, upper = self._mean_iou()
        return "b" if lower > 0 else "a" if upper < 0 else None

    def _mean_iou(self) -> tuple[float, float, float]:
        """Return difference, lower and upper end of mean IoU."""
        difference, lower, upper = self.scores.loc[MEAN_IOU, ["difference", "lower", "upper"]].to_numpy(float)
        return float(difference), float(lower), float(upper)

    @property
    def verdict(self) -> str:
        """Whether one model is better, or the difference is noise, in one sentence."""
        difference, lower, upper = self._mean_iou()
        if math.isnan(lower):
            return (
                f"B - A is {difference:+.4f} mIoU, but whether that is noise cannot be told of "
                f"{format_count(self.num_blocks, 'block')} of ground."
            )
        percent = f"{self.confidence_level * 100:g} % interval"
        if difference == lower == upper == 0:
            return f"The models score the same: the difference is 0 mIoU ({percent} 0 to 0)."
        if self.winner is None:
            span = f"{percent} {lower:+.4f} to {upper:+.4f}"
            return f"The difference is within noise: B - A is {difference:+.4f} mIoU ({span})."
        sign = 1 if self.winner == "b" else -1
        low, high = sorted((sign * lower, sign * upper))
        return f"{self.winner.upper()} is better by {sign * difference:.4f} mIoU ({percent} {low:.4f} to {high:.4f})."

    def text(self) -> str:
        """Return verdict, scores and tests as tables."""
        pixels, level = int(self.chips["pixels"].sum()), f"{self.confidence_level * 100:g} %"
        resampled = f"{self.resamples:,} resamples of whole blocks, seed {self.seed}"
        test = "McNemar's test for clustered pairs (Obuchowski 1998): clusters are blocks, as neighbours are alike"
        lines = [
            self.verdict,
            f"  A          {self.model_a}",
            f"  B          {self.model_b}",
            f"  chips      {len(self.chips):,} with {pixels:,} labelled pixels",
            f"  blocks     {self.num_blocks:,} ({self.block_words})",
            f"  interval   {level} ({self.interval}) of {resampled}",
            *(f"  warning    {warning}" for warning in self.warnings),
            "",
            *_table(self.scores.rename(columns={"model_a": "A", "model_b": "B", "difference": "B - A"}), 4),
            "",
            test,
            *_table(self.mcnemar.rename(columns={"only_a_right": "only A right", "only_b_right": "only B right"}), 4),
        ]
        return printable_lines(lines)

    def to_json(self) -> dict[str, Any]:
        """Return all but the chips, for JSON; None where a number is not defined."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "model_a": self.model_a,
            "model_b": self.model_b,
            "verdict": self.verdict,
            "better": self.winner,
            "scores": _records(self.scores),
            "mcnemar": _records(self.mcnemar),
            "confusion": {
                "classes": list(self.classes),
                "rows_true_a": self.confusion_a.tolist(),
                "rows_true_b": self.confusion_b.tolist(),
            },
            "chips": len(self.chips),
            "pixels": int(self.chips["pixels"].sum()),
            "blocks": self.num_blocks,
            "block_size_m": self.block_size,
            "interval": self.interval,
            "resamples": self.resamples,
            "confidence_level": self.confidence_level,
            "seed": self.seed,
            "warnings": list(self.warnings),
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write all but the chips as JSON (`.json`), or a row per chip as CSV (`.csv`); return the path.

        Raises:
            OptionError: if the file has another ending.
            OutputError: if it exists and `overwrite` is False, or cannot be written.
        """
        forms = {".json": lambda: json_text(self.to_json()), ".csv": self._csv}
        return save_results(path, forms, overwrite=overwrite)

    def _csv(self) -> str:
        return str(self.chips.assign(chip=self.chips["chip"].map(csv_text)).to_csv(index=False))

    def __repr__(self) -> str:
        return printable(f"<ModelComparison on {format_count(len(self.chips), 'chip')}: {self.verdict}>")


def _table(frame: pd.DataFrame, digits: int) -> list[str]:
    """Return a frame as lines of text."""
    shown = frame.rename(index=printable)
    text: str = shown.to_string(float_format=lambda value: f"{value:.{digits}f}")
    return text.split("\n")


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame with its index; None for NaN."""
    rows = frame.reset_index().to_dict(orient="records")
    return [{str(key): None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
            for row in rows]  # fmt: skip
