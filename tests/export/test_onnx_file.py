"""An exported ONNX file is what its readers need, holds the whole model, and gives what its network gives."""

from __future__ import annotations

import json
import logging

import numpy as np
import onnx
import pytest
import torch
from common import slow
from export_common import SIZE, random_model, run_onnx
from onnx_common import GOLDEN, MODEL

from geopsp import GeopspError, PSPNetClassifier, prepare_data
from geopsp.chips.chip_set import ChipSet
from geopsp.core.bands import BandStats
from geopsp.core.pixel_values import PixelValues
from geopsp.errors import BandError, ChipError, ExportError, InputNotFoundError, ModelError, OptionError, OutputError
from geopsp.export import check_tiles, onnx_file, onnx_graph
from geopsp.export.check_tiles import RawTile, drawn_tiles, folder_tiles, image_tiles
from geopsp.export.export_job import ExportJob
from geopsp.export.export_model import export_model
from geopsp.export.onnx_graph import ExportedNetwork, _require_readable, onnx_model
from geopsp.export.onnx_metadata import METRES_PER_DEGREE, centimetres_per_pixel
from geopsp.export.onnx_parity import BOUNDS, Bounds, Parity, _parity, require_parity
from geopsp.export.options import ExportOptions
from geopsp.inference.torch_predictor import TorchPredictor
from geopsp.models.build import ModelSpec
from geopsp.models.encoder import supported_backbones, usable_output_stride
from geopsp.models.loss_options import LossSpec
from geopsp.models.manifest import read_manifest
from geopsp.models.saved_model import load_model, save_model

PLAIN = ModelSpec("tu-test_resnet", 3, 4, decoder="plain")
NOT_SAVED = {"made_with", "manifest_sha256"}


def by_map(model, tiles):
    """The probabilities of the network as a map computes them, calibrated if the model is."""
    predict = TorchPredictor(model, torch.device("cpu"), excluded_channels=model.excluded_channels())
    logits = predict([tile.pixels for tile in tiles], [tile.valid for tile in tiles])
    found = torch.from_numpy(logits).softmax(dim=1).numpy()
    if model.calibration is None:
        return found
    return model.calibration.apply(found.swapaxes(0, 1), excluded=model.excluded_channels()).swapaxes(0, 1)


def require_same(found, wanted, tiles, tolerance=1e-4):
    valid = np.stack([tile.valid for tile in tiles])
    difference = np.abs(found - wanted).max(axis=1)[valid]
    assert np.quantile(difference, 0.999) < tolerance  # PointRend may refine another last point
    top = np.sort(wanted, axis=1)
    sure = valid & (top[:, -1] - top[:, -2] > 1e-2)
    assert (found.argmax(axis=1) == wanted.argmax(axis=1))[sure].mean() > 0.9999
    assert len(tiles) < 4 or len(np.unique(wanted.argmax(axis=1)[valid])) > 1  # otherwise it would prove little


# ---- the file


@pytest.mark.parametrize("name", ["pointrend_file", slow("onnx_file")])
def test_it_is_what_readers_need(request, name):
    path = request.getfixturevalue(name)
    proto = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.ir_version == 8
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 18)]
    assert {node.domain for node in proto.graph.node} == {""}
    assert not proto.functions
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    ((image,), (probabilities,)) = proto.graph.input, proto.graph.output
    assert (image.name, probabilities.name) == ("image", "probabilities")
    for value in (image, probabilities):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        batch, channels, *sides = value.type.tensor_type.shape.dim
        assert batch.dim_param
        assert channels.dim_value > 0
        assert sides[0].dim_value == sides[1].dim_value > 0
    assert sorted(file.name for file in path.parent.iterdir() if file.name.startswith(path.stem)) in (
        ["model", "model.onnx"],
        ["model.onnx"],
        ["pointrend.onnx"],
    )


@pytest.mark.slow
def test_its_metadata_hold_the_whole_model_and_its_calibration(onnx_file, trained):
    found = {entry.key: entry.value for entry in onnx.load(onnx_file).metadata_props}
    manifest, saved = json.loads(found["geopsp_manifest"]), read_manifest(trained)
    assert {name: value for name, value in manifest.items() if name not in NOT_SAVED} == {
        name: value for name, value in saved.items() if name not in NOT_SAVED
    }
    model = load_model(trained)
    assert found["geopsp_version"] == "1"
    assert json.loads(found["geopsp_export"]) | {"geopsp": ""} == {
        "tile_size": 32, "precision": "fp32", "pointrend": False, "opset": 18, "zero_is_nodata": True,
        "weights_fingerprint": model.fingerprint(), "geopsp": "", "calibrated": model.calibration.words,
    }  # fmt: skip
    assert all(isinstance(value, str) for value in found.values())


