"""Changes of a chip that leave its meaning: on image, labels and validity together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from geopsp.legend import IGNORE

SEEN = 1
"""Validity in the mask; whatever else a transform fills in from outside, be it 0 or 255, shows nothing."""


class RandomSymmetry(v2.Transform):
    """One of the eight symmetries of the square, exactly."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"turns": int(torch.randint(4, ())), "flip": bool(torch.rand(()) < 0.5)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        turned = torch.rot90(inpt, params["turns"], (-2, -1))
        return tv_tensors.wrap(turned.flip(-1) if params["flip"] else turned, like=inpt)


class RandomScale(v2.Transform):
    """The chip shown larger or smaller, by a factor within `low` to `high`; what comes from outside is unlabelled."""

    def __init__(self, low: float, high: float, chance: float = 0.5) -> None:
        super().__init__()
        self.low, self.high, self.chance = low, high, chance

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        if torch.rand(()) >= self.chance:
            return {"scale": 1.0}
        size = flat_inputs[0].shape[-1]
        scale = float(torch.empty(()).uniform_(self.low, self.high))
        shift = abs(scale - 1) * size / 2
        move = torch.empty(2).uniform_(-shift, shift).tolist()
        return {"scale": scale, "move": move}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if params["scale"] == 1:
            return inpt
        image = isinstance(inpt, tv_tensors.Image)
        mode = v2.InterpolationMode.BILINEAR if image else v2.InterpolationMode.NEAREST
        fill = 0 if image else IGNORE
        moved = TF.affine_image(
            inpt.as_subclass(Tensor), 0.0, params["move"], params["scale"], [0.0, 0.0], interpolation=mode, fill=fill
        )
        return tv_tensors.wrap(moved, like=inpt)


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
        return tv_tensors.wrap(inpt * params["gain"] + params["shift"], like=inpt)


def standard() -> v2.Transform:
    """What training does unless told otherwise."""
    return v2.Compose([RandomSymmetry(), RandomScale(0.75, 1.4), RandomBrightness()])


def apply(transform: v2.Transform, image: Tensor, valid: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The chip, changed: image 0 and label IGNORE where it is not valid.

    Args:
        transform: On a `tv_tensors.Image` and a `tv_tensors.Mask`.
        image: (bands, h, w) float32, normalised.
        valid: (1, h, w) float32, 0 or 1.
        label: (h, w) int64.
    """
    planes = torch.stack([label, valid[0] > 0]).to(torch.uint8)
    moved, masks = transform(tv_tensors.Image(image), tv_tensors.Mask(planes))
    masks = masks.as_subclass(Tensor)
    seen = (masks[1] == SEEN).float()[None]
    label = masks[0].long().where(seen[0] > 0, IGNORE)
    return moved.as_subclass(Tensor) * seen, seen, label
