"""exp and log of float32 as plain arithmetic, compiled.

Loops become vector instructions, and a number's result does not depend on its place in an array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geopsp.core.jit import jit


@jit()
def exp_differences(values: Any, best: Any, power: Any, out: Any) -> None:
    """Write exp(values - best), to some 1e-6: 2**n, by its bits, times the series of exp(r).

    Args:
        values: (n,) float32, at most `best`; below -87 of it the result stays at 1e-38.
        best: (n,) float32.
        power: (n,) int32, scratch.
        out: (n,) float32.
    """
    half, lowest = np.float32(0.5), np.float32(-126)
    log2_e, log_2 = np.float32(1.442695041), np.float32(0.693147181)
    c1, c2, c3, c4, c5 = np.float32(1), np.float32(1 / 2), np.float32(1 / 6), np.float32(1 / 24), np.float32(1 / 120)
    for at in range(values.size):
        exponent = max((values[at] - best[at]) * log2_e, lowest)
        whole = np.floor(exponent + half)
        r = (exponent - whole) * log_2
        power[at] = np.int32(np.int32(whole) + np.int32(127)) << np.int32(23)
        out[at] = c1 + r * (c1 + r * (c2 + r * (c3 + r * (c4 + r * c5))))
    scale = power.view(np.float32)
    for at in range(values.size):
        out[at] *= scale[at]


@jit()
def logarithms(values: Any, bits: Any, out: Any) -> None:
    """Write the natural logarithms of numbers, to some 1e-7 of them or of 1: by the exponent, and a series of the rest.

    Args:
        values: (n,) float32, above 1e-38.
        bits: (n,) int32, scratch.
        out: (n,) float32.
    """
    root_half, log_2, c1 = np.int32(0x3F3504F3), np.float32(0.693147181), np.float32(1)
    c3, c5, c7, c9 = np.float32(1 / 3), np.float32(1 / 5), np.float32(1 / 7), np.float32(1 / 9)
    given = values.view(np.int32)
    for at in range(values.size):
        whole = (given[at] - root_half) >> np.int32(23)
        bits[at] = given[at] - (whole << np.int32(23))
        out[at] = np.float32(whole) * log_2
    rest = bits.view(np.float32)
    for at in range(values.size):
        t = (rest[at] - c1) / (rest[at] + c1)
        square = t * t
        out[at] += np.float32(2) * t * (c1 + square * (c3 + square * (c5 + square * (c7 + square * c9))))
