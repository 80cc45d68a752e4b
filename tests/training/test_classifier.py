"""The notebook's way through, from chips to a map that is right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import matplotlib as mpl
import numpy as np
import pytest
import rasterio
import torch
from common import slow

import geopsp
from geopsp import PSPNetClassifier, classify_pixels, prepare_data
from geopsp.core.legend import IGNORE_INDEX
from geopsp.errors import BandError, ChipError, GeopspError, ModelError, OptionError, OutputError, TrainingError
from geopsp.labels.read_labels import read_labels
from geopsp.models.saved_model import load_model
from geopsp.raster.scene import Scene
from geopsp.report.describe import describe

mpl.use("agg")


@pytest.fixture(scope="module")
def data(small_world):
    return prepare_data(small_world["chips"], batch_size=8, cache=small_world["cache"])


def test_it_learns(small_world, trained):
    """Not merely runs: the map agrees with the ground, and scores say so."""
    model = PSPNetClassifier.from_model(trained, data=prepare_data(small_world["chips"]))
    assert model.mIOU(mean=True) > 0.85
    assert model.accuracy() > 0.95
    assert model.history["train_loss"].iloc[-1] < model.history["train_loss"].iloc[0] / 2


def test_map_agrees_with_the_ground(small_world, trained, tmp_path):
    out = classify_pixels(small_world["scene"], trained, tmp_path / "map.tif", polygons=tmp_path / "map.gpkg",
                          probabilities=tmp_path / "p.tif")  # fmt: skip
    truth = read_labels(small_world["labels"], class_field="kind").burn(Scene.open(small_world["scene"]).grid).codes
    with rasterio.open(small_world["scene"]) as source, rasterio.open(out) as dataset:
        assert (dataset.transform, dataset.crs, dataset.shape) == (source.transform, source.crs, source.shape)
        valid, codes = source.dataset_mask() > 0, dataset.read(1)
    assert (codes[~valid] == IGNORE_INDEX).all()
    assert (codes[valid] == truth[valid]).mean() > 0.95
    with rasterio.open(tmp_path / "p.tif") as dataset:
        chance = dataset.read()
        assert dataset.descriptions == ("background", "a", "b")
    assert np.array_equal(chance.argmax(axis=0)[valid], codes[valid]) or (
        (np.sort(chance, axis=0)[-1] - np.sort(chance, axis=0)[-2])[valid][
            chance.argmax(axis=0)[valid] != codes[valid]
        ].max()
        <= 1
    )
    assert set(geopsp.Scene.open(out).bands) == {"class"}


def test_mosaic_of_parts_equals_the_whole(small_world, trained, tmp_path):
    """Two overlapping halves as one mosaic give the map of the whole."""
    whole = classify_pixels(small_world["part"], trained, tmp_path / "whole.tif")
    parts = []
    with rasterio.open(small_world["part"]) as source:
        for name, first, last in (("west.tif", 0, 80), ("east.tif", 50, source.width)):
            window = rasterio.windows.Window(first, 0, last - first, source.height)
            profile = source.profile | {"width": last - first, "transform": source.window_transform(window)}
            with rasterio.open(tmp_path / name, "w", **profile) as part:
                part.write(source.read(window=window))
                part.descriptions = source.descriptions
            parts.append(tmp_path / name)
    mosaic = classify_pixels(parts, trained, tmp_path / "mosaic.tif")
    with rasterio.open(whole) as one, rasterio.open(mosaic) as other:
        assert np.array_equal(one.read(), other.read())


def test_fit_is_repeatable_and_goes_on(data):
    runs, few = [], replace(data, train_rows=data.train_rows[:24], valid_rows=data.valid_rows[:4])
    for _ in range(2):
        model = PSPNetClassifier(few, "tu-test_resnet", use_unet=False, encoder_weights=None)
        model.fit(1, 1e-3)
        runs.append(model)
    first, second = (run.model.network.state_dict() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    runs[0].fit(1, 1e-3)
    assert runs[0].history["epoch"].tolist() == [1, 2]
    after = runs[0].model.network.state_dict()
    assert any(not torch.equal(after[name], tensor) for name, tensor in second.items())


@pytest.mark.parametrize("pointrend", [False, slow(True)])
def test_bfloat16_draws_the_same_map(small_world, trained, pointrend, data):
    """On at least 99.5 % of a trained model's pixels."""
    if pointrend:
        model = PSPNetClassifier(data, "tu-test_resnet", encoder_weights=None, pointrend=True)
        model.fit(3, 3e-3, monitor="valid_miou")
    else:
        model = PSPNetClassifier.from_model(trained)
    network, same, total = model.model.network.eval(), 0, 0
    with torch.inference_mode():
        for batch in data.valid_dl:
            full = network(batch.image, batch.valid)
            with torch.autocast("cpu", torch.bfloat16):
                half = network(batch.image, batch.valid)
            assert half.dtype == full.dtype == torch.float32
            seen = batch.valid[:, 0] > 0
            same += int((full.argmax(1) == half.argmax(1))[seen].sum())
            total += int(seen.sum())
    assert same >= 0.995 * total


