"""Mean-field inference of the CRF on any device."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import torch
from torch import Tensor

from geopsp.models import crf_numba, crf_torch
from geopsp.models.crf import CRFParameters

COMPILED = ("geopsp.models.crf_numba",)
"""Modules with the compiled functions that a CRF on the CPU needs."""

LEAST_PROBABILITY = 2.0**-18
"""A class that is predicted at all has at least this probability: half a step of the scores of maps."""


def mean_field(
    probabilities: Tensor,
    image: Tensor,
    valid: Tensor,
    crf: CRFParameters,
    *,
    excluded: Sequence[int] = (),
    core: slice | None = None,
    pool: Executor | None = None,
) -> Tensor:
    """Return the probabilities of a CRF, (classes, rows, cols), which sum to one where valid; 0 elsewhere.

    Args:
        probabilities: (classes, rows, cols) float32 of the network.
        image: (bands, rows, cols) float32 on the same device: bands, normalised as for the network.
        valid: (rows, cols) bool on the same device; other pixels neither give nor take messages.
        crf: The parameters.
        excluded: Channels that are never predicted.
        core: Rows that are returned; others count as far as the halo reaches. None: all.
        pool: Threads for the CPU; None: the caller's.
    """
    core = core or slice(0, valid.shape[0])
    prior = probabilities.clamp(min=LEAST_PROBABILITY)
    prior[list(excluded)] = 0
    prior = torch.where(valid, prior, 0)
    total = prior[0].clone()
    for channel in prior[1:]:  # in this order on all devices and for any shape
        total += channel
    prior /= torch.where(valid, total, 1)
    if prior.device.type != "cpu":
        return crf_torch.mean_field(prior, image, valid, crf)[:, core]
    known, bands = valid.contiguous().numpy(), image.contiguous().numpy()
    found = crf_numba.mean_field(prior.contiguous().numpy(), bands, known, crf, core=core, pool=pool)
    return torch.from_numpy(found)
