"""Seconds of the pyramid's bottleneck as it is, against the same convolution of the joined map.

    OMP_NUM_THREADS=1 python benchmarks/ppm.py [--repeats 3] [--channels-last]

Both share the pooling. Runs alternate; the median counts.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from common import finish, table
from torch import Tensor
from torch.nn import functional as F

from geopsp.models.build import MAX_CONTEXT, MIN_CONTEXT, PYRAMID_SIZES
from geopsp.models.context import PyramidPooling

MAPS = [(8, 512, 16), (8, 512, 32), (2, 2048, 32), (2, 2048, 64)]
"""Batch, channels, side of the map: ResNet-18 and -50 at stride 8, tiles of 128, 256 and 512."""


def joined(pyramid: PyramidPooling, features: Tensor, weight: Tensor) -> Tensor:
    size = features.shape[-2:]
    means = pyramid.pool(features, weight)
    wide = [F.interpolate(mean, size, mode="bilinear", align_corners=False) for mean in means]
    return pyramid.dropout(pyramid.bottleneck(torch.cat([features, *wide], dim=1)))


def seconds(pyramid: PyramidPooling, features: Tensor, weight: Tensor, *, joined_map: bool) -> tuple[float, float]:
    """Of the forward pass alone, and of forward and backward."""

    def forward() -> Tensor:
        return joined(pyramid, features, weight) if joined_map else pyramid(features, weight)

    start = time.perf_counter()
    with torch.inference_mode():
        forward()
    middle = time.perf_counter()
    forward().sum().backward()
    return middle - start, time.perf_counter() - middle


def measure(batch: int, channels: int, side: int, repeats: int, layout: torch.memory_format) -> list[float]:
    """Medians: forward joined and as it is, then forward and backward joined and as it is."""
    width = min(MAX_CONTEXT, max(MIN_CONTEXT, channels // 4))
    pyramid = PyramidPooling(channels, PYRAMID_SIZES, width, 0.1).train().to(memory_format=layout)
    features = torch.randn(batch, channels, side, side).to(memory_format=layout).requires_grad_()
    weight = torch.ones(batch, 1, side, side)
    runs = [
        [seconds(pyramid, features, weight, joined_map=naive) for naive in (True, False)] for _ in range(repeats + 1)
    ][1:]
    return [median(run[form][part] for run in runs) for part in (0, 1) for form in (0, 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    rows, result = [], {}
    for batch, channels, side in MAPS:
        naive, fast, naive_both, fast_both = measure(batch, channels, side, options.repeats, layout)
        name = f"{batch}x{channels}x{side}x{side}"
        rows.append([name, naive, fast, naive / fast, naive_both, fast_both, naive_both / fast_both])
        result |= {f"{name}_forward": naive / fast, f"{name}_both": naive_both / fast_both}
    header = [
        "map",
        "forward: joined, s",
        "ours, s",
        "times faster",
        "and backward: joined, s",
        "ours, s",
        "times faster",
    ]
    print(table(header, rows))
    finish({"threads": torch.get_num_threads(), "least_gain": min(result.values())} | result)


if __name__ == "__main__":
    main()
