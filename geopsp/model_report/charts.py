"""Charts as SVG: their colours are those of the page, light or dark, and a sentence says what they show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from geopsp.core.escape import html_text
from geopsp.core.html_page import trusted

LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 34
"""Margins of a chart with axes, in pixels."""

OUTLIER = 3.0
"""Times the upper quartile above which values of a curve are cut off."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Values along a side of a chart."""

    low: float
    high: float
    start: float
    """Pixel of `low`."""

    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; beyond the ends, that of the end."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + min(max(share, 0.0), 1.0) * (self.end - self.start), 1)

    def ticks(self, count: int = 4) -> list[float]:
        """Return about so many round values."""
        span = (self.high - self.low) or 1.0
        size = 10 ** math.floor(math.log10(span / count))
        step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if span / (size * factor) <= count)
        first = math.ceil(self.low / step - 1e-9)
        return [round(number * step, 12) for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True, slots=True)
class Curve:
    """Values by epoch."""

    name: str
    color: str
    """A class of the style sheet, e.g. "train"."""

    values: Sequence[float | None]


def svg(width: float, height: float, label: str, shapes: Sequence[str]) -> Markup:
    """Return a picture whose content a screen reader says in a sentence; shapes are SVG, with texts escaped."""
    return trusted(
        f'<svg role="img" aria-label="{html_text(label)}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}">{"".join(shapes)}</svg>'
    )


def score_bar(value: float | None, interval: Sequence[float] | None, label: str) -> Markup:
    """Return a thin bar from 0 to 1 up to a score, with its interval."""
    x = Axis(0, 1, 0, 100)
    shapes = [f"<title>{html_text(label)}</title>", '<rect class="track" width="100" height="5" y="2" rx="1"/>']
    if value is not None:
        shapes.append(f'<rect class="bar" width="{x(value)}" height="5" y="2" rx="1"/>')
    if interval is not None:
        low, high = map(x, interval)
        shapes.append(f'<path class="whisker" d="M{low} 4.5H{high}M{low} 1.5V7.5M{high} 1.5V7.5"/>')
    return svg(100, 9, label, shapes)


def curves_chart(title: str, curves: Sequence[Curve], *, top: float | None = None, cut: bool = False) -> Markup:
    """Return curves over epochs, each with its name at its end.

    Args:
        title: What the values are.
        curves: With values for each epoch; None: unknown.
        top: End of the axis; None: the largest value.
        cut: True cuts off values that are far above the others, and says so.
    """
    width, height = 320, 210
    known = sorted(value for curve in curves for value in curve.values if value is not None)
    if not known:
        return Markup("")
    highest = known[-1]
    limit = OUTLIER * known[int(0.75 * (len(known) - 1))]
    is_cut = cut and highest > limit > 0
    epochs = max(len(curve.values) for curve in curves)
    x = Axis(1, max(epochs, 2), LEFT, width - RIGHT)
    y = Axis(0, top or (limit if is_cut else highest) * 1.05 or 1, height - BOTTOM, TOP)
    shapes = [*_y_axis(y, x), *_x_axis(x, height, "epoch")]
    for curve in curves:
        points = [(x(number), y(value)) for number, value in enumerate(curve.values, 1) if value is not None]
        path = "L".join(f"{left} {up}" for left, up in points)
        shapes.append(f'<path class="line {curve.color}" d="M{path}"/>')
        if points:
            left, up = points[-1]
            shapes.append(f'<circle class="dot {curve.color}" cx="{left}" cy="{up}" r="2.5"/>')
    last = ", ".join(f"{curve.name} {_last(curve.values):.4g}" for curve in curves)
    note = "; values far above the others are cut off" if is_cut else ""
    return svg(width, height, f"{title} by epoch. Last: {last}{note}.", shapes)


def _last(values: Sequence[float | None]) -> float:
    return next((value for value in reversed(values) if value is not None), math.nan)


def _y_axis(y: Axis, x: Axis) -> Iterator[str]:
    for tick in y.ticks():
        yield f'<path class="grid" d="M{x.start} {y(tick)}H{x.end}"/>'
        yield f'<text class="tick end" x="{x.start - 6:g}" y="{y(tick) + 3.5:g}">{tick:g}</text>'


