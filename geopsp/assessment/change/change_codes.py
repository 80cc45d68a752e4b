"""Codes, names and colours of the transitions between the classes of two maps."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geopsp.assessment.joint_classes import JointClasses
from geopsp.core.legend import IGNORE_INDEX, ClassInfo, Legend

logger = logging.getLogger(__name__)

OTHER_CHANGES = "other changes"
"""Name of the class of rare changes, where there are more than codes."""

OTHER_CODE = IGNORE_INDEX - 1
"""Its code."""

UNCHANGED = "{} (unchanged)"

CHANGED = "{} -> {}"

PALE = 0.75
"""How much of the colour of unchanged ground is white."""

FROM_SHARE = 0.3
"""How much of the colour of a change is that of the class before."""


@dataclass(frozen=True, slots=True, eq=False)
class ChangeCodes:
    """The code of each pair of classes."""

    classes: JointClasses

    table: NDArray[np.uint8]
    """(classes, classes) code by class before and class after; IGNORE_INDEX for pairs that do not occur."""

    @classmethod
    def of_classes(cls, classes: JointClasses) -> ChangeCodes | None:
        """Return codes that depend on the classes alone; None if there are more pairs than codes.

        Unchanged classes have the codes 0, 1, ... in the order of the classes, then come the changes by class before
        and class after.
        """
        count = len(classes)
        if count**2 > IGNORE_INDEX:
            return None
        return cls(classes, _numbered(np.ones((count, count), bool)))

    @classmethod
    def of_areas(cls, classes: JointClasses, areas: NDArray[np.float64]) -> ChangeCodes:
        """Return codes of the pairs that occur; if these are too many, the smallest changes share one code.

        Args:
            classes: The classes.
            areas: (classes, classes) area by class before and class after.
        """
        occurs = areas > 0
        changes = occurs & ~np.eye(len(classes), dtype=bool)
        stays = occurs & ~changes
        room = IGNORE_INDEX - int(stays.sum())
        if changes.sum() <= room:
            return cls(classes, _numbered(occurs))
        order = np.argsort(np.where(changes, -areas, np.inf), axis=None, kind="stable")
        kept = np.zeros(areas.shape, bool)
        kept.flat[order[: room - 1]] = True
        table = _numbered(stays | kept)
        rest = changes & ~kept
        table[rest] = OTHER_CODE
        logger.warning(
            f"There are {int(changes.sum())} different changes, but {room} codes for them: the smallest "
            f"{int(rest.sum())} ({areas[rest].sum() / areas[changes].sum():.2%} of the changed area) share the class "
            f"{OTHER_CHANGES!r} in the raster. The table has them all. Merge classes with `class_mapping` for less."
        )
        return cls(classes, table)

    @property
    def lookup(self) -> NDArray[np.uint8]:
        """(65536,) code by 256 x class before + class after; IGNORE_INDEX where one is unknown."""
        count, table = len(self.classes), np.full((256, 256), IGNORE_INDEX, np.uint8)
        table[:count, :count] = self.table
        return table.ravel()

    @property
    def is_change(self) -> NDArray[np.bool_]:
        """(256,) True for codes of changes."""
        found = np.zeros(256, bool)
        found[self.table[~np.eye(len(self.classes), dtype=bool)]] = True
        found[IGNORE_INDEX] = False
        return found

    def infos(self) -> dict[int, ClassInfo]:
        """Return name and colour of each code."""
        return {int(code): self._info(*map(int, pair)) for pair, code in np.ndenumerate(self.table)
                if code != IGNORE_INDEX}  # fmt: skip

    def legend(self) -> Legend:
        """Return the classes of the raster."""
        infos = self.infos()
        return Legend(tuple(infos[code] for code in sorted(infos)))

    def pair_names(self) -> dict[int, tuple[str, str] | None]:
        """Return the class before and the class after of each code; None for the class of other changes."""
        names, found = self.classes.names, {}
        for (before, after), code in np.ndenumerate(self.table):
            if code != IGNORE_INDEX:
                found[int(code)] = None if self._is_other(before, after) else (names[before], names[after])
        return found

    def name_of(self, before: int, after: int) -> str:
        """Return the name of a pair as in the legend, also of one that shares its code."""
        names = self.classes.names
        return UNCHANGED.format(names[before]) if before == after else CHANGED.format(names[before], names[after])

    def _is_other(self, before: int, after: int) -> bool:
        code = self.table[before, after]
        return bool(code == OTHER_CODE and np.count_nonzero(self.table == code) > 1)

    def _info(self, before: int, after: int) -> ClassInfo:
        code, colors = int(self.table[before, after]), self.classes.colors
        if before == after:
            return ClassInfo(code, self.name_of(before, after), _blend("#ffffff", colors[before], PALE))
        if self._is_other(before, after):
            return ClassInfo(code, OTHER_CHANGES, "#7f7f7f")
        return ClassInfo(code, self.name_of(before, after), _blend(colors[before], colors[after], FROM_SHARE))


def _numbered(occurs: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Number pairs: unchanged classes first, then changes by class before and class after."""
    table = np.full(occurs.shape, IGNORE_INDEX, np.uint8)
    same = np.eye(len(occurs), dtype=bool)
    stays = int((occurs & same).sum())
    table[occurs & same] = np.arange(stays)
    table[occurs & ~same] = np.arange(stays, int(occurs.sum()))
    return table


def _blend(one: str, other: str, share: float) -> str:
    """Return a mixture of two colours with this share of the first."""
    pairs = zip(bytes.fromhex(one[1:]), bytes.fromhex(other[1:]), strict=True)
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in pairs)
