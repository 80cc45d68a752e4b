"""HTML report of a run, and PNG previews of rasters."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from os.path import relpath
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geopsp.core.escape import html_text, printable
from geopsp.core.grid import Window
from geopsp.core.html_page import html_page
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.output import atomic_output
from geopsp.raster.legend_io import read_legend
from geopsp.raster.scene import Scene
from geopsp.training.metrics import Confusion
from geopsp.training.plots import colorize, plot_reliability, rgb_band_indices, to_rgb


def write_report(
    path: Path,
    *,
    title: str,
    scores: Confusion,
    notes: Sequence[str],
    pictures: Mapping[str, Path],
    texts: Mapping[str, str],
    overwrite: bool = False,
) -> Path:
    """Write an HTML page with scores and confusion matrix, pictures (by caption) and texts (by heading)."""
    legend = "".join(
        f'<span style="margin-right:1rem"><span class="swatch" style="background:{html_text(info.color)}"></span>'
        f"{html_text(info.name)}</span>"
        for info in scores.legend
    )
    figures = "".join(
        f'<figure><a href="{src}"><img src="{src}" alt="{html_text(caption)}"></a>'
        f"<figcaption>{html_text(caption)}</figcaption></figure>"
        for caption, src in ((caption, _address(picture, path.parent)) for caption, picture in pictures.items())
    )
    body = [
        f"<h1>{html_text(title)}</h1><ul>{''.join(f'<li>{html_text(note)}</li>' for note in notes)}</ul>",
        f"<p>{legend}</p><div class='pictures'>{figures}</div>",
        f"<h2>Scores</h2><p>mIoU {scores.mean_iou():.4f}, accuracy {scores.accuracy():.4f}</p>",
        scores.per_class().rename(index=printable).to_html(float_format="{:.4f}".format, border=0),
        *_reliability(scores),
        "<h2>Confusion matrix (rows: ground truth, columns: prediction; pixels)</h2>",
        scores.table().rename(index=printable, columns=printable).to_html(border=0),
        *(f"<h2>{html_text(heading)}</h2><pre>{html_text(text)}</pre>" for heading, text in texts.items()),
    ]
    with atomic_output(path, overwrite=overwrite) as partial:
        partial.write_text(html_page(title, body), encoding="utf-8")
    return path


def _reliability(scores: Confusion) -> Iterator[str]:
    """Yield how far confidence is accuracy: a diagram, inside of the page, and numbers; nothing if not counted."""
    found = {"uncalibrated": scores.reliability, "calibrated": scores.calibrated}
    shown = {name: each for name, each in found.items() if each is not None and each.pixels}
    if not shown:
        return
    file, figure = BytesIO(), plot_reliability(scores)
    figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
    yield "<h2>Confidence</h2>"
    yield f"<img alt='Accuracy by confidence' src='data:image/png;base64,{b64encode(file.getvalue()).decode()}'>"
    rows = {
        name: {
            "mean confidence": each.mean_confidence(), "ECE": each.ece(), "adaptive ECE": each.ece(adaptive=True),
            "MCE": each.mce(), "NLL": each.nll(), "Brier": each.brier(),
        }
        for name, each in shown.items()
    }  # fmt: skip
    yield pd.DataFrame.from_dict(rows, orient="index").to_html(float_format="{:.4f}".format, border=0)


def _address(file: Path, folder: Path) -> str:
    """Return the relative URL of a file, which may have any name."""
    return quote(Path(relpath(file, folder)).as_posix(), errors="surrogateescape")


def preview(path: str | Path, out: str | Path, *, pixels: int = 1200) -> Path:
    """Write a PNG of a raster, at most `pixels` along its longer side; classes in their colours, images stretched."""
    scene, legend = Scene.open(path), read_legend(path)
    step = max(1, -(-max(scene.grid.width, scene.grid.height) // pixels))
    data, valid = _read_every(scene, step)
    if legend:
        index = legend.codes_to_indices(np.where(valid, data[0], IGNORE_INDEX).astype(np.uint8))
        image: NDArray[Any] = colorize(index, legend)
    else:
        image = to_rgb(data, valid, rgb_band_indices(scene.bands))
    with atomic_output(out, overwrite=True) as partial:
        plt.imsave(partial, image)
    return Path(out)


def _read_every(scene: Scene, step: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read every `step`-th pixel, a few rows at a time; return data, (bands, rows, cols), and valid mask."""
    slabs = [
        scene.read(Window(0, row, scene.grid.width, min(step * 256, scene.grid.height - row)))
        for row in range(0, scene.grid.height, step * 256)
    ]
    data = np.concatenate([slab.data[:, ::step, ::step] for slab in slabs], axis=1)
    return data, np.concatenate([slab.valid[::step, ::step] for slab in slabs])