def _x_axis(x: Axis, height: float, label: str) -> Iterator[str]:
    base = height - BOTTOM
    yield f'<path class="axis" d="M{x.start} {base}H{x.end}"/>'
    for tick in (each for each in x.ticks() if x.high <= 2 or each == round(each)):
        yield f'<text class="tick middle" x="{x(tick)}" y="{base + 14}">{tick:g}</text>'
    yield f'<text class="tick middle" x="{(x.start + x.end) / 2:g}" y="{height - 4:g}">{html_text(label)}</text>'


def reliability_chart(title: str, bins: Sequence[tuple[float, float, float, float]], ece: float) -> Markup:
    """Return the accuracy of pixels by their confidence, with the diagonal and the share of pixels.

    Args:
        title: Which probabilities.
        bins: low, high, accuracy and share of the pixels of each bin.
        ece: The expected calibration error.
    """
    width, height = 300, 270
    x, y = Axis(0, 1, LEFT, width - RIGHT), Axis(0, 1, height - BOTTOM, TOP)
    shapes = [*_y_axis(y, x), *_x_axis(x, height, "confidence")]
    for low, high, accuracy, share in bins:
        left, right = x(low) + 0.5, x(high) - 0.5
        up = y(accuracy)
        shapes.append(
            f'<rect class="bar" x="{left:g}" y="{up}" width="{right - left:.1f}" height="{y.start - up:.1f}">'
            f"<title>confidence {low:.2f} to {high:.2f}: accuracy {accuracy:.3f}, {share:.1%} of pixels</title></rect>"
        )
        shapes.append(f'<path class="share" d="M{left:g} {y(share)}H{right:g}"/>')
    shapes.append(f'<path class="diagonal" d="M{x(0)} {y(0)}L{x(1)} {y(1)}"/>')
    return svg(width, height, f"Accuracy by confidence, {title}: expected calibration error {ece:.3f}.", shapes)


def histogram_chart(
    name: str, low: float, high: float, filled: Sequence[int], lines: Sequence[tuple[str, Sequence[int]]]
) -> Markup:
    """Return shares of pixels by value: one filled, others as lines.

    Args:
        name: Of the band.
        low: Start of the first bin.
        high: End of the last bin.
        filled: Counts of training pixels.
        lines: Classes of the style sheet, and counts in the same bins.
    """
    width, height, base = 220, 96, 78
    x = Axis(low, high, 2, width - 2)
    shares = [_shares(filled), *(_shares(counts) for _, counts in lines)]
    y = Axis(0, max((max(each) for each in shares if each), default=1.0) or 1.0, base, 6)
    shapes = [f'<path class="area train" d="{_steps(shares[0], x, y, closed=True)}"/>']
    shapes += [
        f'<path class="line {color}" d="{_steps(each, x, y)}"/>'
        for (color, _), each in zip(lines, shares[1:], strict=True)
        if any(each)
    ]
    shapes.append(f'<path class="axis" d="M2 {base}H{width - 2}"/>')
    shapes.append(f'<text class="tick" x="2" y="{height - 4}">{low:.5g}</text>')
    shapes.append(f'<text class="tick end" x="{width - 2}" y="{height - 4}">{high:.5g}</text>')
    return svg(width, height, f"Values of {name}, from {low:.5g} to {high:.5g}.", shapes)


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts)
    return [count / total for count in counts] if total else [0.0] * len(counts)


def _steps(shares: Sequence[float], x: Axis, y: Axis, *, closed: bool = False) -> str:
    """Return the path of a histogram's outline."""
    if not shares:
        return ""
    width = (x.high - x.low) / len(shares)
    parts = [f"M{x(x.low)} {y(0)}"]
    for number, share in enumerate(shares):
        parts.append(f"V{y(share)}H{x(x.low + (number + 1) * width)}")
    return "".join(parts) + (f"V{y(0)}Z" if closed else f"V{y(0)}")
