"""Speed of the pyramid's bottleneck beside the same convolution of the concatenated maps.

    OMP_NUM_THREADS=1 python benchmarks/ppm.py [--repeats 3] [--channels-last] [--smoke]

Both share the pooling. Runs alternate, the median counts. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import time
from statistics import median

import torch
from common import option_parser, print_json, table
from torch import Tensor
from torch.nn import functional as F

from geopsp.models.context import MAX_CONTEXT, MIN_CONTEXT, PyramidPooling
from geopsp.models.spec import PYRAMID_SIZES

SIZES = [(8, 512, 16), (8, 512, 32), (2, 2048, 32), (2, 2048, 64)]
"""Batch, channels, side of the map: ResNet-18 and -50 at stride 8, tiles of 128, 256 and 512."""


def concatenated(pyramid: PyramidPooling, features: Tensor, weight: Tensor) -> Tensor:
    """Compute the pyramid as the paper does: upsample all maps, concatenate them, then convolve."""
    size = features.shape[-2:]
    pooled = pyramid.pool(features, weight)
    upsampled = [F.interpolate(part, size, mode="bilinear", align_corners=False) for part in pooled]
    return pyramid.dropout(pyramid.bottleneck(torch.cat([features, *upsampled], dim=1)))


def seconds(pyramid: PyramidPooling, features: Tensor, weight: Tensor, *, naive: bool) -> tuple[float, float]:
    """Return the seconds of the forward pass, and of forward and backward."""

    def forward() -> Tensor:
        return concatenated(pyramid, features, weight) if naive else pyramid(features, weight)

    start = time.perf_counter()
    with torch.inference_mode():
        forward()
    middle = time.perf_counter()
    forward().sum().backward()
    return middle - start, time.perf_counter() - middle


def measure(batch: int, channels: int, side: int, repeats: int, layout: torch.memory_format) -> list[float]:
    """Return median seconds: forward concatenated and ours, then forward and backward concatenated and ours."""
    width = min(MAX_CONTEXT, max(MIN_CONTEXT, channels // 4))
    pyramid = PyramidPooling(channels, PYRAMID_SIZES, width, 0.1).train().to(memory_format=layout)
    features = torch.randn(batch, channels, side, side).to(memory_format=layout).requires_grad_()
    weight = torch.ones(batch, 1, side, side)
    runs = [[seconds(pyramid, features, weight, naive=naive) for naive in (True, False)] for _ in range(repeats + 1)]
    return [median(run[way][passes] for run in runs[1:]) for passes in (0, 1) for way in (0, 1)]


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()
    sizes, repeats = ([(2, 64, 16)], 1) if options.smoke else (SIZES, options.repeats)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    rows, result = [], {}
    for batch, channels, side in sizes:
        naive, fast, naive_both, fast_both = measure(batch, channels, side, repeats, layout)
        name = f"{batch}x{channels}x{side}x{side}"
        rows.append([name, naive, fast, naive / fast, naive_both, fast_both, naive_both / fast_both])
        result |= {f"{name}_forward": naive / fast, f"{name}_both": naive_both / fast_both}
    forward, both = "forward: concatenated, s", "forward and backward: concatenated, s"
    print(table(["map", forward, "ours, s", "times faster", both, "ours, s", "times faster"], rows))
    print_json({"threads": torch.get_num_threads(), "least_gain": min(result.values())} | result)


if __name__ == "__main__":
    main()
