"""The classes of maps, models and chips, matched by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geopsp.core.argument_names import did_you_mean_one
from geopsp.core.legend import IGNORE_INDEX, ClassInfo
from geopsp.core.text import format_count
from geopsp.errors import LabelError, OptionError
from geopsp.labels.class_mapping import OTHERS, ClassTarget, Value, read_mapping, value_name
from geopsp.labels.look_alikes import canonical_text
from geopsp.polygons.attributes import file_classes, legend_for
from geopsp.polygons.class_raster import ClassRaster
from geopsp.raster.legend_io import read_class_table

logger = logging.getLogger(__name__)

NameMapping = Mapping[str, ClassTarget]
"""Targets by matched name, see `match_key`."""


@dataclass(frozen=True, slots=True, eq=False)
class MapClasses:
    """The classes of a map, a model or chips."""

    name: str
    """Whose they are, for messages."""

    classes: tuple[ClassInfo, ...]
    """Codes are those that `ClassRaster.read` gives; of models and chips, channel indices."""


@dataclass(frozen=True, slots=True, eq=False)
class JointClasses:
    """The classes of all together."""

    names: tuple[str, ...]
    """Those of the first in the order of their codes, then those that the next has besides, and so on."""

    colors: tuple[str, ...]
    """#rrggbb"""

    tables: tuple[NDArray[np.uint8], ...]
    """For each owner (256,) positions in `names` by code; IGNORE_INDEX for codes that are no class."""

    def __len__(self) -> int:
        return len(self.names)


def match_key(name: str) -> str:
    """Return the form of a class name in which names of two maps are compared."""
    return canonical_text(name).casefold()


def open_class_raster(path: str, *, nodata: float | Literal["none"] | None) -> tuple[ClassRaster, MapClasses]:
    """Open a map, and find the classes that it names or has.

    Raises:
        InputNotFoundError, RasterError, GridError: as `ClassRaster.open` and `ClassRaster.number_values`.
    """
    raster = ClassRaster.open(path, nodata=nodata)
    counts = raster.number_values(asked=nodata)
    legend = legend_for(path, raster.values)
    if counts is None:  # a map of ours names all its classes
        named, _ = read_class_table(path)
        return raster, MapClasses(path, tuple(info for info in legend if info.code in named))
    values = file_classes(legend, raster.values)
    present = [info for info, value in zip(legend, values, strict=True) if value.code in counts.pixels]
    if not present:
        raise LabelError(f"{path} has no class: all its pixels are nodata. Check the file, and its nodata value.")
    return raster, MapClasses(path, tuple(present))


def join_classes(*owners: MapClasses, mapping: Any = None) -> JointClasses:
    """Match the classes of maps, models or chips by name; upper and lower case do not matter.

    Args:
        *owners: Classes of each.
        mapping: From class names to new ones, as `class_mapping` of `ChangeOptions`.

    Raises:
        OptionError: if the mapping cannot be understood, names no class, or leaves none.
        LabelError: if there are too many classes.
    """
    targets = _by_name(read_mapping(mapping))
    _check_keys(targets, owners)
    joint: dict[str, ClassInfo] = {}
    tables = tuple(_table(each, targets, joint) for each in owners)
    if not joint:
        raise OptionError("`class_mapping` leaves no class: it makes all nodata. Map at least one class to a name.")
    if len(joint) > IGNORE_INDEX:
        raise LabelError(
            f"{' and '.join(each.name for each in owners)} have {len(joint)} classes together, but at most "
            f"{IGNORE_INDEX} can be compared. Merge some with `class_mapping`."
        )
    found = list(joint.values())
    return JointClasses(tuple(info.name for info in found), tuple(info.color for info in found), tables)


def warn_if_disjoint(one: MapClasses, other: MapClasses, joint: JointClasses) -> None:
    """Warn if two maps have no class in common."""
    first, second = (set(table.tolist()) for table in joint.tables)
    if not first & second - {IGNORE_INDEX}:
        logger.warning(
            f"{one.name} and {other.name} have no class in common ({_listed(one)}; {_listed(other)}), so all ground "
            "has changed. If only names differ, map one to the other with `class_mapping`."
        )


def _listed(classes: MapClasses) -> str:
    names = [info.name for info in classes.classes]
    return ", ".join(names[:8]) + ", ..." * (len(names) > 8)


def _by_name(mapping: Mapping[Value, ClassTarget] | None) -> dict[str, ClassTarget]:
    """Return the targets by matched name; numbers name classes without a name, by code."""
    targets = {}
    for key, target in (mapping or {}).items():
        if target.code is not None:
            raise OptionError(
                f"`class_mapping` gives {target.name!r} the code {target.code}, but codes follow from the classes "
                "that are compared. Give a name, or a name and a color."
            )
        name = str(key) if key == OTHERS else f"class {key}" if isinstance(key, int) else value_name(key)
        targets[match_key(name)] = target
    return targets


def _check_keys(targets: NameMapping, owners: Sequence[MapClasses]) -> None:
    """Warn of keys of the mapping that are no class.

    Raises:
        OptionError: if none is.
    """
    names = {match_key(info.name): info.name for each in owners for info in each.classes}
    unknown = [key for key in targets if key not in names and key != OTHERS]
    if not unknown:
        return
    hint = did_you_mean_one(unknown, names.values())
    if len(unknown) == len(targets):
        raise OptionError(
            f"`class_mapping` names {', '.join(unknown)}, but the classes are "
            f"{', '.join(names.values())}.{hint} Correct its keys, or leave it out."
        )
    logger.warning(f"`class_mapping` names {', '.join(unknown)}, which are no classes here.{hint}")


def _table(each: MapClasses, targets: NameMapping, joint: dict[str, ClassInfo]) -> NDArray[np.uint8]:
    """Return (256,) positions by code; classes that are new are added to `joint`."""
    table = np.full(256, IGNORE_INDEX, np.uint8)
    merged: dict[str, list[str]] = {}
    for info in each.classes:
        key = match_key(info.name)
        target = targets.get(key) or targets.get(OTHERS)
        if target is not None and target.name is None:
            continue
        if target is not None:
            info = replace(info, name=str(target.name), color=target.color or info.color)  # noqa: PLW2901
            key = match_key(info.name)
        else:
            merged.setdefault(key, []).append(info.name)
        joint.setdefault(key, info)
        table[info.code] = min(list(joint).index(key), IGNORE_INDEX)
    for names in merged.values():
        if len(names) > 1:
            logger.warning(f"{each.name} has {format_count(len(names), 'class', 'classes')} of one name but for upper "
                           f"and lower case ({', '.join(names)}); they count as one.")  # fmt: skip
    return table
