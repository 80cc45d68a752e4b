"""The raster function, played by the harness: geopsp's own map, whatever ArcGIS asks for."""

from __future__ import annotations

import ast
import json
import sys
import types
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import rasterio
import torch
from arcgis_common import SIZE, blurred_model, picture, write_folder
from arcgis_harness import CELL, LEFT, TOP, classify, load_function
from hypothesis import given
from hypothesis import strategies as st
from inference_common import numba_ops
from rasterio.transform import from_origin

from geopsp.core.grid import tile_starts
from geopsp.export import arcgis_function
from geopsp.inference.classify_pixels import classify_pixels
from geopsp.inference.tile_plan import SCORE_ONE, axis_weights
from geopsp.inference.tile_scores import score_tile


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("package") / "unpacked")


@pytest.fixture
def function(folder):
    return load_function(folder)


class Classifier:
    device = "cpu"

    def __init__(self, model):
        self.model = model


def own_map(tmp_path, pixels, valid=None, **options):
    """geopsp's own map of the same pixels, and where it has data."""
    path, out = tmp_path / "scene.tif", tmp_path / "map.tif"
    profile = {"driver": "GTiff", "count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2]}
    profile |= {"dtype": pixels.dtype, "crs": "EPSG:32632", "transform": from_origin(LEFT, TOP, CELL, CELL)}
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(pixels)
        if valid is not None:
            dataset.write_mask(valid)
    model = Classifier(blurred_model(str(pixels.dtype)))
    classify_pixels(path, model, out, precision="fp32", overwrite=True, bands=[1, 2, 3], **options)
    with rasterio.open(out) as dataset:
        codes = dataset.read(1)
    return codes, codes != 255


@pytest.mark.parametrize("padding", [0, 8, 16])
def test_it_is_our_own_map_whatever_is_asked_for(tmp_path, function, padding):
    pixels = picture(150, 211)
    expected, _ = own_map(tmp_path, pixels, padding=padding)
    for request in (None, (64, 64), (37, 211), (150, 50)):
        for edges in ("small", "whole"):
            codes, valid = classify(function, pixels, request=request, edges=edges, padding=padding)
            assert valid.all()
            assert np.array_equal(codes, expected), (codes != expected).sum()


@pytest.mark.parametrize("size", [(20, 45), (32, 32), (33, 31), (63, 97)])
def test_rasters_smaller_than_a_tile_and_a_little_larger(tmp_path, function, size):
    pixels = picture(*size)
    expected, _ = own_map(tmp_path, pixels)
    assert np.array_equal(classify(function, pixels)[0], expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("options", [{}, {"predict_background": False}, {"test_time_augmentation": True}])
def test_pixel_types_and_arguments(tmp_path, function, dtype, options):
    pixels = picture(70, 90, dtype=dtype)
    expected, _ = own_map(tmp_path, pixels, **options)
    codes, _ = classify(function, pixels, **options)
    assert (codes == expected).mean() >= (0.9999 if "test_time_augmentation" in options else 1)
    assert options.get("predict_background", True) == (0 in codes)


def test_invalid_pixels_never_reach_the_network(tmp_path, function):
    pixels, valid = picture(90, 120), np.ones((90, 120), bool)
    valid[:40, :70] = valid[80:, 100:] = valid[60, 60] = False
    expected, has_data = own_map(tmp_path, pixels, valid)
    assert np.array_equal(has_data, valid)
    junk = np.where(valid, pixels, 77)
    codes, mask = classify(function, junk, np.broadcast_to(valid, pixels.shape).astype(np.uint8))
    assert np.array_equal(codes, expected)
    assert np.array_equal(mask, valid)


def test_nodata_of_one_band_and_dark_pixels(function):
    """ArcGIS masks each band by itself: 0 in one band is dark, another masked value is no data."""
    pixels = picture(40, 40)
    pixels[0, 3, 3] = pixels[1, 5, 5] = 0
    mask = np.ones(pixels.shape, np.uint8)
    mask[0, 3, 3] = mask[2, 7, 7] = 0
    _, valid = classify(function, pixels, mask)
    assert [valid[3, 3], valid[5, 5], valid[7, 7]] == [1, 1, 0]
    floats = pixels.astype(np.float32)
    floats[1, 9, 9] = np.nan
    _, valid = classify(function, floats)
    assert (valid == 0).sum() == 1
    assert valid[9, 9] == 0


def test_pixels_of_zero_in_all_bands_are_classified_where_arcgis_calls_them_valid(function):
    pixels = picture(40, 40)
    pixels[:, 10:12, 10:12] = 0
    codes, valid = classify(function, pixels)
    assert valid.all()
    assert 255 not in codes


def test_more_bands_than_needed(tmp_path, folder):
    pixels = picture(50, 60)
    chosen = load_function(write_folder(tmp_path / "chosen", ExtractBands=[3, 1, 4]))
    many = np.stack([pixels[1] // 2, pixels[1], pixels[0] // 3, pixels[0], pixels[2]])
    expected, _ = own_map(tmp_path, pixels)
    assert np.array_equal(classify(chosen, many)[0], expected)
    assert np.array_equal(classify(load_function(folder), np.concatenate([pixels, pixels]))[0], expected)


def test_initialised_by_text(tmp_path, folder):
    pixels = picture(40, 50)
    codes = [classify(load_function(folder, as_text=each), pixels)[0] for each in (False, True)]
    assert np.array_equal(*codes)


@pytest.mark.parametrize("props", [{}, {"extent": None}, {"cellSize": (0, 0)}, {"width": 3, "height": 3}])
def test_requests_agree_also_where_arcgis_does_not_say_where_they_are(function, props):
    """Then tiles are counted from the request; all requests are whole numbers of steps apart."""
    pixels = picture(200, 260)
    step = 24
    whole = {**vars_of(pixels), "width": 5, "height": 5}
    plain = whole_map(function, pixels, {**whole, **props} if props else {"pixelType": "u1"}, 4 * step)
    other = whole_map(function, pixels, {**whole, **props} if props else {"pixelType": "u1"}, 3 * step)
    assert np.array_equal(plain, other)


def vars_of(pixels):
    rows, cols = pixels.shape[1:]
    return {"extent": (0, 0, cols, rows), "cellSize": (1, 1), "pixelType": "u1"}


def whole_map(function, pixels, props, tall):
    configuration = function.getConfiguration(padding="8")
    pad = configuration["padding"]
    rows, cols = pixels.shape[1:]
    around = [(0, 0), (pad, pad + tall), (pad, pad + tall)]
    padded, mask = np.pad(pixels, around), np.pad(np.ones_like(pixels), around)
    out = np.zeros((rows + tall, cols + tall), np.uint8)
    for row in range(0, rows, tall):
        for col in range(0, cols, tall):
            area = slice(row, row + tall + 2 * pad), slice(col, col + tall + 2 * pad)
            blocks = {"raster_pixels": padded[:, *area], "raster_mask": mask[:, *area]}
            found = function.updatePixels((col, rows - row), (tall, tall), props, **blocks)
            out[row : row + tall, col : col + tall] = found["output_pixels"]
    return out[:rows, :cols]


@given(
    length=st.integers(1, 700), size=st.integers(2, 40), share=st.floats(0, 0.5), first=st.integers(0, 650),
    pixels=st.integers(1, 200),
)  # fmt: skip
def test_tiles_and_weights_are_those_of_our_own_maps(length, size, share, first, pixels):
    overlap = int(size * share)
    starts = tile_starts(length, size=size, overlap=overlap)
    lines = axis_weights(length, size, overlap)
    first %= length
    expected = [
        (start - first, list(line))
        for start, line in zip(starts, lines, strict=True)
        if first - size < start < first + pixels
    ]
    found = arcgis_function._Axis(first, length, size, overlap).tiles(pixels)
    assert [(start, line.tolist()) for start, line in found] == expected


def test_attribute_table_pixel_type_and_nodata(function):
    info = function.updateRasterInfo(raster_info={"bandCount": 3}, output_info={"pixelType": "u2", "noData": [0]})
    info = info["output_info"]
    assert (info["bandCount"], info["pixelType"], info["noData"].tolist()) == (1, "u1", [255])
    table = json.loads(info["rasterAttributeTable"])
    rows = [feature["attributes"] for feature in table["features"]]
    assert [row["Value"] for row in rows] == [0, 3, 4, 90, 254]
    assert [row["Class"] for row in rows] == ["background", "water", "forest", "road", "last"]
    legend = blurred_model().legend
    assert [(row["Red"], row["Green"], row["Blue"]) for row in rows] == [each.rgb for each in legend]
    assert {field["name"] for field in table["fields"]} == set(rows[0])


@pytest.mark.parametrize(
    ("value", "expected"), [(9, 9), ("9", 9), (10.0, 9), ("7.0", 6), (1, 1), ("2", 2), (64, 64), (None, 4), ("", 4)]
)
def test_batch_size_becomes_a_rectangle(function, value, expected):
    configuration = function.getConfiguration(batch_size=value, padding=0)
    assert configuration["batch_size"] == expected
    assert configuration["ty"] <= configuration["tx"]
    assert configuration["ty"] * configuration["tx"] >= expected * SIZE**2


@pytest.mark.parametrize("yes", [True, "True", "true", 1, "1", "yes", "Y", 1.0])
@pytest.mark.parametrize("no", [False, "False", "f", 0, "0", "NO", 0.0])
def test_texts_and_numbers_as_switches(function, yes, no):
    assert function.getConfiguration(test_time_augmentation=yes)["test_time_augmentation"]
    assert not function.getConfiguration(test_time_augmentation=no)["test_time_augmentation"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"padding": "17"}, "padding is 17, but must be from 0 to 16"),
        ({"padding": -1}, "padding is -1"),
        ({"padding": "wide"}, "padding is 'wide', but must be a whole number"),
        ({"padding": 1.5}, "padding is 1.5, but must be a whole number"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"predict_background": "maybe"}, "predict_background is 'maybe', but must be True or False"),
    ],
)
def test_wrong_arguments(function, arguments, words):
    with pytest.raises(ValueError, match=words):
        function.getConfiguration(**arguments)


