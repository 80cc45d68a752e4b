"""PointRend: predict again the points where the coarse logits are least certain.

Coordinates are (x, y) in 0..1 over the whole map, always in float32: bfloat16 is off by half a pixel at 512.

Source: Kirillov et al., "PointRend: Image Segmentation as Rendering" (2020), sections 3 and 4.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

OVERSAMPLE_RATIO = 3
"""Candidates that are drawn for each training point."""


IMPORTANCE_RATIO = 0.75
"""Share of the training points that are the least certain candidates; the others are uniform."""


MIN_POINTS = 16


def sample_points(features: Tensor, points: Tensor) -> Tensor:
    """Sample (n, c, h, w) at (n, k, 2), bilinearly, in float32; return (n, c, k)."""
    grid, padding = points.float()[:, :, None] * 2 - 1, "border"
    if features.device.type == "mps":  # its grid_sample does not know this padding (up to torch 2.8)
        grid, padding = inside_cells(grid, features.shape[-2], features.shape[-1]), "zeros"
    out = F.grid_sample(features.float(), grid, mode="bilinear", padding_mode=padding, align_corners=False)
    return out[..., 0]


def inside_cells(grid: Tensor, height: int, width: int) -> Tensor:
    """Move (x, y) in -1..1, on the last axis, to the nearest point between the centres of the outer cells of a map."""
    limits = (1 - 1 / width, 1 - 1 / height)
    axes = zip(grid.unbind(dim=-1), limits, strict=True)
    return torch.stack([axis.clamp(-limit, limit) for axis, limit in axes], dim=-1)


def uncertainty(logits: Tensor) -> Tensor:
    """Return the second-highest minus the highest logit: (n, c, ...) -> (n, ...)."""
    top = logits.float().topk(min(2, logits.shape[1]), dim=1).values
    return top[:, -1] - top[:, 0]


class PointHead(nn.Module):
    """A perceptron on fine features and coarse logits of single points; the logits enter every layer."""

    def __init__(self, fine: int, classes: int, *, width: int, layers: int) -> None:
        super().__init__()
        inputs = [fine] + [width] * (layers - 1)
        self.layers = nn.ModuleList(nn.Conv1d(i + classes, width, 1) for i in inputs)
        self.classify = nn.Conv1d(width + classes, classes, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(n, c, k) and (n, classes, k) -> (n, classes, k)."""
        x = fine
        for layer in self.layers:
            x = F.relu(layer(torch.cat([x, coarse], dim=1)))
        return self.classify(torch.cat([x, coarse], dim=1))  # type: ignore[no-any-return]


class PointRend(nn.Module):
    """The point head, and the choice of points in training and inference."""

    def __init__(self, fine: int, classes: int, *, width: int, layers: int, train_share: float, share: float) -> None:
        """`train_share`, `share`: points per pixel of the image, in training and in each step of inference."""
        super().__init__()
        self.head = PointHead(fine, classes, width=width, layers=layers)
        self.train_share, self.share = train_share, share

    def train_points(self, coarse: Tensor, fine: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Draw points, (n, k, 2), and predict their logits, (n, classes, k); gradients reach both maps.

        `valid`: (n, 1, h, w), 0 where invalid.
        """
        count = max(MIN_POINTS, int(self.train_share * valid.shape[-2] * valid.shape[-1]))
        points = self._draw_points(coarse.detach(), valid, count)
        return points, self.head(sample_points(fine, points), sample_points(coarse, points))

    @staticmethod
    def _draw_points(coarse: Tensor, valid: Tensor, count: int) -> Tensor:
        important = int(IMPORTANCE_RATIO * count)
        candidates = torch.rand(len(coarse), OVERSAMPLE_RATIO * count, 2, device=coarse.device)
        uncertain = uncertainty(sample_points(coarse, candidates))  # n 3k
        is_valid = sample_points(valid, candidates)[:, 0] > 0.5
        best = uncertain.masked_fill(~is_valid, -torch.inf).topk(important, dim=1).indices
        chosen = candidates.gather(1, best[..., None].expand(-1, -1, 2))
        uniform = torch.rand(len(coarse), count - important, 2, device=coarse.device)
        return torch.cat([chosen, uniform], dim=1)

    def refine(self, coarse: Tensor, fine: Tensor, valid: Tensor) -> Tensor:
        """Upsample the logits to (n, classes, h, w) in steps of 2, and predict the least certain cells anew in each."""
        size = valid.shape[-2:]
        logits = coarse.float()
        while logits.shape[-2:] != size:
            step = (min(2 * logits.shape[-2], size[0]), min(2 * logits.shape[-1], size[1]))
            logits = F.interpolate(logits, step, mode="bilinear", align_corners=False)
            logits = self._replace_uncertain(logits, coarse, fine, valid)
        return logits

    def _replace_uncertain(self, logits: Tensor, coarse: Tensor, fine: Tensor, valid: Tensor) -> Tensor:
        n, classes, height, width = logits.shape
        count = min(height * width, max(MIN_POINTS, int(self.share * valid.shape[-2] * valid.shape[-1])))
        is_valid = F.interpolate(valid, (height, width), mode="nearest")[:, 0]  # n h w
        uncertain = uncertainty(logits).masked_fill(is_valid == 0, -torch.inf)
        top = uncertain.flatten(1).topk(count, dim=1)
        cells = top.indices  # n k
        x = (cells % width + 0.5) / width
        y = (cells // width + 0.5) / height
        points = torch.stack([x, y], dim=2)
        predicted = self.head(sample_points(fine, points), sample_points(coarse, points)).to(logits.dtype)
        flat, where = logits.flatten(2), cells[:, None].expand(-1, classes, -1)
        kept = top.values[:, None] == -torch.inf  # which invalid cells fill up the points is up to the device
        flat = flat.scatter(2, where, torch.where(kept, flat.gather(2, where), predicted))
        return flat.view(n, classes, height, width)
