"""The first layer of pretrained weights, put on the bands of the input.

Networks here see each band standardised by the statistics of the training chips. Filters that were learned on other
values v (digital numbers / 10000, say) are multiplied by the standard deviation of v, so that a band has the weight
that it had in pretraining: cirrus, whose digital numbers hardly vary, stays as quiet as it was. The mean of v is left
out: the mean response to standardised bands is 0, which becomes the running mean of the norm behind the layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

COLORS = {"red": 0, "green": 1, "blue": 2}
"""Input channels of pretrained filters, by band name."""


PIXEL_CORRELATION, BAND_CORRELATION = 0.95, 0.9
"""Of neighbouring pixels, and of two bands at a pixel, in images of the ground.

The running variances of four published networks for standardised bands are 0.86 to 1.0 of those that their filters
predict with both (docs/benchmarks.md).
"""


def adapt_stem(filters: Tensor, band_names: tuple[str, ...]) -> Tensor:
    """Adapt the filters of a first layer for red, green and blue, (out, 3, k, k), to other bands: (out, bands, k, k).

    Red, green and blue take the filters of their color, other bands the mean of the three, all scaled by 3 / bands to
    keep the size of the response. Three bands without any color among their names are taken for red, green and blue.
    """
    colors = [COLORS.get(name.lower()) for name in band_names]
    if len(colors) == len(COLORS) and not any(color is not None for color in colors):
        return filters
    mean = filters.mean(dim=1)
    parts = [mean if color is None else filters[:, color] for color in colors]
    return torch.stack(parts, dim=1) * (len(COLORS) / len(band_names))


def match_stem(filters: Tensor, positions: Sequence[int | None]) -> Tensor:
    """Put the filters of a first layer, (out, given, k, k), on other bands: (out, bands, k, k).

    Bands that the layer does not know start from the mean of its bands. One factor for all keeps the expected size of
    the response, see `response_variance`.

    Args:
        filters: For standardised bands.
        positions: Of each band of the input among the given ones; None: it is not among them.
    """
    mean = filters.mean(dim=1)
    matched = torch.stack([mean if i is None else filters[:, i] for i in positions], dim=1)
    before, after = (response_variance(each).sum().item() for each in (filters, matched))
    return matched * math.sqrt(before / after) if after > 0 else matched


def response_variance(filters: Tensor) -> Tensor:
    """Return the expected variance, (out,), of the response of filters, (out, bands, k, k), to standardised bands.

    The bands are a random field that correlates by `PIXEL_CORRELATION` to the power of the distance in pixels, and by
    `BAND_CORRELATION` between bands.
    """
    _, bands, rows, columns = filters.shape
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()
    pixels = PIXEL_CORRELATION ** torch.cdist(places, places)
    between = torch.full((bands, bands), BAND_CORRELATION, dtype=torch.float64).fill_diagonal_(1.0)
    flat = filters.detach().double().flatten(2)
    return torch.einsum("obp,bc,pq,ocq->o", flat, between, pixels.to(flat), flat)


def standardise_stem(
    state: Mapping[str, Tensor], stem: str, norm: str, std: Sequence[float] | None
) -> dict[str, Tensor]:
    """Return the tensors of an encoder that was trained on other values, for standardised bands.

    Args:
        state: Of the encoder.
        stem: Key of the filters of its first layer.
        norm: Key of the running mean of the norm behind it, "" if there is none.
        std: Standard deviation of each band as the encoder saw it; empty: unknown. One for all bands is then estimated
            from the running variance of the norm, so that a frozen encoder, too, sees responses of the size it knows.
    """
    filters = state[stem]
    if not std and norm:
        seen = state[norm.replace("running_mean", "running_var")].double().sum().item()
        expected = response_variance(filters).sum().item()
        std = [math.sqrt(seen / expected) if expected > 0 else 1.0] * filters.shape[1]
    scaled = filters * filters.new_tensor(std or [1.0] * filters.shape[1])[:, None, None]
    return {**state, stem: scaled} | ({norm: torch.zeros_like(state[norm])} if norm else {})
