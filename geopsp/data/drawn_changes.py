"""What geopsp's own transforms draw for a chip, as one row of numbers, in the order in which they draw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2

from geopsp.data.augment import RandomBlurOrNoise, RandomBrightness, RandomD4, RandomGamma, RandomScale

ORDER = (RandomD4, RandomScale, RandomBrightness, RandomGamma, RandomBlurOrNoise)
"""The transforms that are known here, in the only order in which they can be repeated."""


DOWN, ACROSS, SWAP, SCALE, PART, TOP, LEFT, GAMMA, SIGMA, NOISE, SEED = range(11)
"""Numbers of a row: the symmetry, the factor of the scale, its square of `PART` pixels, and so on. Behind them stand
contrast and brightness of each band."""


UNCHANGED = {SCALE: 1.0, GAMMA: 1.0}

SEEDS = 2**24
"""Whole numbers that float32 holds."""


@dataclass(frozen=True, slots=True)
class ChangeLayout:
    """Which numbers of a row mean what, for some transforms and a number of bands."""

    steps: tuple[Any, ...]
    """The transforms."""

    bands: int

    @classmethod
    def of(cls, transform: v2.Transform | None, bands: int) -> ChangeLayout | None:
        """Return the layout of transforms; None: of no change. Returns None if not all of the transforms are known."""
        steps: Sequence[Any] = () if transform is None else [transform]
        if isinstance(transform, v2.Compose) and type(transform) is v2.Compose:
            steps = transform.transforms
        steps = [step for step in steps if type(step) is not v2.Identity]
        places = [ORDER.index(type(step)) if type(step) in ORDER else -1 for step in steps]
        if -1 in places or places != sorted(set(places)):
            return None
        return cls(tuple(steps), bands)

    @property
    def size(self) -> int:
        """Numbers of a row."""
        return SEED + 1 + 2 * self.bands

    def has(self, kind: type) -> bool:
        """Return True if there is such a transform."""
        return any(isinstance(step, kind) for step in self.steps)

    def draw(self, side: int) -> NDArray[np.float32]:
        """Draw a row for a chip of side x side pixels; torch's generator goes on as with the transforms themselves."""
        row = np.zeros(self.size, np.float32)
        for place, value in UNCHANGED.items():
            row[place] = value
        gain, shift = row[SEED + 1 :].reshape(2, self.bands)
        gain[:] = 1
        like = [torch.empty(self.bands, side, side, device="meta")]
        for step in self.steps:
            drawn = step.make_params(like)
            if "flips" in drawn:
                row[[DOWN, ACROSS, SWAP]] = -2 in drawn["flips"], -1 in drawn["flips"], drawn["swap"]
            elif "part" in drawn:
                _, rows, cols = drawn["part"]
                row[[SCALE, PART, TOP, LEFT]] = drawn["scale"], drawn["size"], rows.start, cols.start
            elif "gain" in drawn:
                gain[:], shift[:] = drawn["gain"].ravel(), drawn["shift"].ravel()
            elif "gamma" in drawn:
                row[GAMMA] = drawn["gamma"]
            elif "sigma" in drawn:
                row[SIGMA] = drawn["sigma"]
            elif "noise" in drawn:
                row[[NOISE, SEED]] = drawn["noise"], int(torch.randint(SEEDS, ()))
        return row
