"""Changes of a chip that leave its meaning: on image, labels and validity together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from geopsp.core.legend import IGNORE_INDEX

SEEN = 1
"""Validity in the mask; whatever else a transform fills in from outside, be it 0 or 255, shows nothing."""


class RandomD4(v2.Transform):
    """One of the eight symmetries of the square, exactly."""

    def _get_name(self) -> str:
        return "RandomSymmetry"  # the name in run.json of version 0.1

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        down, across, swap = torch.randint(2, (3,)).tolist()
        return {"flips": [axis for axis, wanted in ((-2, down), (-1, across)) if wanted], "swap": swap}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        turned = inpt.as_subclass(Tensor)
        turned = turned.flip(params["flips"]) if params["flips"] else turned
        return tv_tensors.wrap(turned.mT.contiguous() if params["swap"] else turned, like=inpt)


class RandomScale(v2.Transform):
    """The chip shown larger or smaller, by a factor within `low` to `high`; what comes from outside shows nothing.

    A part of whole pixels is resized: onto the whole chip, or the whole chip onto a part.
    """

    def __init__(self, low: float, high: float, chance: float = 0.5) -> None:
        super().__init__()
        self.low, self.high, self.chance = low, high, chance

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        if torch.rand(()) >= self.chance:
            return {"scale": 1.0}
        side = flat_inputs[0].shape[-1]
        scale = float(torch.empty(()).uniform_(self.low, self.high))
        part = max(1, round(side / scale if scale > 1 else side * scale))
        top, left = torch.randint(side - part + 1, (2,)).tolist()
        return {"scale": scale, "part": (..., slice(top, top + part), slice(left, left + part)), "size": part}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if params["scale"] == 1:
            return inpt
        image, pixels = isinstance(inpt, tv_tensors.Image), inpt.as_subclass(Tensor)
        if params["scale"] > 1:
            return tv_tensors.wrap(_resize(pixels[params["part"]], pixels.shape[-1], smooth=image), like=inpt)
        moved = torch.zeros_like(pixels)
        moved[params["part"]] = _resize(pixels, params["size"], smooth=image)
        return tv_tensors.wrap(moved, like=inpt)


def _resize(pixels: Tensor, side: int, *, smooth: bool) -> Tensor:
    """(planes, h, w) -> (planes, side, side)."""
    how: dict[str, Any] = {"mode": "bilinear", "antialias": True} if smooth else {"mode": "nearest-exact"}
    return F.interpolate(pixels[None], size=(side, side), **how)[0]


class RandomBrightness(v2.Transform):
    """Normalised pixels stretched and shifted: contrast and brightness of all bands, a little of each alone."""

    def __init__(self, contrast: float = 0.2, brightness: float = 0.2, each: float = 0.05) -> None:
        super().__init__()
        self.contrast, self.brightness, self.each = contrast, brightness, each

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        bands = flat_inputs[0].shape[-3]
        gain = 1 + torch.empty(()).uniform_(-self.contrast, self.contrast)
        shift = torch.empty(()).uniform_(-self.brightness, self.brightness)
        own = torch.empty(2, bands, 1, 1).uniform_(-self.each, self.each)
        return {"gain": gain + own[0], "shift": shift + own[1]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        pixels = inpt.as_subclass(Tensor) * params["gain"]
        return tv_tensors.wrap(pixels.add_(params["shift"]), like=inpt)


def default_transforms() -> v2.Transform:
    """What training does unless told otherwise."""
    return v2.Compose([RandomD4(), RandomScale(0.75, 1.4), RandomBrightness()])


def transform_chip(
    transform: v2.Transform, image: Tensor, valid: Tensor, label: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The chip, changed: image 0 and label IGNORE where it is not valid.

    Args:
        transform: On a `tv_tensors.Image` and a `tv_tensors.Mask`.
        image: (bands, h, w) float32, normalised.
        valid: (1, h, w) float32, 0 or 1.
        label: (h, w) int64 or uint8; int64 in the result.
    """
    planes = torch.stack([label.to(torch.uint8), (valid[0] > 0).to(torch.uint8)])
    moved, masks = transform(tv_tensors.Image(image), tv_tensors.Mask(planes))
    image, (label, seen) = moved.as_subclass(Tensor), masks.as_subclass(Tensor)
    hidden = seen != SEEN
    if hidden.any():
        image = image * ~hidden
        label = label.maximum(hidden.to(torch.uint8) * IGNORE_INDEX)  # the greatest of all codes
    return image, (~hidden).float()[None], label.long()