def test_its_metadata_are_the_manifest_of_the_model(pointrend_file, pointrend_model, tmp_path):
    found = {entry.key: entry.value for entry in onnx.load(pointrend_file).metadata_props}
    manifest, saved = (
        json.loads(found["geopsp_manifest"]),
        read_manifest(save_model(pointrend_model, tmp_path / "model")),
    )
    assert {name: value for name, value in manifest.items() if name not in NOT_SAVED} == {
        name: value for name, value in saved.items() if name not in NOT_SAVED
    }
    assert found["geopsp_version"] == "1"
    assert json.loads(found["geopsp_export"]) | {"geopsp": ""} == {
        "tile_size": SIZE, "precision": "fp32", "pointrend": True, "opset": 18, "zero_is_nodata": True,
        "weights_fingerprint": pointrend_model.fingerprint(), "geopsp": "",
    }  # fmt: skip


# ---- its numbers


@pytest.mark.slow
def test_a_trained_network_gives_the_same_as_in_a_map(onnx_file, trained, small_world):
    model = load_model(trained)
    tiles = image_tiles(model, small_world["scene"]).take(32)
    assert not all(tile.valid.all() for tile in tiles)
    wanted = by_map(model, tiles)
    for batch in (1, 3, len(tiles)):
        found = run_onnx(onnx_file, np.stack([tile.pixels for tile in tiles[:batch]]))
        require_same(found, wanted[:batch], tiles[:batch])


def test_pointrend_gives_the_same_as_in_a_map(pointrend_file, pointrend_model):
    tiles = drawn_tiles(pointrend_model, seed=5).take(SIZE)
    wanted = by_map(pointrend_model, tiles)
    for batch in (1, 3, len(tiles)):
        found = run_onnx(pointrend_file, np.stack([tile.pixels for tile in tiles[:batch]]))
        require_same(found, wanted[:batch], tiles[:batch])


def test_probabilities_are_those_of_the_classes_that_were_learned(pointrend_file, pointrend_model):
    tiles = drawn_tiles(pointrend_model).take(SIZE)
    found = run_onnx(pointrend_file, np.stack([tile.pixels for tile in tiles]))
    assert (found[:, 1] == 0).all()
    assert found[:, [0, 2, 3]].min() >= 0
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_not_finite_is_as_invalid_as_one_of_zeros(pointrend_file, value):
    pixels = np.random.default_rng(1).uniform(1, 3000, (1, 3, SIZE, SIZE)).astype(np.float32)
    zeros, other = pixels.copy(), pixels.copy()
    zeros[:, :, 20:30, 5:50], other[:, 1, 20:30, 5:50] = 0, value
    found = run_onnx(pointrend_file, other)
    np.testing.assert_array_equal(found, run_onnx(pointrend_file, zeros))
    assert np.isfinite(found).all()
    assert not np.array_equal(found, run_onnx(pointrend_file, pixels))


def test_a_pixel_that_is_0_in_one_band_is_valid(pointrend_file):
    pixels = np.random.default_rng(1).uniform(1, 3000, (1, 3, SIZE, SIZE)).astype(np.float32)
    pixels[:, 1] = 0
    assert not np.array_equal(run_onnx(pointrend_file, pixels), run_onnx(pointrend_file, 0 * pixels))


@pytest.mark.parametrize("half", [False, True])
def test_pixels_are_normalised_as_in_a_map(half):
    """Also a band without variance, and physical values."""
    model = random_model(PLAIN)
    stats = model.statistics
    model.statistics = BandStats(stats.count, stats.mean, stats.m2 * [1, 0, 1], stats.low, stats.high)
    model.pixel_values = PixelValues(scaled=True, scales=((1e-4, -0.1),) * 3)
    module, seen = ExportedNetwork(model, half=half, pointrend=True), []
    module.network.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    (tile, *_) = drawn_tiles(model).take(SIZE)[1:]
    assert not tile.valid.all()
    with torch.inference_mode():
        assert module(torch.from_numpy(tile.pixels[None])).dtype == torch.float32
    (found,) = seen
    assert found.dtype == (torch.float16 if half else torch.float32)
    wanted = model.normalization(tile.pixels, tile.valid)
    np.testing.assert_allclose(found[0].float().numpy(), wanted, rtol=1e-3 if half else 1e-5, atol=1e-5)


