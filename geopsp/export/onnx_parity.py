"""An exported ONNX file beside the network that it was made of: the same classes and probabilities, or an error."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from geopsp.errors import ExportError
from geopsp.export.check_tiles import RawTile
from geopsp.export.onnx_graph import INPUT, OUTPUT
from geopsp.models.calibration import Calibration
from geopsp.models.network import mask_channels
from geopsp.models.saved_model import TrainedModel

BATCH = 4
"""Tiles in a batch; the first is shown alone."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a file may differ from its network."""

    near_tie: float
    """Difference of the two highest probabilities below which classes may differ."""

    agreement: float
    """Least share of other pixels that have the same class."""

    difference: float
    """Largest difference of probabilities."""

    other_points: float
    """Largest share of pixels that differ more because PointRend refined other points: the last that it refines is
    hardly less certain than the first that it does not."""


BOUNDS = {"fp32": Bounds(1e-3, 0.9999, 1e-3, 1e-4), "fp16": Bounds(2e-2, 0.999, 2e-2, 5e-3)}
"""By precision."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How a file compares with its network."""

    pixels: int = 0
    """Valid pixels that were compared."""

    near_ties: int = 0
    """Of them, those where two classes are about as likely."""

    changed: int = 0
    """Pixels of another class, near-ties left out."""

    changed_ties: int = 0
    other_points: int = 0
    """Pixels that PointRend refined in the file or in the network alone."""

    dark: int = 0
    """Valid pixels that are 0 in all bands, which the file takes for nodata."""

    difference: float = 0.0
    """Largest difference of probabilities, at all other pixels but for calibrated near-ties of another class."""

    def __add__(self, other: Parity) -> Parity:
        total = {name: value + getattr(other, name) for name, value in asdict(self).items()}
        return Parity(**total | {"difference": max(self.difference, other.difference)})

    @property
    def agreement(self) -> float:
        """Share of pixels of the same class, near-ties left out."""
        return 1 - self.changed / max(1, self.pixels - self.near_ties)

    def __str__(self) -> str:
        points = f" (but for {self.other_points:,} where PointRend refines other points)" * bool(self.other_points)
        return (
            f"{math.floor(1e6 * self.agreement) / 1e4:.4f} % of {self.pixels:,} pixels have the same class as in torch "
            f"({self.near_ties:,} near-ties left out, of which {self.changed_ties:,} differ), and probabilities differ "
            f"by {self.difference:.1e} at most{points}"
        )


def compare_with_network(
    path: Path,
    model: TrainedModel,
    tiles: Sequence[RawTile],
    *,
    precision: str,
    pointrend: bool,
    calibration: Calibration | None = None,
) -> Parity:
    """Run a file in ONNX Runtime and its network in torch on tiles, and compare.

    Raises:
        ExportError: if ONNX Runtime does not take the file, or its result has another shape.
    """
    network, kept = model.network.cpu().eval(), model.network.pointrend
    parity, batches = Parity(), _batches(tiles)
    try:
        network.pointrend = kept if pointrend else None
        for batch, found in zip(batches, _run(path, batches), strict=True):
            wanted = _probabilities(model, batch)
            ties = _near_ties(wanted, BOUNDS[precision].near_tie)
            if calibration is not None:
                excluded = model.excluded_channels()
                wanted = calibration.apply(wanted.swapaxes(0, 1), excluded=excluded).swapaxes(0, 1).astype(np.float32)
            if found.shape != wanted.shape or not np.isfinite(found).all():
                raise ExportError(
                    f"The exported file gives {found.shape}, finite: {bool(np.isfinite(found).all())}, but the network "
                    f"{wanted.shape}. Nothing is written. Train with another `backbone`, or report it."
                )
            jumps = ties if calibration is not None else np.zeros_like(ties)
            refined = network.pointrend is not None
            parity += _parity(found, wanted, batch, BOUNDS[precision], ties=ties, jumps=jumps, pointrend=refined)
    finally:
        network.pointrend = kept
    return parity


