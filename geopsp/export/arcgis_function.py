"""A Python raster function: ArcGIS Pro's "Classify Pixels Using Deep Learning" by ONNX Runtime.

This module goes into deep learning packages as a file of its own. It runs inside ArcGIS Pro 3.3 to 3.7 (Python 3.9 to
3.13, numpy 1 or 2, onnxruntime from 1.17 on), where there is no geopsp: it imports numpy and onnxruntime alone.

Tiles lie where geopsp's own maps have them, counted from the corner of the output raster, and are blended by the same
whole numbers. ArcGIS asks for rectangles and adds a tile's width of pixels on each side, so that every tile that
touches a rectangle is inside: the map does not depend on how ArcGIS cuts its requests.
"""

from __future__ import annotations

import json
import math
import os
from typing import Any

import numpy as np

NODATA = 255  # class codes go up to 254
WEIGHT_ONE = 128  # sum of the weights of all tiles at a pixel, along one axis
SCORE_ONE = 2**17 - 1  # the fixed-point score of probability 1
REQUEST_TILES = 4  # tiles along a side of a request at least: fewer would compute most tiles several times
REQUEST_BYTES = 2**28  # memory for the scores of a request, unless the batch itself needs more
ENTRIES = ("ModelFile", "ImageHeight", "ExtractBands", "Classes")

TRUE, FALSE = ("true", "t", "yes", "y", "1", "1.0"), ("false", "f", "no", "n", "0", "0.0")


