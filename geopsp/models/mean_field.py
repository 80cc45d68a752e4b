"""Mean-field inference of the CRF on the CPU, on arrays of numpy."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from geopsp.models import crf_numba
from geopsp.models.crf import CRFParameters

COMPILED = ("geopsp.models.crf_numba",)
"""Modules with the compiled functions that a CRF on the CPU needs."""

LEAST_PROBABILITY = 2.0**-18
"""A class that is predicted at all has at least this probability: half a step of the scores of maps."""


def mean_field(
    probabilities: NDArray[np.float32],
    image: NDArray[np.float32],
    valid: NDArray[np.bool_],
    crf: CRFParameters,
    *,
    excluded: Sequence[int] = (),
    core: slice | None = None,
    pool: Executor | None = None,
) -> NDArray[np.float32]:
    """Return the probabilities of a CRF, (classes, rows, cols), which sum to one where valid; 0 elsewhere.

    Args:
        probabilities: (classes, rows, cols) float32 of the network.
        image: (bands, rows, cols) float32: bands, normalised as for the network.
        valid: (rows, cols) bool; other pixels neither give nor take messages.
        crf: The parameters.
        excluded: Channels that are never predicted.
        core: Rows that are returned; others count as far as the halo reaches. None: all.
        pool: Threads; None: the caller's.
    """
    prior = np.maximum(probabilities, np.float32(LEAST_PROBABILITY), order="C")
    prior[list(excluded)] = 0
    prior = np.where(valid, prior, np.float32(0))
    total = prior[0].copy()
    for channel in prior[1:]:  # in this order on all devices and for any shape
        total += channel
    prior /= np.where(valid, total, np.float32(1))
    arrays = np.ascontiguousarray(prior), np.ascontiguousarray(image), np.ascontiguousarray(valid)
    return crf_numba.mean_field(*arrays, crf, core=core or slice(0, valid.shape[0]), pool=pool)
