"""Mean-field inference of the CRF as tensor operations, for GPUs."""

from __future__ import annotations

import torch
from torch import Tensor

from geopsp.models.crf import CRFParameters

LEAST = 1e-9
"""Colour kernels below it are 0, as on the CPU."""


def mean_field(prior: Tensor, image: Tensor, valid: Tensor, crf: CRFParameters) -> Tensor:
    """Return the probabilities, (classes, rows, cols), after all iterations; 0 where invalid.

    Args:
        prior: (classes, rows, cols) float32 probabilities, which sum to one where valid, 0 elsewhere.
        image: (bands, rows, cols) float32, normalised bands.
        valid: (rows, cols) bool; other pixels neither give nor take messages.
        crf: The parameters.
    """
    offsets, taps = crf.offsets(), crf.taps()
    weights = [_similarity(image, valid, offset, crf) for offset in offsets]
    known = valid.to(prior.dtype)
    appearance = crf.appearance_weight / (1 + _pair_sum(torch.ones_like(prior[:1]), weights, offsets)[0])
    smoothness = crf.smoothness_weight * known / (_smooth(known[None], taps)[0] + (1 - known))
    now = prior
    for _ in range(crf.iterations):
        message = _pair_sum(now, weights, offsets).mul_(appearance)
        message += (_smooth(now, taps) - now).mul_(smoothness)
        now = prior * (message - message.amax(dim=0)).exp_()
        total = now.sum(dim=0)
        now *= torch.where(total > 0, 1 / total, 0)
    return now


def _shifted(length: int, offset: int) -> tuple[slice, slice]:
    """Return where pixels with a neighbour at the offset lie along an axis, and where these neighbours lie."""
    first, stop = max(0, -offset), max(0, min(length, length - offset))
    return slice(first, max(first, stop)), slice(first + offset, max(first, stop) + offset)


def _pair(shape: torch.Size, offset: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the areas of the pixels of all pairs, and of their neighbours."""
    (rows, other_rows), (cols, other_cols) = (_shifted(n, step) for n, step in zip(shape[-2:], offset, strict=True))
    return (rows, cols), (other_rows, other_cols)


def _similarity(image: Tensor, valid: Tensor, offset: tuple[int, int], crf: CRFParameters) -> Tensor:
    """Return the appearance kernel of all pairs of pixels at an offset."""
    here, there = _pair(image.shape, offset)
    difference = (image[:, *here] - image[:, *there]).square_().sum(dim=0)
    kernel = difference.mul_(-1 / (2 * crf.color_sigma**2 * len(image))).exp_()
    near = torch.tensor(-(offset[0] ** 2 + offset[1] ** 2) / (2 * crf.appearance_sigma**2)).exp().item()
    return torch.where(valid[here] & valid[there] & (kernel > LEAST), kernel * near, 0)


def _pair_sum(values: Tensor, weights: list[Tensor], offsets: list[tuple[int, int]]) -> Tensor:
    """Return the sum of the neighbours' values times weights, those of each pair on both sides."""
    total = torch.zeros_like(values)
    for weight, offset in zip(weights, offsets, strict=True):
        here, there = _pair(values.shape, offset)
        total[:, *here].addcmul_(weight, values[:, *there])
        total[:, *there].addcmul_(weight, values[:, *here])
    return total


def _smooth(values: Tensor, taps: list[float]) -> Tensor:
    """Return the sum of the neighbours' values, and of the pixel's own, times the smoothness kernel."""
    for axis in (1, 2):
        total = values * taps[0]
        for distance, tap in enumerate(taps[1:], 1):
            if distance < values.shape[axis]:
                length = values.shape[axis] - distance
                total.narrow(axis, 0, length).add_(values.narrow(axis, distance, length), alpha=tap)
                total.narrow(axis, distance, length).add_(values.narrow(axis, 0, length), alpha=tap)
        values = total
    return values
