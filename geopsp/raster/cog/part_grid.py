"""The parts that a large raster is made and stored in.

A part is made by itself, so that parts need nothing of each other. They are numbered down each column of parts.
"""

from __future__ import annotations

from dataclasses import dataclass

from geopsp.core.grid import Window

BLOCK = 512
"""Side of the blocks that a map is stored in."""


SIDE = 8192
"""Side of a part, where a map is larger."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the map that is made, and stored, at a time."""

    number: int
    window: Window


@dataclass(frozen=True, slots=True)
class PartGrid:
    """Parts that cover width x height pixels, numbered down each column of them."""

    width: int
    height: int
    part_width: int = SIDE
    part_height: int = SIDE
    block: int = BLOCK

    def __post_init__(self) -> None:
        assert self.part_width % self.block == self.part_height % self.block == 0

    @property
    def levels(self) -> int:
        """How often a part can be halved so that its blocks still are the map's: overviews that it holds."""
        count = 0
        while (self.part_width >> count) % (2 * self.block) == (self.part_height >> count) % (2 * self.block) == 0:
            count += 1
        return count

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of parts."""
        return -(-self.height // self.part_height), -(-self.width // self.part_width)

    def __len__(self) -> int:
        """How many parts there are."""
        return self.shape[0] * self.shape[1]

    def part(self, number: int) -> Part:
        """The part of that number."""
        col, row = divmod(number, self.shape[0])
        corner = Window(col * self.part_width, row * self.part_height, self.part_width, self.part_height)
        return Part(number, corner.intersect(Window(0, 0, self.width, self.height)))

    def runs(self, numbers: list[int]) -> list[list[Part]]:
        """The parts of these ascending numbers, those together that follow each other down the map."""
        runs: list[list[Part]] = []
        for number in numbers:
            if runs and runs[-1][-1].number == number - 1 and number % self.shape[0]:
                runs[-1].append(self.part(number))
            else:
                runs.append([self.part(number)])
        return runs
