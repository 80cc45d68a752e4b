"""From a scene and a model to a map, in memory that does not grow with the scene's height.

Tiles of the size that the model was trained on overlap; their probabilities are added with weights that fall towards a
tile's edge and divided by the sum of the weights. A row of tiles is held at a time; what no later tile touches is
written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geopsp.dataset import Normalization
from geopsp.errors import OptionError
from geopsp.grid import Window
from geopsp.legend import IGNORE
from geopsp.losses import silence
from geopsp.models.build import autocast, check_tile, device_words, pick_device
from geopsp.outputs import check_output
from geopsp.package import TrainedModel
from geopsp.progress import Progress, say
from geopsp.scene import Patch, Scene
from geopsp.tiling import TilePlan
from geopsp.writer import PROBABILITY_STEPS, class_raster, probability_raster

BATCH = 4
SIZE_RATIO = 1.25
"""Largest ratio of a raster's pixel size to the trained one that goes without a warning."""

Predict = Callable[[Tensor, Tensor], Tensor]
"""(n, bands, s, s) normalised and (n, 1, s, s) validity -> (n, classes, s, s) logits."""


@dataclass(frozen=True, slots=True, eq=False)
class Slab:
    """Finished rows of a map, over its whole width."""

    index: NDArray[np.uint8]
    """(rows, width) channel of the likeliest class; IGNORE where the scene is invalid."""

    probability: NDArray[np.float32] | None
    """(classes, rows, width), where asked for; of no meaning where the scene is invalid."""

    valid: NDArray[np.bool_]
    """(rows, width)"""