def test_half_precision_never_becomes_infinite():
    """A band without variance has a std of 1, so that other values of it are far beyond float16."""
    model = random_model(PLAIN)
    module = ExportedNetwork(model, half=True, pointrend=True)
    module.scale.fill_(1.0)
    seen = []
    module.network.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        module(torch.full((1, 3, SIZE, SIZE), 4e9))
    assert torch.isfinite(seen[0]).all()


# ---- options


@pytest.fixture
def lenient(monkeypatch):
    """A PointRend of random weights answers at random: a point more or less changes a class."""
    monkeypatch.setitem(BOUNDS, "fp16", Bounds(2e-2, 0.98, 2e-2, 5e-2))


@pytest.mark.slow
def test_half_precision_is_half_as_large(tmp_path, pointrend_file, pointrend_model, caplog, lenient):
    with caplog.at_level(logging.INFO, "geopsp"):
        path = export_model(pointrend_model, tmp_path / "half.onnx", precision="fp16")
    assert "have the same class as in torch" in caplog.text
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    kinds = {tensor.data_type for tensor in proto.graph.initializer if len(tensor.dims) == 4}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert {value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)} == {1}
    assert path.stat().st_size < pointrend_file.stat().st_size  # of a small network; PointRend stays as it is


@pytest.mark.slow
def test_pointrend_can_be_left_out(tmp_path, pointrend_model):
    before = pointrend_model.fingerprint()
    path = export_model(pointrend_model, tmp_path / "coarse.onnx", pointrend=False)
    proto = onnx.load(path)
    assert not {"TopK", "GridSample", "ScatterElements"} & {node.op_type for node in proto.graph.node}
    found = json.loads({entry.key: entry.value for entry in proto.metadata_props}["geopsp_export"])
    assert found["pointrend"] is False
    assert pointrend_model.network.pointrend is not None
    assert pointrend_model.network.aux is not None
    assert pointrend_model.fingerprint() == before


@pytest.mark.slow
def test_another_size_of_tile(tmp_path, pointrend_model):
    path = export_model(pointrend_model, tmp_path / "large.onnx", tile_size=96)
    tiles = drawn_tiles(pointrend_model).take(96)
    require_same(run_onnx(path, np.stack([tile.pixels for tile in tiles])), by_map(pointrend_model, tiles), tiles)
    found = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert found["tile_size"] == found["tiles_size"] == "96"
    assert json.loads(found["geopsp_export"])["tile_size"] == 96


