"""The training data of a classifier: its argument `data` checked, and given a batch size."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from geopsp.core.text import format_count
from geopsp.errors import OptionError
from geopsp.models.device import pick_device
from geopsp.models.memory import training_batch_size
from geopsp.models.network import SegmentationNetwork
from geopsp.training.training_data import TrainingData

logger = logging.getLogger(__name__)


def require_training_data(data: Any, usage: str) -> TrainingData:
    """Return the argument `data` of a classifier; `usage` is its call, with {} for the right value.

    Raises:
        OptionError: if it is anything but the result of `prepare_data`.
    """
    if isinstance(data, TrainingData):
        return data
    is_path = isinstance(data, str | Path)
    found = repr(str(data)) if is_path else "None" if data is None else f"a {type(data).__name__}"
    made = f"prepare_data({found if is_path else 'path'})"
    raise OptionError(f"`data` is {found}, but must come from prepare_data. Use {usage.format(made)}.")


def with_batch_size(network: SegmentationNetwork, data: TrainingData, device: str | None) -> TrainingData:
    """Return the data with a batch size that fits into the memory of a device, if they have none."""
    if data.batch_size is not None:
        return data
    bands, where = len(data.chips.bands), pick_device(device)
    size = training_batch_size(network, bands=bands, size=data.chip_size, chips=len(data.train_rows), device=where)
    chips = format_count(len(data.train_rows), "training chip")
    logger.info(f"Batch size: {size} (chosen for the free memory and {chips})")
    return replace(data, batch_size=size)
