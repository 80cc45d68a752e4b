"""Checkpoints of a run that is resumed: data only, whole, and of the same network."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geopsp.core.documents import DocumentError
from geopsp.core.text import format_error
from geopsp.errors import GeopspError, OptionError, TrainingError
from geopsp.models.weights import require_whole

UNEXPECTED = (
    ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError, AssertionError, ArithmeticError,
    struct.error, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What torch and Lightning raise of damaged checkpoints, besides OSError."""


def damaged_run(folder: Path, error: BaseException | str) -> OptionError:
    """Return the error for a run that cannot be resumed."""
    reason = str(error) if isinstance(error, str | DocumentError) else type(error).__name__
    return OptionError(
        f"The run in {folder} is damaged ({reason}) and cannot be resumed. Remove the folder, or choose another one."
    )


def require_checkpoint(path: Path, module: nn.Module) -> None:
    """Check that a checkpoint can be read whole, and holds the weights of a module.

    Raises:
        OptionError: if not.
    """
    try:
        require_whole(path)
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        weights = {name: each.shape for name, each in found.items() if isinstance(each, Tensor)}
    except (OSError, *UNEXPECTED) as error:
        raise damaged_run(path.parent, error) from error
    if weights != {name: each.shape for name, each in module.state_dict().items()}:
        raise damaged_run(path.parent, f"{path.name} holds weights of another network")


def require_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Check that what an optimizer knows of a parameter is as large as this; torch's kernels would read beyond it.

    Raises:
        TrainingError: if it is not.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            fits = isinstance(value, Tensor) and value.is_floating_point()
            if not fits or (value.shape != parameter.shape and (name != "step" or value.numel() != 1)):
                raise TrainingError(
                    f"The state of the optimizer in the checkpoint is damaged ({name}), so training does not go on. "
                    "Remove the folder of the run, or choose another one."
                )


@contextmanager
def resumed_from(checkpoint: Path | None) -> Iterator[None]:
    """Take errors of training for signs that the checkpoint, if there is one, holds wrong values.

    Raises:
        TrainingError: if one arises.
    """
    try:
        yield
    except GeopspError:
        raise
    except UNEXPECTED as error:
        if checkpoint is None:
            raise
        raise TrainingError(
            f"Training does not go on from {checkpoint} ({type(error).__name__}: {format_error(error)}). If the file "
            "may be damaged, remove its folder, or choose another one."
        ) from error
