"""MapPlan: what a call would write and cost, for dry runs."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from geopsp.core.addresses import shown
from geopsp.inference.estimate import MapCost

logger = logging.getLogger(__name__)

MAX_NAMED = 10
"""Outputs that a plan names."""


@dataclass(frozen=True, slots=True)
class MapPlan:
    """What a call would write and cost."""

    outputs: tuple[Path, ...]
    lines: tuple[str, ...]
    """What is known of the work, in words."""

    cost: MapCost

    @classmethod
    def collect(cls, outputs: tuple[Path, ...], costs: Generator[str, None, MapCost]) -> Self:
        """Make a plan of all lines of an estimate, and the costs that it returns."""
        lines = []
        while True:
            try:
                lines.append(next(costs))
            except StopIteration as end:
                return cls(outputs, tuple(lines), end.value)

    def log(self) -> None:
        """Say all of it."""
        names = [shown(path) for path in self.outputs[:MAX_NAMED]]
        more = f" and {len(self.outputs) - MAX_NAMED:,} more" if len(self.outputs) > MAX_NAMED else ""
        logger.info(f"Would write {', '.join(names)}{more}.")
        for line in self.lines:
            logger.info(line)