def classify(
    scene: Scene,
    model: TrainedModel,
    out: str | Path,
    *,
    probabilities: str | Path | None = None,
    batch_size: int | None = None,
    padding: int | None = None,
    device: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """A class raster on the scene's grid, and if asked for one of probabilities.

    Args:
        scene: What to map; its bands in the model's order.
        model: From `load_package` or training.
        out: The GeoTIFF to write: class codes, nodata 255 where the scene is invalid.
        probabilities: A GeoTIFF with one band a class.
        batch_size: Tiles at a time; None: 4.
        padding: Pixels at each edge of a tile that its neighbour shows too; None: a quarter of the tile.
        device: As torch names it; None: the first GPU, else the CPU.
        overwrite: True may replace outputs.
        progress: Told of tiles done.

    Raises:
        OptionError: if padding is not between 0 and half a tile.
        OutputError: if an output exists or cannot be written.
        RasterError: if pixels cannot be read.
    """
    check_tile(model.tile_size)
    overlap = model.tile_size // 4 if padding is None else padding
    if batch_size is not None and batch_size < 1:
        raise OptionError(f"batch_size is {batch_size}; needed at least 1.")
    plan = TilePlan(scene.grid.width, scene.grid.height, model.tile_size, overlap)
    where = pick_device(device)
    check_output(out, overwrite=overwrite)
    say(f"Mapping {scene.grid.width} x {scene.grid.height} pixels in {len(plan)} tiles on {device_words(where)}")
    for note in [*scene.notes, *preflight(scene, model)]:
        say(f"Note: {note}.")
    slabs = predict_slabs(
        scene,
        network_predict(model, where),
        plan,
        classes=len(model.legend),
        normalization=model.normalization,
        batch_size=batch_size or BATCH,
        device=where,
        probabilities=probabilities is not None,
        progress=progress,
    )
    with ExitStack() as stack:
        tags = {"GEOPSP_MODEL": f"{model.spec.backbone}, tile {model.tile_size}, bands {', '.join(model.bands)}"}
        codes = stack.enter_context(class_raster(out, scene.grid, model.legend, overwrite=overwrite, tags=tags))
        chances = None
        if probabilities is not None:
            chances = stack.enter_context(
                probability_raster(probabilities, scene.grid, model.legend, overwrite=overwrite)
            )
        for slab in slabs:
            codes.append(model.legend.to_code(slab.index)[None])
            if chances and slab.probability is not None:
                scaled = np.round(slab.probability * PROBABILITY_STEPS).astype(np.uint8)
                chances.append(np.where(slab.valid, scaled, IGNORE).astype(np.uint8))
    return Path(out)


def preflight(scene: Scene, model: TrainedModel) -> list[str]:
    """What differs between a scene and the rasters that the model was trained on, in words."""
    notes = []
    if scene.dtype.name != model.dtype:
        notes.append(f"the raster holds {scene.dtype.name}, the model was trained on {model.dtype}")
    units = scene.grid.crs.linear_units if scene.grid.crs.is_projected else "degree"
    ratio = scene.cell_size[0] / model.cell_size[0]
    if units == model.units and not 1 / SIZE_RATIO <= ratio <= SIZE_RATIO:
        notes.append(
            f"pixels are {scene.cell_size[0]:g} {units} wide, the model was trained on {model.cell_size[0]:g}: "
            "what it knows has another size here"
        )
    return notes


def network_predict(model: TrainedModel, device: torch.device) -> Predict:
    """The model's network on the device, in bfloat16 on a GPU."""
    network = model.network.to(device).to(memory_format=torch.channels_last).eval()
    ignored = model.losses.ignored(model.legend)

    def predict(image: Tensor, valid: Tensor) -> Tensor:
        try:
            with autocast(device):
                logits: Tensor = network(image.contiguous(memory_format=torch.channels_last), valid)
        except torch.OutOfMemoryError as error:
            raise OptionError(
                f"The GPU's memory is too small for {len(image)} tiles at a time. Lower batch_size (--batch-size)."
            ) from error
        return silence(logits.float(), ignored)

    return predict


@torch.inference_mode()
def predict_slabs(
    scene: Scene,
    predict: Predict,
    plan: TilePlan,
    *,
    classes: int,
    normalization: Normalization,
    batch_size: int,
    device: torch.device,
    probabilities: bool = False,
    progress: Progress | None = None,
) -> Iterator[Slab]:
    """The map from top to bottom; tiles without a valid pixel are not computed."""
    canvas, total = Canvas(plan, classes, device, probabilities=probabilities), len(plan)
    with closing(read_ahead(scene, plan, depth=2 * batch_size)) as tiles:
        worth = ((done, tile) for done, tile in enumerate(tiles, 1) if tile[1].valid.any())
        while batch := list(islice(worth, batch_size)):
            chances = _predict_batch([patch for _, (_, patch) in batch], predict, normalization, batch_size, device)
            for (_, (window, patch)), chance in zip(batch, chances, strict=True):
                yield from canvas.up_to(window.row)
                canvas.add(window, patch.valid, chance)
            if progress:
                progress(batch[-1][0], total)
    yield from canvas.up_to(plan.height)
    if progress:
        progress(total, total)


def _predict_batch(
    patches: Sequence[Patch], predict: Predict, normalization: Normalization, batch_size: int, device: torch.device
) -> Tensor:
    """(patches, classes, s, s) probabilities.

    The batch always has the same shape, padded with nothing, so that a tile's result does not depend on its place.
    """
    bands, size, _ = patches[0].data.shape
    image = np.zeros((batch_size, bands, size, size), np.float32)
    valid = np.zeros((batch_size, 1, size, size), np.float32)
    for slot, patch in enumerate(patches):
        image[slot], valid[slot, 0] = normalization(patch.data, patch.valid), patch.valid
    logits = predict(torch.from_numpy(image).to(device), torch.from_numpy(valid).to(device))
    return logits[: len(patches)].softmax(dim=1)


def read_ahead(scene: Scene, plan: TilePlan, *, depth: int) -> Generator[tuple[Window, Patch], None, None]:
    """Every tile of the plan, in order, read by another thread up to `depth` tiles ahead."""
    windows = (window for row in plan.rows for window in plan.windows(row))
    waiting: deque[tuple[Window, Future[Patch]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="geopsp-read") as pool:
        try:
            for window in windows:
                waiting.append((window, pool.submit(scene.read, window)))
                if len(waiting) > depth:
                    first, patch = waiting.popleft()
                    yield first, patch.result()
            while waiting:
                first, patch = waiting.popleft()
                yield first, patch.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class Canvas:
    """The rows of a map that later tiles may still touch: weighted sums of probabilities, and of weights."""

    def __init__(self, plan: TilePlan, classes: int, device: torch.device, *, probabilities: bool = False) -> None:
        """`probabilities`: True if slabs shall carry them, not only the likeliest class."""
        self.plan, self.row, self.probabilities = plan, 0, probabilities
        self.rows = min(plan.size, plan.height)
        self.sum = torch.zeros(classes, self.rows, plan.width, device=device)
        self.mass = torch.zeros(1, self.rows, plan.width, device=device)
        self.valid = torch.zeros(1, self.rows, plan.width, dtype=torch.bool)
        self.weights = torch.from_numpy(plan.weights()).to(device)

    def add(self, window: Window, valid: NDArray[np.bool_], chance: Tensor) -> None:
        """Adds a tile, (classes, s, s), whose first row is the canvas's."""
        part = window.intersect(Window(0, self.row, self.plan.width, self.rows))
        inside, place = part.slices(window), (slice(None), slice(part.height), slice(part.col, part.col_stop))
        weights = self.weights[inside]
        self.sum[place].addcmul_(chance[:, *inside], weights)
        self.mass[place] += weights
        self.valid[place] = torch.from_numpy(valid[inside])

    def up_to(self, row: int) -> Iterator[Slab]:
        """Gives out the rows above `row`, at most a canvas of them at a time, and makes room below."""
        while (count := min(row - self.row, self.rows)) > 0:
            yield self._finish(count)
            keep = self.rows - count
            for store in (self.sum, self.mass, self.valid):
                store[:, :keep] = store[:, count:].clone()
                store[:, keep:] = 0
            self.row += count

    def _finish(self, count: int) -> Slab:
        sums, valid = self.sum[:, :count], self.valid[0, :count].numpy().copy()
        index = sums.max(dim=0).indices.to(torch.uint8).cpu().numpy()
        index[~valid] = IGNORE
        if not self.probabilities:
            return Slab(index, None, valid)
        mass = self.mass[:, :count].clamp_min(torch.finfo(torch.float32).tiny)
        return Slab(index, (sums / mass).cpu().numpy(), valid)