class GeopspClassifier:
    """Classifies each pixel of a raster by an ONNX file that geopsp exported."""

    def __init__(self) -> None:
        self.name = "geopsp Pixel Classifier"
        self.description = "Classifies each pixel of a raster by a model that geopsp trained."
        self.classes, self.bands = list[dict[str, Any]](), list[int]()
        self.size, self.padding, self.batch_size = 0, 0, 4
        self.predicts_background, self.augmented = True, False
        self.session: Any = None

    def initialize(self, **kwargs: Any) -> None:
        """Load a model: `model` is the path of the .emd file or its JSON text; `device` is -1 for the CPU."""
        if not kwargs.get("model"):
            return
        definition, folder = _read_definition(str(kwargs["model"]))
        self.size = int(definition["ImageHeight"])
        self.bands, self.classes = [int(band) for band in definition["ExtractBands"]], list(definition["Classes"])
        self.padding = int(definition.get("Padding", self.size // 4))
        self.batch_size = int(definition.get("BatchSize", 4))
        path = os.path.join(folder, str(definition["ModelFile"]))
        if not os.path.isfile(path):
            raise ValueError(f"The model file is missing: {path}. Unpack or copy the whole package again.")
        self.session = _open_session(path, _whole("device", kwargs.get("device"), -1))
        found = [(each.name, *each.shape[1:]) for each in (*self.session.get_inputs(), *self.session.get_outputs())]
        counts = {"image": len(self.bands), "probabilities": len(self.classes)}
        needed = [(name, count, self.size, self.size) for name, count in counts.items()]
        if found != needed:
            raise ValueError(f"The ONNX file has {found}, but the .emd says {needed}. Export the package again.")

    def getParameterInfo(self) -> list[dict[str, Any]]:
        """Return the inputs: raster, model and device, then what the tool shows as its arguments."""
        rows: list[tuple[str, str, Any, str]] = [
            ("raster", "raster", None, "The image to classify."),
            ("model", "string", None, "The model definition: the .emd file, or its JSON text."),
            ("device", "numeric", -1, "Number of the GPU; -1: the CPU."),
            ("padding", "numeric", self.padding, "Pixels by which tiles overlap, up to half a tile."),
            ("batch_size", "numeric", self.batch_size, "Tiles that the network takes at once."),
            ("predict_background", "string", "True", "False: the likeliest class but the background."),
            ("test_time_augmentation", "string", "False", "Average over 8 symmetries of a tile: 8 times slower."),
        ]
        if self._background is None:
            rows = [row for row in rows if row[0] != "predict_background"]
        names, info = ("name", "dataType", "value", "description"), list[dict[str, Any]]()
        for row in rows:
            title, required = row[0].replace("_", " ").title(), row[0] in {"raster", "model"}
            info.append({**dict(zip(names, row)), "displayName": title, "required": required})
            if row[2] in {"True", "False"}:
                info[-1]["domain"] = ("True", "False")
        return info

    def getConfiguration(self, **scalars: Any) -> dict[str, Any]:
        """Read the arguments, which may be texts; return what ArcGIS shall ask for."""
        self.padding = _whole("padding", scalars.get("padding"), self.padding)
        if not 0 <= self.padding <= self.size // 2:
            raise ValueError(f"padding is {self.padding}, but must be from 0 to {self.size // 2}, half a tile.")
        batch = _whole("batch_size", scalars.get("batch_size"), self.batch_size)
        if batch < 1:
            raise ValueError(f"batch_size is {batch}, but must be 1 or more.")
        rows = math.isqrt(batch)
        cols = batch // rows
        self.batch_size = rows * cols  # a rectangle of tiles
        self.predicts_background = _truth("predict_background", scalars.get("predict_background"), True)
        self.augmented = _truth("test_time_augmentation", scalars.get("test_time_augmentation"), False)
        step, side = self.size - self.padding, REQUEST_TILES
        while side > 1 and 4 * len(self.classes) * (side * step) ** 2 > REQUEST_BYTES:
            side -= 1
        return {
            "extractBands": tuple(self.bands),
            "padding": self.size,
            "tx": max(cols, side) * step,
            "ty": max(rows, side) * step,
            "fixedTileSize": 1,
            "batch_size": self.batch_size,
            "inheritProperties": 4 | 8,  # the grid and the resampling; pixel type and NoData are those of classes
            "inputMask": True,
            "test_time_augmentation": self.augmented,
        }

    def updateRasterInfo(self, **kwargs: Any) -> dict[str, Any]:
        """Describe the output: one band of class codes, with names and colours."""
        self._require_bands(kwargs.get("raster_info", {}).get("bandCount"))
        table, nodata = json.dumps(_attribute_table(self.classes)), np.array([NODATA], "u1")
        info = {"bandCount": 1, "pixelType": "u1", "noData": nodata, "rasterAttributeTable": table}
        kwargs["output_info"].update(info, statistics=(), histogram=())
        return kwargs

    def updatePixels(self, tlc: Any, shape: Any, props: dict[str, Any], **pixelBlocks: Any) -> dict[str, Any]:
        """Classify the rectangle of `shape`, (rows, cols) or (bands, rows, cols), whose upper left corner is `tlc`.

        `props` describes the output raster; the pixel blocks, (bands, rows, cols), have the padding on each side.
        """
        rows, cols = (int(side) for side in shape[-2:])
        pixels, valid = self._block(pixelBlocks, rows, cols)
        known = valid[self.size : self.size + rows, self.size : self.size + cols]
        places = self._places(tlc, props, known, np.shape(pixelBlocks["raster_pixels"])[-2:])
        axes = [_Axis(first, length, self.size, self.padding) for first, length in places]
        scores = self._blend(pixels, valid, axes, (rows, cols))
        codes = np.array([entry["Value"] for entry in self.classes], np.uint8)
        found = np.where(known, codes[scores.argmax(axis=0)], NODATA)
        pixelBlocks["output_pixels"] = found.reshape(shape).astype(props.get("pixelType") or "u1")
        pixelBlocks["output_mask"] = known.reshape(shape).astype("u1")
        return pixelBlocks

    @property
    def _background(self) -> int | None:
        """The channel of the background; None if there is none beside other classes."""
        names = [entry["Name"] for entry in self.classes]
        return names.index("background") if "background" in names and len(names) > 1 else None

    def _require_bands(self, found: Any) -> None:
        if found is not None and int(found) < len(self.bands):
            needed = f"the model needs {len(self.bands)}, in the order of its training"
            raise ValueError(f"The raster has {found} band(s), but {needed}. Choose another raster.")

    def _places(self, tlc: Any, props: dict[str, Any], known: Any, block: Any) -> list[tuple[int, int]]:
        """Return where a rectangle begins in the output raster, and the raster's length, down and across.

        Where ArcGIS does not say it, or there are valid pixels outside of the raster that it describes, tiles are
        counted from the rectangle itself, in a raster without end. A block that lacks padding is an error.
        """
        step = self.size - self.padding
        endless = [(step * 2**20, step * 2**21)] * 2
        try:
            left, _, _, top = (float(value) for value in props["extent"])
            width, height = (float(value) for value in props["cellSize"])
            row, col = round((top - float(tlc[1])) / height), round((float(tlc[0]) - left) / width)
            places = [(row, int(props["height"])), (col, int(props["width"]))]
        except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
            return endless
        for axis, (first, length) in enumerate(places):
            pixels = first + np.flatnonzero(known.any(axis=1 - axis))
            if first < 0 or length < 1 or (len(pixels) and pixels[-1] >= length):
                return endless
        sides = zip(known.shape, places)
        needed = [min(count + self.size, length - first) + self.size for count, (first, length) in sides]
        if any(given < least for given, least in zip(block, needed)):
            raise ValueError(f"ArcGIS gave a block of {block} pixels, but {needed} are needed. Set another batch_size.")
        return places

    def _block(self, blocks: dict[str, Any], rows: int, cols: int) -> tuple[Any, Any]:
        """Return a rectangle with its padding: pixels, (bands, h, w) float32, 0 where invalid, and (h, w) valid.

        A block at the raster's edge may be smaller than asked; what it lacks is invalid. ArcGIS masks each band by
        itself: a masked 0 of whole numbers in one band alone is a dark pixel.
        """
        given = np.asarray(blocks["raster_pixels"])
        given = given[None] if given.ndim == 2 else given
        self._require_bands(len(given))
        chosen = self.bands if len(given) > max(self.bands) else list(range(len(self.bands)))
        mask = blocks.get("raster_mask")
        present = np.broadcast_to(True if mask is None else np.asarray(mask) != 0, given.shape)[chosen]
        data = given[chosen]
        known = (present | (data == 0)).all(axis=0) if data.dtype.kind in "iu" else present.all(axis=0)
        data = data.astype(np.float32)
        known = known & present.any(axis=0) & np.isfinite(data).all(axis=0)
        shape = (rows + 2 * self.size, cols + 2 * self.size)
        part = (slice(0, min(shape[0], data.shape[1])), slice(0, min(shape[1], data.shape[2])))
        pixels, valid = np.zeros((len(data), *shape), np.float32), np.zeros(shape, bool)
        valid[part] = known[part]
        pixels[(slice(None), *part)] = np.where(known, data, 0)[(slice(None), *part)]
        return pixels, valid

    def _blend(self, pixels: Any, valid: Any, axes: list[_Axis], shape: tuple[int, int]) -> Any:
        """Return the weighted sums of the scores of tiles, (classes, rows, cols) int32."""
        sums = np.zeros((len(self.classes), *shape), np.int32)
        down, across = (axis.tiles(count) for axis, count in zip(axes, shape))
        tiles = [(row, col, np.outer(each, other)) for row, each in down for col, other in across]
        tiles = [tile for tile in tiles if self._cut(valid, *tile[:2]).any()]
        for start in range(0, len(tiles), self.batch_size):
            batch = tiles[start : start + self.batch_size]
            images = np.stack([self._cut(pixels, row, col) for row, col, _ in batch])
            for (row, col, weights), scores in zip(batch, _scores(self._probabilities(images))):
                rows, cols = slice(max(row, 0), row + self.size), slice(max(col, 0), col + self.size)
                target = sums[:, rows, cols]
                top, left = max(-row, 0), max(-col, 0)
                part = (slice(top, top + target.shape[1]), slice(left, left + target.shape[2]))
                target += scores[(slice(None), *part)] * weights[part]
        return sums

    def _cut(self, block: Any, row: int, col: int) -> Any:
        """Return the tile that begins at (row, col) of the rectangle; the block begins `size` pixels before it."""
        top, left = row + self.size, col + self.size
        return block[..., top : top + self.size, left : left + self.size]

    def _probabilities(self, images: Any) -> Any:
        """Run the network on (n, bands, size, size) pixels; return (n, classes, size, size) probabilities."""
        if not self.augmented:
            return self._run(images)
        total: Any = 0
        for turns in range(4):
            for flip in (False, True):
                view = np.rot90(images[..., ::-1] if flip else images, turns, (-2, -1))
                found = np.rot90(self._run(view), -turns, (-2, -1))
                total = total + (found[..., ::-1] if flip else found)
        return total / 8

    def _run(self, images: Any) -> Any:
        (found,) = self.session.run(None, {"image": np.ascontiguousarray(images)})
        if not np.isfinite(found).all():
            raise ValueError("The network gives numbers that are not finite. Check the model by `geopsp predict`.")
        if not self.predicts_background and self._background is not None:
            others = np.arange(found.shape[1]).reshape(-1, 1, 1) != self._background
            total = (found * others).sum(axis=1, keepdims=True)
            found = np.where(total > 0, found / np.maximum(total, np.finfo(np.float32).tiny), 1) * others
        return found


class _Axis:
    """Tiles along an axis of the output raster, where geopsp's own maps have them; the last one is moved back."""

    def __init__(self, first: int, length: int, size: int, overlap: int) -> None:
        self.first, self.length, self.size, self.overlap = first, length, size, overlap
        self.step = size - overlap
        self.count = 1 + max(0, -(-(length - size) // self.step))

    def tiles(self, pixels: int) -> list[tuple[int, Any]]:
        """Return the tiles that touch the next `pixels` pixels: where each begins among them, and its weights."""
        stop = self.first + pixels
        numbers = range(max(0, (self.first - self.size) // self.step), min(self.count, stop // self.step + 2))
        touching = [number for number in numbers if self.first - self.size < self._start(number) < stop]
        return [(self._start(number) - self.first, self._weights(number)) for number in touching]

    def _start(self, number: int) -> int:
        return max(0, min(number * self.step, self.length - self.size))

    def _weights(self, number: int) -> Any:
        """Return the weights of a tile, (size,) int32: they fall over `overlap` pixels towards its edges.

        Those of all tiles at a pixel sum to WEIGHT_ONE; what rounding leaves goes to the first tile of largest weight.
        """
        size, first = self.size, self._start(number)
        slope = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
        slope = np.minimum(slope / max(self.overlap, 0.5), 1)
        neighbours = range(max(0, number - 2), min(self.count, number + 3))
        slopes = np.zeros((len(neighbours), size))
        for line, other in zip(slopes, neighbours):
            shift = self._start(other) - first
            if abs(shift) < size:
                line[max(shift, 0) : size + min(shift, 0)] = slope[max(-shift, 0) : size - max(shift, 0)]
        shares = np.floor(slopes / slopes.sum(axis=0) * WEIGHT_ONE).astype(np.int32)
        shares = np.where(slopes > 0, np.maximum(shares, 1), 0)
        shares[slopes.argmax(axis=0), np.arange(size)] += WEIGHT_ONE - shares.sum(axis=0)
        return shares[number - neighbours.start].astype(np.int32)


def _scores(probabilities: Any) -> Any:
    """Return whole numbers of probabilities; the likeliest class has 1 more."""
    scores = np.floor(probabilities * np.float32(SCORE_ONE - 1) + np.float32(0.5)).astype(np.int32)
    return scores + (probabilities == probabilities.max(axis=1, keepdims=True))


def _read_definition(model: str) -> tuple[dict[str, Any], str]:
    """Return the content of an .emd file, given by path or as text, and the folder that its paths begin in."""
    text, beside = model, __file__
    try:
        if not model.lstrip().startswith("{"):
            with open(model, encoding="utf-8-sig") as file:
                text, beside = file.read(), model
        definition = dict(json.loads(text))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"Cannot read the model definition (.emd) {model[:200]}: {error}") from None
    if missing := [name for name in ENTRIES if name not in definition]:
        raise ValueError(f"The model definition (.emd) has no {missing[0]}. Export the package again.")
    return definition, os.path.dirname(os.path.abspath(beside))


def _open_session(path: str, device: int) -> Any:
    """Open the ONNX file on a GPU or on the CPU, and tell ArcGIS which."""
    try:
        import onnxruntime
    except ImportError as error:
        advice = "Install the deep learning libraries of ArcGIS Pro 3.3 or later, which have it"
        raise ImportError(f"This model needs onnxruntime ({error}). {advice}.") from None
    on_gpu = device != -1 and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    number = max(device, 0)
    providers: list[Any] = [("CUDAExecutionProvider", {"device_id": number})] if on_gpu else []
    try:
        session = onnxruntime.InferenceSession(path, providers=[*providers, "CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no common error class
        raise ValueError(f"ONNX Runtime {onnxruntime.__version__} cannot open {path}: {error}") from None
    try:
        import arcpy

        arcpy.env.processorType = "GPU" if on_gpu else "CPU"
        if on_gpu:
            arcpy.env.gpuId = number
    except Exception:  # outside of ArcGIS, or without its licence
        pass
    return session


def _whole(name: str, value: Any, default: int) -> int:
    """Read a whole number that may be a text; None or "" is the default."""
    try:
        number = float(default if value in (None, "") else value)
    except (TypeError, ValueError):
        number = math.nan
    if not number.is_integer():
        raise ValueError(f"{name} is {value!r}, but must be a whole number.")
    return int(number)


def _truth(name: str, value: Any, default: bool) -> bool:
    """Read True or False, which may be a number or a text; None or "" is the default."""
    text = str(default if value in (None, "") else value).strip().lower()
    if text not in (*TRUE, *FALSE):
        raise ValueError(f"{name} is {value!r}, but must be True or False.")
    return text in TRUE


def _attribute_table(classes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the raster attribute table: value, name and colour of each class."""
    kinds = {"OID": "OID", "Value": "Integer", "Class": "String"} | dict.fromkeys(("Red", "Green", "Blue"), "Integer")
    rows = [(number, int(c["Value"]), str(c["Name"]), *map(int, c["Color"])) for number, c in enumerate(classes, 1)]
    return {
        "displayFieldName": "",
        "fieldAliases": {name: name for name in kinds},
        "fields": [{"name": name, "type": "esriFieldType" + kind, "alias": name} for name, kind in kinds.items()],
        "features": [{"attributes": dict(zip(kinds, row))} for row in rows],
    }