COMPOSITIONS = {
    "PSPNet": {},
    "PSPNet, PointRend": {"pointrend": True, "aux": "pixel"},
    "PSPNet, plain": {"decoder": "plain"},
    "PSPNet, wide U-Net at stride 4": {"decoder_width": 64, "decoder_stride": 4},
    "PSPNet, U-Net at stride 4, PointRend": {"decoder_width": 64, "decoder_stride": 4, "pointrend": True},
    "PSPNet, plain, stride 16": {"decoder": "plain", "output_stride": 16, "aux": "presence"},
    "PSPNet, plain, PointRend, stride 16": {"decoder": "plain", "output_stride": 16, "pointrend": True},
    "PSPNet, stride 32": {"output_stride": 32},
    "PSPNet, 3 stages": {"encoder_depth": 3},
    "PSPNet, 4 stages, PointRend": {"encoder_depth": 4, "output_stride": 16, "pointrend": True},
    "PSPNet, 1 band": {"bands": 1},
    "PSPNet, 13 bands": {"bands": 13, "pyramid_sizes": (1, 4)},
    "FCN": {"pyramid_sizes": (), "decoder": "plain"},
    "FCN, PointRend": {"pyramid_sizes": (), "decoder": "plain", "pointrend": True},
    "U-Net": {"pyramid_sizes": (), "output_stride": 32},
    "U-Net, PointRend": {"pyramid_sizes": (), "output_stride": 32, "pointrend": True},
    "DeepLabv1": {"pyramid_sizes": (), "atrous_rates": (12,), "decoder": "atrous"},
    "DeepLabv2": {"pyramid_sizes": (), "atrous_rates": (6, 12, 18, 24), "decoder": "atrous", "pointrend": True},
    "DeepLabv3": {"pyramid_sizes": (), "atrous_rates": (6, 12, 18), "decoder": "plain", "output_stride": 16},
    "DeepLabv3+": {"pyramid_sizes": (), "atrous_rates": (6, 12, 18), "decoder": "deeplab", "output_stride": 16},
    "DeepLabv3+, PointRend": {
        "pyramid_sizes": (), "atrous_rates": (6, 12, 18), "decoder": "deeplab", "output_stride": 16, "pointrend": True,
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_every_composition_exports(tmp_path, name):
    spec = ModelSpec(**{"backbone": "tu-test_resnet", "bands": 3, "classes": 4} | COMPOSITIONS[name])
    model = random_model(spec, losses=LossSpec(ignore_classes=("class 2",) if len(name) % 2 else ()))
    path = export_model(model, tmp_path / "model.onnx", precision="fp32")
    tiles = drawn_tiles(model, seed=7).take(SIZE)
    require_same(run_onnx(path, np.stack([tile.pixels for tile in tiles])), by_map(model, tiles), tiles)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMPOSITIONS if not name.endswith("bands")])
def test_every_composition_exports_in_half_precision(tmp_path, name, request):
    if "PointRend" in name or COMPOSITIONS[name].get("pointrend"):
        request.getfixturevalue("lenient")
    spec = ModelSpec(**{"backbone": "tu-test_resnet", "bands": 3, "classes": 4} | COMPOSITIONS[name])
    assert export_model(random_model(spec), tmp_path / "model.onnx", precision="fp16").exists()


# ---- what it is checked on


def test_tiles_of_a_chip_folder_are_its_pixels(small_world, trained):
    tiles = folder_tiles(load_model(trained), small_world["chips"]).take(32)
    chips = ChipSet.open(small_world["chips"])
    assert len(tiles) == min(len(chips), check_tiles.MAX_TILES)
    assert tiles[0].pixels.shape == (2, 32, 32)
    mean = np.concatenate([tile.pixels[:, tile.valid] for tile in tiles], axis=1).mean(axis=1)
    np.testing.assert_allclose(mean, chips.statistics.mean, rtol=0.05)


def test_chips_smaller_than_a_tile_are_filled_up(small_world, trained):
    (tile, *_) = folder_tiles(load_model(trained), small_world["chips"]).take(64)
    assert tile.valid[:32, :32].any()
    assert not tile.valid[32:].any()
    assert not tile.pixels[:, :, 32:].any()


def test_drawn_tiles_are_like_the_training_pixels(trained):
    model = load_model(trained)
    tiles = drawn_tiles(model).take(32)
    assert [tile.pixels.tobytes() for tile in drawn_tiles(model).take(32)] == [tile.pixels.tobytes() for tile in tiles]
    pixels = np.concatenate([tile.pixels[:, tile.valid] for tile in tiles], axis=1)
    assert (pixels == pixels.round()).all()
    assert (pixels >= model.statistics.low[:, None]).all()
    assert (pixels <= model.statistics.high[:, None]).all()
    np.testing.assert_allclose(pixels.mean(axis=1), model.statistics.mean, rtol=0.1)
    assert any(not tile.valid.all() for tile in tiles)
    assert any(tile.valid.all() for tile in tiles)