def test_from_model_gives_identical_logits(trained):
    one, other = (PSPNetClassifier.from_model(trained).model.network for _ in range(2))
    image = torch.randn(2, 2, 32, 32)
    with torch.inference_mode():
        assert torch.equal(one(image), other(image))


def test_pictures(data, trained):
    model = PSPNetClassifier.from_model(trained, data=data)
    for figure in (data.show_batch(rows=1), model.show_results(rows=2), model.plot_losses()):
        figure.canvas.draw()
        assert np.asarray(figure.canvas.buffer_rgba()).std() > 5


def test_errors(data, trained, small_world, tmp_path, make_raster):
    with pytest.raises(ModelError, match=r"There is no backbone 'resnet19'.*resnet18, resnet34"):
        PSPNetClassifier(data, "resnet19", encoder_weights=None)
    model = PSPNetClassifier(data, "tu-test_resnet", encoder_weights=None)
    with pytest.raises(TrainingError, match="not trained"):
        model.plot_losses()
    with pytest.raises(OptionError, match="`epochs` is 0"):
        model.fit(0, 1e-3)
    with pytest.raises(OptionError, match="monitor"):
        model.fit(1, 1e-3, monitor="beauty")
    with pytest.raises(OptionError, match="`lr` is -1"):
        model.fit(1, -1)
    with pytest.raises(ChipError, match="loaded without data"):
        PSPNetClassifier.from_model(trained).accuracy()
    with pytest.raises(BandError, match="has 1 band without names, but 2 are needed"):
        classify_pixels(make_raster("one.tif", bands=1), trained, tmp_path / "x.tif")
    with pytest.raises(BandError, match="no band red, nir; it has 2: green, blue"):
        classify_pixels(make_raster("gb.tif", bands=2, names=("green", "blue")), trained, tmp_path / "x.tif")
    with pytest.raises(OptionError, match="same name"):
        classify_pixels(small_world["scene"], trained, tmp_path / "x.tif", probabilities=tmp_path / "x.tif")
    (tmp_path / "there.tif").touch()
    with pytest.raises(OutputError, match="already exists"):
        classify_pixels(small_world["scene"], trained, tmp_path / "there.tif")
    assert not list(tmp_path.glob("x*"))


def test_bands_are_matched_by_name(small_world, trained, tmp_path):
    """The same pixels with bands in another order, and one more, give the same map."""
    plain = classify_pixels(small_world["part"], trained, tmp_path / "plain.tif")
    with rasterio.open(small_world["part"]) as source:
        data, profile = source.read(), source.profile | {"count": 3}
    with rasterio.open(tmp_path / "shuffled.tif", "w", **profile) as dataset:
        dataset.write(np.stack([data[1], data[0][::-1], data[0]]))
        dataset.descriptions = ("nir", "blue", "red")
    shuffled = classify_pixels(tmp_path / "shuffled.tif", trained, tmp_path / "map.tif")
    with rasterio.open(plain) as one, rasterio.open(shuffled) as other:
        assert np.array_equal(one.read(), other.read())


