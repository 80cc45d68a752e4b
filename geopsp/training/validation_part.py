"""What validates, as `split` and `valid_path` say it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd

from geopsp.data.split import Areas
from geopsp.data.split_groups import SplitBy, as_list
from geopsp.errors import OptionError
from geopsp.vector.open import open_layer


def validation_part(split: SplitBy, valid_path: Areas | None, *, cut: bool) -> dict[str, Any]:
    """The options of a split that say what validates.

    Args:
        split: What goes to one side as a whole.
        valid_path: What validates, chip folders or layers of polygons; None: what is drawn.
        cut: True if chips are cut from images, so that there are no folders.

    Raises:
        InputNotFoundError, LabelError: if polygons cannot be opened.
        OptionError: if these do not fit together.
    """
    if valid_path is None:
        if split in {"folder", "areas"}:
            raise OptionError(f"`split` is {split!r}, but there is no `valid_path`. Give `valid_path` instead.")
        return {"by": split}
    if split != "blocks":
        raise OptionError(f"`split` is {split!r}, but `valid_path` says what validates. Leave one of them out.")
    if not isinstance(valid_path, str | Path | gpd.GeoDataFrame | Sequence) or not (parts := as_list(valid_path)):
        raise OptionError(f"`valid_path` is {valid_path!r}, but must be chip folders, or layers of polygons.")
    folders = [part for part in parts if _is_folder(part)]
    if not folders:
        for part in parts:
            open_layer(part)
        return {"by": "areas", "areas": parts}
    if len(folders) < len(parts):
        raise OptionError(f"`valid_path` names both chip folders ({folders[0]}) and polygons. Choose one kind.")
    if cut:
        raise OptionError(
            f"`valid_path` names the folder {folders[0]}, but the chips are cut from images. Name polygons, or train "
            "from chip folders, too."
        )
    return {"by": "folder", "folders": [Path(folder) for folder in folders]}


def _is_folder(part: Any) -> bool:
    """True for a folder that is no geodatabase."""
    if isinstance(part, gpd.GeoDataFrame):
        return False
    if not isinstance(part, str | Path):
        raise OptionError(f"`valid_path` names {part!r}, but must name chip folders, or layers of polygons.")
    return Path(part).is_dir() and Path(part).suffix.lower() != ".gdb"
