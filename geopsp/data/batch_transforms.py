"""Normalisation and transforms of a whole batch on its device, with what was drawn for each chip.

Symmetry and scale are one pair of matrices for each chip, which resample rows and columns; labels and valid masks take
the nearest pixels. So the number of launches does not depend on the number of chips.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import v2

from geopsp.core.bands import Normalization
from geopsp.core.legend import IGNORE_INDEX
from geopsp.data.augment import RandomBlurOrNoise, RandomBrightness, RandomD4, RandomGamma, RandomScale, blur
from geopsp.data.chip_batch import ChipBatch
from geopsp.data.dataset import Sample
from geopsp.data.drawn_changes import (
    ACROSS,
    DOWN,
    GAMMA,
    LEFT,
    NOISE,
    SCALE,
    SEED,
    SIGMA,
    SWAP,
    ChangeLayout,
)  # fmt: skip


class BatchTransforms:
    """Makes samples of chips that were sent as they are stored. The same chips as on a CPU, but for rounding and noise.

    Noise is drawn on the device, from a seed of each chip.
    """

    def __init__(self, normalization: Normalization, transform: v2.Transform | None) -> None:
        """Take the normalisation, and the transforms by which chips were drawn; None: there are none."""
        self.mean, self.scale = torch.from_numpy(normalization.mean), torch.from_numpy(1 / normalization.std)
        self.layout = ChangeLayout.of(transform, len(self.mean))

    @torch.no_grad()
    def __call__(self, batch: ChipBatch, device: torch.device) -> Sample:
        """Copy a batch to a device, and return what the network takes."""
        image, valid, label, row, changes = (part.to(device, non_blocking=True) for part in batch[:5])
        with torch.autocast(device.type, enabled=False):
            if not batch.is_final:
                image = self._normalised(image, valid)
            if not batch.is_final and self.layout is not None and self.layout.steps:
                image, valid, label = self._transformed(image, valid, label, changes, batch.changes)
        return Sample(image, valid[:, None].float(), label.long(), row)

    def _normalised(self, image: Tensor, valid: Tensor) -> Tensor:
        if self.mean.device != image.device:
            self.mean, self.scale = self.mean.to(image.device), self.scale.to(image.device)
        pixels = (image.float() - self.mean[:, None, None]) * self.scale[:, None, None]
        return pixels.masked_fill(~valid[:, None], 0)

    def _transformed(
        self, image: Tensor, valid: Tensor, label: Tensor, changes: Tensor, on_host: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Apply the changes, (n, size), which are also on the host."""
        assert self.layout is not None
        if self.layout.has(RandomD4) or self.layout.has(RandomScale):
            image, valid, label = _moved(image, valid, label, changes)
        if self.layout.has(RandomBrightness):
            gain, shift = changes[:, SEED + 1 :].view(len(image), 2, -1, 1, 1).unbind(dim=1)
            image = image * gain + shift
        for step in self.layout.steps:
            if isinstance(step, RandomGamma):
                share = (image / (2 * step.reach) + 0.5).clamp(0, 1)
                image = image + 2 * step.reach * (share ** changes[:, GAMMA].view(-1, 1, 1, 1) - share)
        if self.layout.has(RandomBlurOrNoise):
            _blur_or_add_noise(image, on_host)
        invalid = ~valid
        return image.masked_fill(invalid[:, None], 0), valid, label.masked_fill(invalid, IGNORE_INDEX)


def _blur_or_add_noise(image: Tensor, on_host: Tensor) -> None:
    """Change the few chips of a batch that were chosen, in place."""
    for number, (sigma, noise, seed) in enumerate(on_host[:, [SIGMA, NOISE, SEED]].tolist()):
        if sigma:
            image[number] = blur(image[number], sigma)
        elif noise:
            generator = torch.Generator(image.device).manual_seed(int(seed))
            image[number] += noise * torch.randn(image[number].shape, device=image.device, generator=generator)


class _Axes(NamedTuple):
    """How axes of chips are resampled; k is one axis of one chip."""

    weights: Tensor
    """(k, side, side): what each pixel takes from those before, bilinear with antialiasing."""

    nearest: Tensor
    """(k, side): the pixel before that is nearest."""

    inside: Tensor
    """(k, side): True if there is one."""


def _moved(image: Tensor, valid: Tensor, label: Tensor, changes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flip, scale and transpose each chip of a batch."""
    side, swap = image.shape[-1], changes[:, SWAP] > 0
    scale, part, top, left = changes[:, SCALE : LEFT + 1].unbind(dim=1)
    first = torch.cat([torch.where(swap, left, top), torch.where(swap, top, left)])
    flipped = changes[:, DOWN : ACROSS + 1].T.flatten() > 0
    axes = _resample(side, scale.repeat(2), part.repeat(2), first, flipped)
    rows, cols = (_Axes(*both) for both in zip(*(part.chunk(2) for part in axes), strict=True))
    moved = rows.weights[:, None] @ image @ cols.weights[:, None].mT
    places = (rows.nearest[:, :, None] * side + cols.nearest[:, None, :]).flatten(1)
    valid, label = (plane.flatten(1).gather(1, places).view_as(plane) for plane in (valid, label))
    valid = valid & rows.inside[:, :, None] & cols.inside[:, None, :]
    moved = torch.where(swap[:, None, None, None], moved.mT, moved)
    valid, label = (torch.where(swap[:, None, None], plane.mT, plane) for plane in (valid, label))
    return moved, valid, label


def _resample(side: int, scale: Tensor, part: Tensor, first: Tensor, flipped: Tensor) -> _Axes:
    """Return how `RandomScale` resamples axes that were flipped before or not; arguments are (k,), but `side`.

    To enlarge, the pixels from `first` to `first + part` become all; to reduce, all become those.
    """
    scale, part, first, flipped = (each[:, None] for each in (scale, part, first, flipped))
    number = torch.arange(side, device=scale.device, dtype=torch.float32)
    enlarged, reduced = scale > 1, scale < 1
    length = torch.where(enlarged, part, side)  # of what is resampled
    step = length / torch.where(reduced, part, side)
    offset = torch.where(enlarged, first, 0.0)
    after = number - torch.where(reduced, first, 0.0)  # k side, pixels in the part
    inside = ~reduced | ((after >= 0) & (after < part))
    nearest = ((after + 0.5) * step).floor().clamp(min=0).minimum(length - 1) + offset
    before = number - offset  # k side
    distance = (before[:, None, :] + 0.5 - ((after + 0.5) * step)[:, :, None]).abs()
    weights = (1 - distance / step.clamp_min(1)[:, :, None]).clamp_min(0)
    used = ((before >= 0) & (before < length))[:, None, :] & inside[:, :, None]
    weights = weights.masked_fill(~used, 0)
    weights = weights / weights.sum(dim=2, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    weights = torch.where(flipped[:, :, None], weights.flip(2), weights)
    nearest = torch.where(flipped, side - 1 - nearest, nearest)
    return _Axes(weights, nearest.long(), inside)
