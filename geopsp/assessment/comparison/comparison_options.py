"""Options of the comparison of two models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geopsp.core.options import check_fields, option


@dataclass(frozen=True, slots=True)
class ComparisonOptions:
    """All options of `compare_models`.

    Raises:
        OptionError: if one is out of range.
    """

    class_mapping: Mapping[Any, Any] | str | Path | None = option(
        None,
        "A dict, or a YAML file of one, from class names of chips and models to those of the comparison, e.g. "
        "{'pasture': 'grass'}; equal names merge, None makes labels unlabelled and predictions wrong, '*' is all other "
        "classes. None: classes stay as they are. Names match in any case.",
        shell_help="YAML file that renames or merges classes of chips and models, e.g. `pasture: grass`; equal names "
        "merge, null makes labels unlabelled and predictions wrong, '*' is all other classes.",
    )
    block_size: float | None = option(
        None,
        "Side of the blocks of ground that are resampled, in metres. None: four chips. Chips without georeference are "
        "grouped by their source image.",
        above=0,
        unit="metres",
    )
    resamples: int = option(2000, "Number of bootstrap resamples.", minimum=100, maximum=10**6)
    interval: str = option(
        "bca",
        "How intervals follow from the resamples. bca: bias-corrected and accelerated; percentile: quantiles of the "
        "differences. Both are widened for few blocks (expanded percentiles).",
        choices=("bca", "percentile"),
    )
    confidence_level: float = option(0.95, "Confidence level of the intervals.", minimum=0.5, below=1)
    seed: int = option(0, "Seed of the resamples.", minimum=0)
    device: str | None = option(None, "Device, as PyTorch names it, e.g. 'cuda:1'. None: the first GPU, else the CPU.")
    allow_resolution_mismatch: bool = option(
        False, "Score chips whose pixels are more than 4 times larger or smaller than those of the training, too."
    )

    def __post_init__(self) -> None:
        check_fields(self)
