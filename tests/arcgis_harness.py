"""Plays ArcGIS Pro: opens a deep learning package and classifies a raster by the requests that Pro makes.

Needs numpy only, and what the package's own function imports. `python arcgis_harness.py PACKAGE ARRAYS.npz OUT.npz`
runs it alone: the arrays are `pixels` and `mask`, and the arguments of the tool as texts.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import zipfile
from pathlib import Path

import numpy as np

LEFT, TOP, CELL = 500_000.0, 4_000_000.0, 0.5


def unpack(package, folder):
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    return folder


def load_function(folder, *, as_text=False, device=None):
    """The function of an unpacked package, initialised by the path of its .emd, or by its text."""
    (emd,) = Path(folder).glob("*.emd")
    definition = json.loads(emd.read_text(encoding="utf-8"))
    path = Path(folder, definition["InferenceFunction"])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, path.stem)()
    function.initialize()
    if as_text:
        definition["ModelFile"] = str(Path(folder, definition["ModelFile"]).resolve())
    device = {} if device is None else {"device": device}
    function.initialize(model=json.dumps(definition) if as_text else str(emd), **device)
    return function


def configure(function, **arguments):
    """Defaults of the function, then arguments, all as texts."""
    info = function.getParameterInfo()
    assert [row["name"] for row in info[:3]] == ["raster", "model", "device"]
    unknown = set(arguments) - {row["name"] for row in info[3:]}
    assert not unknown, unknown
    scalars = {row["name"]: str(row["value"]) for row in info[2:]}
    return function.getConfiguration(**scalars | {name: str(value) for name, value in arguments.items()})


def classify(function, pixels, mask=None, *, request=None, edges="small", **arguments):
    """The mosaic of all requests over a raster: class codes and output mask, (rows, cols).

    Args:
        function: Initialised.
        pixels: (bands, rows, cols).
        mask: The same shape, 0 where invalid; None: all valid.
        request: (rows, cols) of a request; None: as the function asks.
        edges: "small": blocks and outputs end at the raster's lower and right edge; "whole": none is smaller.
        **arguments: Of the tool.
    """
    configuration = configure(function, **arguments)
    mask = np.ones(pixels.shape, np.uint8) if mask is None else mask
    rows, cols = pixels.shape[1:]
    info = {"raster_info": {"bandCount": len(pixels), "pixelType": "u1"}, "output_info": {"bandCount": len(pixels)}}
    info = function.updateRasterInfo(**info)["output_info"]
    assert info["bandCount"] == 1
    bands, pad = list(configuration["extractBands"]), configuration["padding"]
    tall, wide = request or (configuration["ty"], configuration["tx"])
    extent = (LEFT, TOP - CELL * rows, LEFT + CELL * cols, TOP)
    props = {"extent": extent, "cellSize": (CELL, CELL), "width": cols, "height": rows, "pixelType": info["pixelType"]}
    around = [(0, 0), (pad, pad + tall), (pad, pad + wide)]
    padded, padded_mask = np.pad(pixels, around), np.pad(mask, around)
    codes, valid = np.zeros((rows, cols), np.uint8), np.zeros((rows, cols), np.uint8)
    for row in range(0, rows, tall):
        for col in range(0, cols, wide):
            inside = slice(row, min(row + tall, rows)), slice(col, min(col + wide, cols))
            shape = tuple(side.stop - side.start for side in inside) if edges == "small" else (tall, wide)
            stop = (rows + pad, cols + pad) if edges == "small" else (rows + 2 * pad + tall, cols + 2 * pad + wide)
            area = slice(row, min(row + tall + 2 * pad, stop[0])), slice(col, min(col + wide + 2 * pad, stop[1]))
            blocks = {
                "raster_pixels": padded[(bands, *area)].copy(),
                "raster_mask": padded_mask[(bands, *area)].copy(),
            }
            corner = (LEFT + CELL * col, TOP - CELL * row)
            out = function.updatePixels(corner, (1, *shape), props, **blocks)
            for name, target in (("output_pixels", codes), ("output_mask", valid)):
                assert out[name].shape == (1, *shape)
                assert out[name].dtype == np.uint8
                size = tuple(side.stop - side.start for side in inside)
                target[inside] = out[name][0, : size[0], : size[1]]
    return codes, valid


def main(package, arrays, out):
    content = dict(np.load(arrays))
    pixels, mask = content.pop("pixels"), content.pop("mask")
    function = load_function(unpack(package, Path(out).with_suffix("")))
    codes, valid = classify(function, pixels, mask, **{name: str(value) for name, value in content.items()})
    np.savez(out, codes=codes, valid=valid)
    print(sorted(name for name in sys.modules if name in {"geopsp", "torch", "rasterio", "numpy", "onnxruntime"}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