def test_damaged_packages(tmp_path, folder, monkeypatch):
    function = arcgis_function.GeopspClassifier()
    function.initialize()
    assert function.getParameterInfo()
    for model, words in (
        (str(tmp_path / "none.emd"), "Cannot read the model definition"),
        ("{nonsense", "Cannot read the model definition"),
        ("x" * 5000, "Cannot read the model definition"),
        ("{}", "has no ModelFile"),
    ):
        with pytest.raises(ValueError, match=words):
            function.initialize(model=model)
    broken = write_folder(tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match="cannot open"):
        load_function(broken)
    (broken / "model.onnx").unlink()
    with pytest.raises(ValueError, match="The model file is missing"):
        load_function(broken)
    with pytest.raises(ValueError, match="The ONNX file has"):
        load_function(write_folder(tmp_path / "other", ImageHeight=64))
    with pytest.raises(ValueError, match=r"The raster has 2 band\(s\), but the model needs 3"):
        load_function(folder).updateRasterInfo(raster_info={"bandCount": 2}, output_info={})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="Install the deep learning libraries"):
        load_function(folder)


def test_arcgis_is_told_the_processor(folder, monkeypatch):
    arcpy = types.SimpleNamespace(env=types.SimpleNamespace(processorType="", gpuId=-1))
    monkeypatch.setitem(sys.modules, "arcpy", arcpy)
    load_function(folder, device="-1")
    assert arcpy.env.processorType == "CPU"
    asked = []

    class Session:
        def __init__(self, path, providers):
            asked.append(providers)
            self.__dict__["real"] = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

        def __getattr__(self, name):
            return getattr(self.real, name)

    stand_in = types.SimpleNamespace(
        InferenceSession=Session, get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", stand_in)
    for device, number in ((1, 1), ("0", 0), (-2, 0)):
        load_function(folder, device=device)
        assert asked[-1] == [("CUDAExecutionProvider", {"device_id": number}), "CPUExecutionProvider"]
        assert (arcpy.env.processorType, arcpy.env.gpuId) == ("GPU", number)
    load_function(folder)
    assert asked[-1] == ["CPUExecutionProvider"]


def test_a_block_without_its_padding_is_an_error(function):
    """Rather than a map that is shifted."""
    pixels = picture(200, 200)
    function.getConfiguration()
    props = vars_of(pixels) | {"width": 200, "height": 200}
    for rows, cols in ((40 + 2 * SIZE - 1, 40 + 2 * SIZE), (40 + 2 * SIZE, 40 + SIZE)):
        with pytest.raises(ValueError, match="ArcGIS gave a block of"):
            function.updatePixels((50, 150), (1, 40, 40), props, raster_pixels=pixels[:, :rows, :cols])
    function.updatePixels((50, 150), (1, 40, 40), props, raster_pixels=pixels[:, : 40 + 2 * SIZE, : 40 + 2 * SIZE])


def test_the_function_stands_alone():
    """It parses as Python 3.9, which the oldest ArcGIS Pro has, and imports nothing of geopsp."""
    source = Path(arcgis_function.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 9))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert found == {"__future__", "arcpy", "json", "math", "numpy", "onnxruntime", "os", "typing"}
    assert "strict=" not in source


def test_scores_are_those_of_our_own_maps():
    """Also where two probabilities round to one number: the larger one wins, however little it is larger."""
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(5, 32, 32)).astype(np.float32) * 4
    logits[1, :, :16] = logits[2, :, :16] + np.float32(3e-6)
    probabilities = torch.from_numpy(logits).softmax(dim=0).numpy()
    scores = arcgis_function._scores(probabilities[None])[0]
    expected = score_tile(logits, (bytes([128]) * 32,) * 2, numba_ops(), everywhere=True)
    ((_, theirs),) = expected.overlaps
    assert abs(scores - theirs).max() <= 1
    assert np.array_equal(scores.argmax(axis=0), probabilities.argmax(axis=0))
    assert np.array_equal(arcgis_function._scores(np.float32([[[[1.0]], [[0.0]]]])).ravel(), [SCORE_ONE, 0])
