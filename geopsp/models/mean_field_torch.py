"""Mean-field inference of the CRF on tensors of any device."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import torch
from torch import Tensor

from geopsp.models import crf_torch
from geopsp.models.crf import CRFParameters
from geopsp.models.mean_field import LEAST_PROBABILITY
from geopsp.models.mean_field import mean_field as mean_field_on_cpu


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
    """Return the probabilities of a CRF on the tensors' device; see `mean_field.mean_field`."""
    core = core or slice(0, valid.shape[0])
    if probabilities.device.type == "cpu":
        arrays = probabilities.numpy(), image.numpy(), valid.numpy()
        return torch.from_numpy(mean_field_on_cpu(*arrays, crf, excluded=excluded, core=core, pool=pool))
    prior = probabilities.clamp(min=LEAST_PROBABILITY)
    prior[list(excluded)] = 0
    prior = torch.where(valid, prior, 0)
    total = prior[0].clone()
    for channel in prior[1:]:  # in this order on all devices and for any shape
        total += channel
    prior /= torch.where(valid, total, 1)
    return crf_torch.mean_field(prior, image, valid, crf)[:, core]
