"""Checkpoints of a run: written beside their place, with the one before kept, and the one that a run resumes from."""

from __future__ import annotations

import io
import logging
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from geopsp.core.documents import DocumentError, open_regular
from geopsp.core.output import atomic_output
from geopsp.core.schema import Count, Schema, require_fit
from geopsp.core.sync import sync_file
from geopsp.errors import OptionError, OutputError

logger = logging.getLogger(__name__)

ENDING = ".ckpt"

LAST, PREVIOUS, BEST = "last", "previous", "best"
"""The last epoch's, that of the epoch before, and the weights of the best epoch."""

UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip
"""Errors of reading a damaged checkpoint."""


class Checkpoint(Schema):
    """What Lightning reads of a checkpoint when it resumes a run."""

    epoch: Count
    global_step: Count
    state_dict: dict[str, Any]
    optimizer_states: list[dict[str, Any]]
    lr_schedulers: list[dict[str, Any]]
    loops: dict[str, Any]
    callbacks: dict[str, Any]


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint beside its place, then renames it; the last one becomes the previous one.

    A kill or a full disk at any moment leaves a whole one.
    """

    def __init__(self, advice: str) -> None:
        """`advice`: what to do when a checkpoint cannot be written."""
        super().__init__()
        self.advice = advice

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path, content = Path(path), io.BytesIO()
        torch.save(checkpoint, content)
        try:
            with atomic_output(path, overwrite=True) as partial:
                partial.write_bytes(content.getbuffer())
                if path.stem == LAST and path.exists():
                    sync_file(partial)
                    path.replace(checkpoint_path(path.parent, PREVIOUS))
        except OutputError as error:
            raise OutputError(f"{error} {self.advice}") from error


def checkpoint_path(folder: Path, name: str) -> Path:
    """Return the path of a checkpoint of a run."""
    return folder / f"{name}{ENDING}"


def has_checkpoint(folder: Path) -> bool:
    """True if there is something to resume from."""
    return any(checkpoint_path(folder, name).exists() for name in (LAST, PREVIOUS))


def find_checkpoint(folder: Path) -> Path | None:
    """Return the last whole checkpoint of a run; None if there is none, whole or not.

    Raises:
        OptionError: if all are damaged.
    """
    last, previous = (checkpoint_path(folder, name) for name in (LAST, PREVIOUS))
    problem = damage(last) if last.exists() else None
    if last.exists() and problem is None:
        return last
    if previous.exists() and damage(previous) is None:
        if problem:
            logger.warning(f"{last} is damaged ({problem}), so the run goes on from the epoch before, {previous.name}.")
        return previous
    if not has_checkpoint(folder):
        return None
    best = checkpoint_path(folder, BEST)
    kept = f"{best.name} holds the best weights so far. " if best.exists() and damage(best) is None else ""
    raise OptionError(
        f"The run in {folder} cannot be resumed: {last.name} is damaged ({problem or 'it is missing'}), and there is "
        f"no whole checkpoint before it. {kept}Train in another folder, or remove this one."
    )


def damage(path: Path) -> str | None:
    """Return what is wrong with a checkpoint; None if it is whole."""
    try:
        with open_regular(path):  # a pipe would be waited for
            pass
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():
                return f"the checksum of {broken} differs"
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if path.stem != BEST:
            require_fit(content, Checkpoint)
    except DocumentError as error:
        return str(error)
    except UNREADABLE as error:
        return type(error).__name__
    return None
