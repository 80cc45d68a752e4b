"""exp of float32 as plain arithmetic, compiled.

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
