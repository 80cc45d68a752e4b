"""Transforms of chips, applied to image, labels and valid mask together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from geopsp.core.legend import IGNORE_INDEX

AUGMENTATION = "light"
"""The level of `AUGMENTATIONS` that is the default."""


MIN_SIGMA = 0.2
"""Least blur in pixels: torchvision takes no blur of 0."""


VALID = 1
"""Valid pixels in the mask. All other values are invalid, as transforms may fill with 0 or with 255."""


class RandomD4(v2.Transform):
    """One of the eight flips and rotations of the square, without resampling."""

    def _get_name(self) -> str:
        return "RandomSymmetry"  # the name in run.json of version 0.1, which a run is resumed by

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        down, across, swap = torch.randint(2, (3,)).tolist()
        return {"flips": [axis for axis, wanted in ((-2, down), (-1, across)) if wanted], "swap": swap}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        pixels = inpt.as_subclass(Tensor)
        pixels = pixels.flip(params["flips"]) if params["flips"] else pixels
        return tv_tensors.wrap(pixels.mT.contiguous() if params["swap"] else pixels, like=inpt)


class RandomScale(v2.Transform):
    """The chip enlarged or reduced by a factor from `low` to `high`, with probability `chance`.

    To enlarge, a random square of whole pixels is resized to the chip's size; to reduce, the chip is resized to such a
    square, and the pixels around it are invalid.
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
    """Random contrast and brightness of normalised pixels, for all bands together and a little for each band."""

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


class RandomGamma(v2.Transform):
    """Random gamma: values between `-reach` and `reach` standard deviations are bent, up to a factor in the exponent.

    Normalised pixels have no zero to raise to a power, so the curve is that of a gamma on the range of `reach` standard
    deviations around the mean; values outside it stay.
    """

    def __init__(self, most: float, reach: float = 3.0) -> None:
        super().__init__()
        self.most, self.reach = most, reach

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        limit = math.log(self.most)
        return {"gamma": float(torch.empty(()).uniform_(-limit, limit).exp())}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        pixels = inpt.as_subclass(Tensor)
        share = (pixels / (2 * self.reach) + 0.5).clamp(0, 1)
        return tv_tensors.wrap(pixels + 2 * self.reach * (share ** params["gamma"] - share), like=inpt)


class RandomBlurOrNoise(v2.Transform):
    """A blur of up to `sigma` pixels, or as often noise of up to `noise` standard deviations, with some probability."""

    def __init__(self, sigma: float, noise: float, chance: float) -> None:
        super().__init__()
        self.sigma, self.noise, self.chance = sigma, noise, chance

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        drawn, kind, strength = torch.rand(3).tolist()
        if drawn >= self.chance:
            return {}
        return {"sigma": max(strength * self.sigma, MIN_SIGMA)} if kind < 0.5 else {"noise": strength * self.noise}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not params or not isinstance(inpt, tv_tensors.Image):
            return inpt
        pixels = inpt.as_subclass(Tensor)
        if "sigma" in params:
            return tv_tensors.wrap(blur(pixels, params["sigma"]), like=inpt)
        return tv_tensors.wrap(pixels + params["noise"] * torch.randn(pixels.shape), like=inpt)


def blur(pixels: Tensor, sigma: float) -> Tensor:
    """Return (..., h, w) blurred by a Gaussian of `sigma` pixels."""
    size = 2 * math.ceil(2 * sigma) + 1
    blurred: Tensor = v2.functional.gaussian_blur(pixels, [size, size], [sigma] * 2)
    return blurred


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """How far the transforms of a level go; each is off at its default."""

    scale: tuple[float, float] = (1.0, 1.0)
    """Least and greatest factor by which chips are reduced and enlarged."""

    scale_chance: float = 0.5
    contrast: float = 0.0
    """Greatest change of the contrast of all bands, as a fraction."""

    brightness: float = 0.0
    """Greatest change of the brightness of all bands, in standard deviations."""

    each: float = 0.0
    """Greatest change of contrast and brightness of each band by itself."""

    gamma: float = 1.0
    blur: float = 0.0
    """Pixels."""

    noise: float = 0.0
    """Standard deviations of the pixels."""

    blur_or_noise_chance: float = 0.0


AUGMENTATIONS: Mapping[str, Strength | None] = {
    "none": None,
    "light": Strength(scale=(0.75, 1.4), contrast=0.2, brightness=0.2, each=0.05),
    "medium": Strength(
        scale=(0.5, 2.0), scale_chance=0.7, contrast=0.3, brightness=0.3, each=0.1, gamma=1.25, blur=0.8, noise=0.1,
        blur_or_noise_chance=0.1,
    ),
    "strong": Strength(
        scale=(0.5, 2.0), scale_chance=1.0, contrast=0.4, brightness=0.4, each=0.15, gamma=1.5, blur=1.0, noise=0.15,
        blur_or_noise_chance=0.2,
    ),
}  # fmt: skip
"""The levels of augmentation. "light" is that of version 0.1, for chips that are alike; "strong" that of
mmsegmentation for aerial images (scale 0.5 to 2, contrast 0.5 to 1.5), with changes of single bands."""


def make_transforms(level: str) -> v2.Transform:
    """Return the transforms of a level of `AUGMENTATIONS`: symmetry, scale, contrast and brightness, and so on."""
    strength = AUGMENTATIONS[level]
    if strength is None:
        return v2.Identity()
    steps: list[v2.Transform] = [
        RandomD4(),
        RandomScale(*strength.scale, strength.scale_chance),
        RandomBrightness(strength.contrast, strength.brightness, strength.each),
    ]
    if strength.gamma > 1:
        steps.append(RandomGamma(strength.gamma))
    if strength.blur_or_noise_chance:
        steps.append(RandomBlurOrNoise(strength.blur, strength.noise, strength.blur_or_noise_chance))
    return v2.Compose(steps)


def default_transforms() -> v2.Transform:
    """Return the default transforms of training."""
    return make_transforms(AUGMENTATION)


def transform_chip(
    transform: v2.Transform, image: Tensor, valid: Tensor, label: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Transform a chip; return its image, valid mask and label, of the same shapes or as the transform crops them.

    Invalid pixels are 0 in the image and `IGNORE_INDEX` in the label, which is int64.

    Args:
        transform: Takes a `tv_tensors.Image` and a `tv_tensors.Mask`.
        image: (bands, h, w) float32, normalised.
        valid: (1, h, w) float32, 0 or 1.
        label: (h, w) int64 or uint8 channel indices.
    """
    planes = torch.stack([label.to(torch.uint8), (valid[0] > 0).to(torch.uint8)])
    transformed, masks = transform(tv_tensors.Image(image), tv_tensors.Mask(planes))
    image, (label, mask) = transformed.as_subclass(Tensor), masks.as_subclass(Tensor)
    invalid = mask != VALID
    if invalid.any():
        image = image * ~invalid
        label = label.maximum(invalid.to(torch.uint8) * IGNORE_INDEX)  # the greatest of all codes
    return image, (~invalid).float()[None], label.long()
