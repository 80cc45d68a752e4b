"""The journal of a run: scored rows of windows beside the output, from which the same call resumes.

`.partial-NAME/` holds run.json with the key of the run, and IMAGE-ROW.npz for each row that is done.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.active_learning.score_windows import COLUMNS, ScoredWindows
from geopsp.active_learning.tile_views import Floats
from geopsp.core.output import partial_path, write_errors
from geopsp.core.owned_files import FolderKind, remove_owned, require_owned, unfinished_name
from geopsp.core.run_state import read_state, write_state

logger = logging.getLogger(__name__)

STATE = "run.json"

WORK_FOLDER = FolderKind(None, (STATE, "*.npz"))

Arrays = dict[str, NDArray[Any]]

FEATURES = "labelled"
"""The name of the features of labelled chips."""


@dataclass(frozen=True, slots=True)
class Journal:
    """The folder of a run."""

    folder: Path

    def read(self, scene: int, row: int, classes: int) -> ScoredWindows | None:
        """Return a row of windows; None if it is not there, or damaged."""
        arrays = self._load(f"{scene}-{row}")
        if arrays is None or set(arrays) != {"numbers", "class_pixels", "features"}:
            return None
        found = ScoredWindows(arrays["numbers"], arrays["class_pixels"], arrays["features"])
        shapes = (found.numbers.shape[1:], found.class_pixels.shape[1:])
        return found if shapes == ((len(COLUMNS),), (classes,)) else None

    def write(self, scene: int, row: int, found: ScoredWindows) -> None:
        """Keep a row of windows.

        Raises:
            OSError: if it cannot be written.
        """
        arrays: Arrays = {"numbers": found.numbers, "class_pixels": found.class_pixels, "features": found.features}
        self._save(f"{scene}-{row}", arrays)

    def read_features(self) -> Floats | None:
        """Return the features of labelled chips; None if they are not there."""
        arrays = self._load(FEATURES)
        return None if arrays is None else arrays.get("features")

    def write_features(self, features: Floats) -> None:
        """Keep the features of labelled chips."""
        self._save(FEATURES, {"features": features})

    def _load(self, name: str) -> Arrays | None:
        with (
            suppress(OSError, ValueError, zipfile.BadZipFile, KeyError),
            (self.folder / f"{name}.npz").open("rb") as file,
            np.load(file) as arrays,
        ):
            return {key: arrays[key] for key in arrays.files}
        return None

    def _save(self, name: str, arrays: Arrays) -> None:
        content, named = io.BytesIO(), dict[str, Any](arrays)
        np.savez(content, **named)
        path = self.folder / f"{name}.npz"
        unfinished = path.with_name(unfinished_name(path.name))
        try:
            unfinished.write_bytes(content.getvalue())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def opened_journal(out: Path, key: str) -> Iterator[Journal]:
    """Yield the journal of a run, with the rows of an interrupted one of the same key; remove it at the end.

    After an error it stays.

    Raises:
        OutputError: if it cannot be written, or its folder holds files of others.
    """
    folder = partial_path(out)
    with write_errors(folder):
        if folder.exists():
            require_owned(folder, WORK_FOLDER, use_list=False)
            if read_state(folder / STATE).get("key") != key:
                if any(folder.glob("*.npz")):
                    logger.info(
                        f"A previous unfinished run of {out.name} used a different model, input or options; starting "
                        "over."
                    )
                remove_owned(folder, WORK_FOLDER)
        folder.mkdir(exist_ok=True)
        write_state(folder / STATE, {"key": key})
        yield Journal(folder)
        remove_owned(folder, WORK_FOLDER)