def require_parity(parity: Parity, precision: str) -> None:
    """Check that a file gives what its network gives.

    Raises:
        ExportError: if it does not.
    """
    bounds, most = BOUNDS[precision], BOUNDS[precision].other_points * parity.pixels
    same = parity.agreement >= bounds.agreement and parity.difference <= bounds.difference
    if not (same and parity.other_points <= most):
        hint = "Use `precision='fp32'`." if precision != "fp32" else "Train with another `backbone`, or report it."
        raise ExportError(
            f"The exported file gives other results than the network: {parity}; needed are "
            f"{100 * bounds.agreement:g} % and {bounds.difference:g}, but for {most:,.0f} pixels. Nothing is written. "
            f"{hint}"
        )


def _batches(tiles: Sequence[RawTile]) -> list[Sequence[RawTile]]:
    return [tiles[:1], *(tiles[start : start + BATCH] for start in range(1, len(tiles), BATCH))]


def _run(path: Path, batches: Sequence[Sequence[RawTile]]) -> Iterator[NDArray[np.float32]]:
    """Yield what ONNX Runtime makes of each batch, (n, classes, s, s)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for batch in batches:
            yield session.run([OUTPUT], {INPUT: np.stack([tile.pixels for tile in batch])})[0]
    except Exception as error:
        if type(error).__module__.startswith("onnxruntime"):
            first = str(error).strip().splitlines()[0]
            raise ExportError(f"ONNX Runtime does not run the exported file: {first}") from error
        raise


def _usable(batch: Sequence[RawTile]) -> NDArray[np.bool_]:
    """Return (n, s, s): True for valid pixels that the file takes for valid, too."""
    return np.stack([tile.valid & tile.pixels.any(axis=0) for tile in batch])


def _probabilities(model: TrainedModel, batch: Sequence[RawTile]) -> NDArray[np.float32]:
    """Return the probabilities of the network, (n, classes, s, s)."""
    usable = _usable(batch)
    pixels = [model.normalization(tile.pixels, valid) for tile, valid in zip(batch, usable, strict=True)]
    valid = torch.from_numpy(usable[:, None].astype(np.float32))
    with torch.inference_mode():
        logits = model.network(torch.from_numpy(np.stack(pixels)), valid)
        probabilities: NDArray[np.float32] = mask_channels(logits, model.excluded_channels()).softmax(dim=1).numpy()
    return probabilities


def _near_ties(probabilities: NDArray[np.float32], limit: float) -> NDArray[np.bool_]:
    """Return (n, s, s): True where the two highest of (n, classes, s, s) probabilities differ by less."""
    highest = np.partition(probabilities, -2, axis=1)[:, -2:]
    close: NDArray[np.bool_] = highest[:, 1] - highest[:, 0] < limit
    return close


def _parity(
    found: NDArray[np.float32],
    wanted: NDArray[np.float32],
    batch: Sequence[RawTile],
    bounds: Bounds,
    *,
    ties: NDArray[np.bool_],
    jumps: NDArray[np.bool_],
    pointrend: bool,
) -> Parity:
    """Compare the probabilities of a batch, (n, classes, s, s).

    Args:
        found: Of the file.
        wanted: Of the network.
        batch: The tiles.
        bounds: How much they may differ.
        ties: (n, s, s), True where the network's two highest probabilities hardly differ.
        jumps: (n, s, s), True where probabilities of another class may differ by more: calibrated ones at a tie.
        pointrend: PointRend may refine other points.
    """
    usable, valid = _usable(batch), np.stack([tile.valid for tile in batch])
    tie = ties & usable
    changed = (found.argmax(axis=1) != wanted.argmax(axis=1)) & usable
    difference = np.where(usable, np.abs(found - wanted).max(axis=1), 0)
    compared = ~(changed & jumps)
    other_points = compared & (difference > bounds.difference) if pointrend else np.zeros_like(usable)
    return Parity(
        pixels=int(usable.sum()),
        near_ties=int(tie.sum()),
        changed=int((changed & ~tie).sum()),
        changed_ties=int((changed & tie).sum()),
        other_points=int(other_points.sum()),
        dark=int((valid & ~usable).sum()),
        difference=float(difference[compared & ~other_points].max(initial=0)),
    )