def test_a_classifier_with_data_is_checked_on_its_validation_chips(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("geopsp.export.onnx_file.onnx_model", lambda _: onnx.load(MODEL))
    model = PSPNetClassifier.from_model(GOLDEN / "model", prepare_data(GOLDEN / "chips", batch_size=4))
    with caplog.at_level(logging.INFO, "geopsp"):
        assert model.export(tmp_path / "model.onnx") == tmp_path / "model.onnx"
    assert "checked in ONNX Runtime on validation chips: 100.0000 % of" in caplog.text


def test_dark_ground_is_told(pointrend_model, pointrend_file, monkeypatch, tmp_path, caplog):
    """The file takes valid pixels of zeros for nodata."""
    (tile, *_) = drawn_tiles(pointrend_model).take(SIZE)
    tile.pixels[:, :16] = 0
    tiles = check_tiles.RawTiles(lambda *_: iter([tile] * 4), "validation chips")
    monkeypatch.setattr(onnx_file, "onnx_model", lambda _: onnx.load(pointrend_file))
    export_model(pointrend_model, tmp_path / "model.onnx", validation=tiles)
    assert "25 % of the valid pixels of the validation chips are 0 in all bands" in caplog.text


# ---- nothing is written


def test_a_file_with_other_results_is_not_written(pointrend_model, pointrend_file, tmp_path, monkeypatch):
    proto = onnx.load(pointrend_file)
    weights = next(tensor for tensor in proto.graph.initializer if tuple(tensor.dims) == (1, 3, 1, 1))
    weights.CopyFrom(onnx.numpy_helper.from_array(1.5 * onnx.numpy_helper.to_array(weights), weights.name))
    monkeypatch.setattr(onnx_file, "onnx_model", lambda _: proto)
    with pytest.raises(ExportError, match=r"gives other results than the network: .* Nothing is written"):
        export_model(pointrend_model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("calibrated", [False, True])
def test_only_calibrated_probabilities_may_jump_at_a_tie(calibrated):
    """One pixel is a tie, another is not; both fall otherwise in the file."""
    tile = RawTile(np.ones((1, 1, 2), np.float32), np.ones((1, 2), bool))
    wanted = np.array([[[0.8, 0.52]], [[0.2, 0.48]]], np.float32)[None]
    found = wanted[:, ::-1]
    ties = np.array([[[True, False]]])
    jumps = ties if calibrated else np.zeros_like(ties)
    parity = _parity(found, wanted, [tile], BOUNDS["fp32"], ties=ties, jumps=jumps, pointrend=False)
    assert (parity.changed, parity.changed_ties, parity.near_ties, parity.other_points) == (1, 1, 1, 0)
    assert parity.difference == pytest.approx(0.04 if calibrated else 0.6)


@pytest.mark.parametrize(
    ("precision", "parity", "ok"),
    [
        ("fp32", Parity(1_000_000, 1000, changed=99, difference=9e-4), True),
        ("fp32", Parity(1_000_000, 1000, changed_ties=1000, difference=9e-4), True),
        ("fp32", Parity(1_000_000, 1000, changed=101), False),
        ("fp32", Parity(1_000_000, difference=1.1e-3), False),
        ("fp32", Parity(1_000_000, difference=float("nan")), False),
        ("fp32", Parity(1_000_000, other_points=100), True),
        ("fp32", Parity(1_000_000, other_points=101), False),
        ("fp16", Parity(1_000_000, difference=1.9e-2, changed=999), True),
        ("fp16", Parity(1_000_000, difference=2.1e-2), False),
    ],
)
def test_bounds(precision, parity, ok):
    assert BOUNDS["fp32"].agreement == 0.9999
    if ok:
        require_parity(parity, precision)
    else:
        with pytest.raises(ExportError):
            require_parity(parity, precision)


def test_agreement_is_never_rounded_up():
    assert "99.9999 % of" in str(Parity(100_000_000, changed=1))


def test_what_the_exporter_changes_without_a_word_is_refused():
    """Where it cannot do what it was asked for, it only logs that."""
    model, proto = load_model(GOLDEN / "model"), onnx.load(MODEL)
    _require_readable(proto, model)
    other = onnx.load(MODEL)
    other.opset_import[0].version = 17
    with pytest.raises(ExportError, match=r"wrote operators of \{'': 17\}, but the file must have those of ONNX 18"):
        _require_readable(other, model)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(ExportError, match="cannot be exported to ONNX: its layers fix the number of tiles") as caught:
        _require_readable(proto, model)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_exported_is_told_in_one_line(monkeypatch):
    class Odd(ExportedNetwork):
        def forward(self, image):
            return image if image.sum() > 0 else -image

    monkeypatch.setattr(onnx_graph, "ExportedNetwork", Odd)
    with pytest.raises(
        ExportError, match=r"tu-test_resnet at output stride 8.* cannot be exported to ONNX: "
    ) as caught:
        onnx_model(ExportJob(random_model(PLAIN), ExportOptions()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"tile_size": 40}, ModelError, "tiles of 40 x 40 pixels: the side must be a multiple of 32"),
        ({"tile_size": 0}, OptionError, "`tile_size` is 0, but must be"),
        ({"precision": "int8"}, OptionError, "`precision` is 'int8', but must be one of 'fp32', 'fp16'"),
        ({"format": "tflite"}, OptionError, "`format` is 'tflite', but must be one of 'onnx'"),
        ({"path": "model.zip"}, OptionError, r"model.zip ends in .* must end in .onnx"),
        ({"path": ""}, OptionError, "`path` is ''"),
        ({"chips": "a", "images": "b"}, OptionError, "`chips` and `images` are both given"),
        ({"chips": "nowhere"}, InputNotFoundError, "No such folder: nowhere"),
        ({"images": "nowhere.tif"}, GeopspError, "nowhere.tif"),
    ],
)
def test_bad_options_are_told_in_one_line(tmp_path, monkeypatch, pointrend_model, options, error, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.onnx, "export", None)  # never so late
    with pytest.raises(error, match=words) as caught:
        export_model(**{"model": pointrend_model, "path": "model.onnx"} | options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_chips_with_other_bands_are_refused(tmp_path, small_world, pointrend_model):
    with pytest.raises(BandError, match="The chips have the bands red, nir, but the model needs band_1, band_2"):
        export_model(pointrend_model, tmp_path / "model.onnx", chips=small_world["chips"])


def test_images_without_valid_pixels_are_refused(tmp_path, make_raster, pointrend_model):
    image = make_raster(data=np.zeros((3, 70, 70), np.uint16), nodata=0)
    with pytest.raises(ChipError, match="images have no valid pixels to check the exported file on"):
        export_model(pointrend_model, tmp_path / "model.onnx", images=image)


def test_what_exists_is_not_replaced_unless_asked(tmp_path, pointrend_model, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", None)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"model.onnx already exists. Use `overwrite=True`"):
        export_model(pointrend_model, path)
    folder = tmp_path / "folder.onnx"
    folder.mkdir()
    with pytest.raises(OutputError, match=r"folder.onnx is a folder, but must be a file"):
        export_model(pointrend_model, folder, overwrite=True)
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("missing", onnx_file.PACKAGES)
def test_a_package_that_is_not_installed(tmp_path, pointrend_model, monkeypatch, missing):
    monkeypatch.setattr("geopsp.core.extras.find_spec", lambda name: None if name == missing else object())
    with pytest.raises(
        OptionError, match=rf'needs {missing}, which is not installed. Run: pip install "geopsp\[onnx\]"'
    ):
        export_model(pointrend_model, tmp_path / "model.onnx")


def test_a_network_beyond_two_gigabytes(monkeypatch, tmp_path, pointrend_model):
    monkeypatch.setattr(onnx_graph, "MAX_BYTES", 1_000_000)
    monkeypatch.setattr(torch.onnx, "export", None)
    with pytest.raises(ExportError, match=r"holds less than 2 GB. Use `precision='fp16'`, or a smaller backbone"):
        export_model(pointrend_model, tmp_path / "model.onnx")


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(InputNotFoundError, match="No such folder"):
        export_model(tmp_path / "nowhere", tmp_path / "model.onnx")


# ---- sizes of pixels


@pytest.mark.parametrize(
    ("units", "cell", "wanted"),
    [
        ("metre", (0.5, 0.5), 50),
        ("metre", (2.0, 8.0), 400),
        ("US survey foot", (1.0, 1.0), 100 * 1200 / 3937),
        ("degree", (1e-4, 1e-4), 1e-2 * METRES_PER_DEGREE),
        ("furlong of nowhere", (1.0, 1.0), None),
    ],
)
def test_resolution_in_centimetres(units, cell, wanted):
    model = random_model(PLAIN)
    model.units, model.cell_size = units, cell
    assert centimetres_per_pixel(model) == (None if wanted is None else pytest.approx(wanted))


# ---- backbones


@pytest.mark.slow
@pytest.mark.parametrize("name", supported_backbones())
def test_every_listed_backbone_exports(tmp_path, name):
    spec = ModelSpec(name, 4, 3, pyramid_sizes=(1, 2), output_stride=usable_output_stride(name, 16))
    assert export_model(random_model(spec), tmp_path / "model.onnx").exists()
