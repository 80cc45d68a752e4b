"""The parts in which a large raster is made and stored.

Parts are independent of each other, so that they can be made in any order, or on several machines. They are numbered
down each column of parts.
"""

from __future__ import annotations

from dataclasses import dataclass

from geopsp.core.grid import Window

BLOCK = 512
"""Side of the blocks (tiles) of a written GeoTIFF, in pixels."""


SIDE = 8192
"""Default side of a part, in pixels."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part and its window on the raster."""

    number: int
    window: Window


@dataclass(frozen=True, slots=True)
class PartGrid:
    """Parts that partition a raster of `width` x `height` pixels, numbered down each column of parts."""

    width: int
    height: int
    part_width: int = SIDE
    part_height: int = SIDE
    block: int = BLOCK

    def __post_init__(self) -> None:
        assert self.part_width % self.block == self.part_height % self.block == 0

    @property
    def levels(self) -> int:
        """Number of overview levels that a part can store: as long as its edges fall on block edges of the level."""
        count = 0
        while (self.part_width >> count) % (2 * self.block) == (self.part_height >> count) % (2 * self.block) == 0:
            count += 1
        return count

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of parts."""
        return -(-self.height // self.part_height), -(-self.width // self.part_width)

    def __len__(self) -> int:
        """Return the number of parts."""
        return self.shape[0] * self.shape[1]

    def part(self, number: int) -> Part:
        """Return the part with this number."""
        col, row = divmod(number, self.shape[0])
        corner = Window(col * self.part_width, row * self.part_height, self.part_width, self.part_height)
        return Part(number, corner.intersect(Window(0, 0, self.width, self.height)))

    def runs(self, numbers: list[int]) -> list[list[Part]]:
        """Group parts, given by ascending numbers, into runs of vertical neighbours."""
        runs: list[list[Part]] = []
        for number in numbers:
            if runs and runs[-1][-1].number == number - 1 and number % self.shape[0]:
                runs[-1].append(self.part(number))
            else:
                runs.append([self.part(number)])
        return runs