def test_a_class_absent_from_training_is_said(small_world, tmp_path, capsys):
    """It scores NaN and training still works."""
    chips = geopsp.export_training_data(
        small_world["scene"], small_world["labels"], tmp_path / "chips", "kind", 32, background="ignore"
    )
    keep = (chips.index["pixels_2"] == 0).to_numpy()
    index = tmp_path / "chips" / "chips.parquet"
    gpd.read_parquet(index)[keep].to_parquet(index)
    data = prepare_data(tmp_path / "chips")
    told = capsys.readouterr().err.replace("\n", " ")
    assert "Warning: No pixel is labelled 'b', so it cannot be learned." in told
    assert "No training pixel is" not in told
    assert any("labelled 'b'" in text for text in data.warnings)
    model = PSPNetClassifier(data, "tu-test_resnet", use_unet=False, encoder_weights=None)
    model.fit(1, 1e-4)
    assert np.isnan(model.per_class_metrics().loc["b", "recall"])
    saved = model.save(tmp_path / "model")
    assert load_model(saved).settings["warnings"] == list(data.warnings)
    assert "  warning    No pixel is labelled 'b'" in str(describe([str(saved)]))
    modes = {path.name: path.stat().st_mode & 0o777 for path in saved.iterdir()}
    assert len(set(modes.values())) == 1, f"{modes}: colleagues can read all files of a model or none"


def test_one_class_only_is_refused(small_world, tmp_path):
    geopsp.export_training_data(
        small_world["scene"], small_world["labels"], tmp_path / "chips", None, 32, background="ignore"
    )
    with pytest.raises(ChipError, match="one class only"):
        prepare_data(tmp_path / "chips")


def test_weights_auto_says_when_there_are_none(data, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: (_ for _ in ()).throw(OSError("no network")))
    monkeypatch.setattr("geopsp.models.encoder.getproxies", dict)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = PSPNetClassifier(data, "resnet18")
    assert model.model.settings["encoder_weights"] is None
    assert "random weights" in capsys.readouterr().err
    with pytest.raises(ModelError, match="no network"):
        PSPNetClassifier(data, "resnet18", encoder_weights="imagenet")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: PSPNetClassifier("chips"),
            r"`data` is 'chips', but must come from prepare_data. Use PSPNetClassifier",
        ),
        (lambda: geopsp.UnetClassifier(Path("chips")), r"`data` is 'chips'.*Use UnetClassifier\(prepare_data\('chips'"),
        (lambda: PSPNetClassifier(None), r"`data` is None, but must come from prepare_data"),
        (lambda: PSPNetClassifier([1]), r"`data` is a list, but must come from prepare_data"),
        (lambda: PSPNetClassifier.from_model("m", "chips"), r"`data` is 'chips'.*data=prepare_data\('chips'\)"),
        (lambda: geopsp.PixelClassifier.from_model(None), r"`path` is None, but must be the path"),
        (lambda: geopsp.ChipSet.open(3), r"`path` is 3, but must be the path"),
        (lambda: prepare_data(["chips", None]), r"`path` is None, but must be the path"),
        (lambda: prepare_data(3), r"`path` is 3, but must be the path"),
        (lambda: prepare_data("chips", transforms="flip"), r"`transforms` is 'flip', but must be torchvision v2"),
        (lambda: geopsp.export_training_data("a.tif", "l.gpkg", None), r"`out` is None, but must be the path"),
        (lambda: geopsp.raster_to_polygons(None, "o.gpkg"), r"`raster` is None, but must be the path"),
        (lambda: geopsp.raster_to_polygons("a.tif", 3), r"`out` is 3, but must be the path"),
        (lambda: classify_pixels("a.tif", "m", None), r"`out` is None, but must be the path"),
    ],
)
def test_an_argument_of_a_wrong_kind_is_one_clear_line(call, says):
    with pytest.raises(OptionError, match=says):
        call()


def test_a_method_s_argument_of_a_wrong_kind_is_one_clear_line(small_world, trained, tmp_path):
    model = PSPNetClassifier.from_model(trained, prepare_data(small_world["chips"]))
    for call, says in (
        (lambda: model.show_results("a"), "`rows` is 'a'"),
        (lambda: model.show_results(2, alpha=7), "`alpha` is 7"),
        (lambda: model.data.show_batch(0), "`rows` is 0"),
        (lambda: model.fit(epochs="3"), "`epochs` is '3'"),
        (lambda: model.fit(3, learning_rate=1), r"fit\(\) has no option `learning_rate`. Did you mean `lr`"),
        (lambda: model.evaluate(3), "`path` is 3"),
        (lambda: model.save(None), "`name_or_path` is None"),
        (lambda: model.save(tmp_path / "m", compute_metrics="no"), "`compute_metrics` is 'no'"),
        (lambda: model.lr_find(steps="a"), "`steps` is 'a'"),
        (lambda: model.per_class_metrics(["nothing"]), "nothing"),
    ):
        with pytest.raises(GeopspError, match=says):
            call()
