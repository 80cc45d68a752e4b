"""Rasters of all kinds through every command."""

from __future__ import annotations

import re

import numpy as np
import pytest
import rasterio
from corpus import ground, models
from corpus.outcome import Expected, shell
from corpus.pairwise import case_id
from corpus.rasters import FACTORS, HEIGHT, WIDTH, all_cases, write_raster
from torchvision.transforms import v2

import geopsp
from geopsp.report.summary import describe_chips
from geopsp.training.classifier import PixelClassifier

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

CASES = all_cases()

SIZE = (HEIGHT, WIDTH)


def cases(command):
    return pytest.mark.parametrize("case", [pytest.param(c, id=case_id(c, FACTORS, command)) for c in CASES])


def by_shell(case):
    """Return True for the cases that are run as in a shell."""
    return len(case_id(case, FACTORS)) % 3 == 0


def frame_for(raster, case):
    """Return labels in the CRS of the image; longitudes of one past 180 degrees are from -180 to 180."""
    return ground.labels_of(
        raster.transform, raster.crs, shift=-360.0 if case["crs"] == "lon360" and raster.transform.c > 180 else 0.0
    )


def require_labels(codes, legend, valid):
    """Check codes against the polygons; pixels without data are unlabelled."""
    names, sure = ground.label_names(HEIGHT, WIDTH)
    by_name = {info.name: info.code for info in legend}
    expected = np.vectorize(by_name.get, otypes=[int])(names)
    expected[~valid] = 255
    ground.same(codes, expected, sure | ~valid, "labels")


def require_said(desk, reading):
    if reading.said:
        assert re.search(reading.said, desk.text), f"{reading.said} is not said"


@cases("chips")
def test_chips(case, desk, hold):
    raster = write_raster(desk.inputs, case)
    labels = frame_for(raster, case)

    def act():
        if by_shell(case) and raster.crs:
            labels.to_parquet(desk.inputs / "labels.parquet")
            shell(
                desk, "chips", raster.path, "--labels", desk.inputs / "labels.parquet", "--class-field", "kind",
                "--out", desk.outputs / "chips", "--size", 32, "--workers", 1,
            )  # fmt: skip
            return geopsp.ChipSet.open(desk.outputs / "chips")
        chips = geopsp.export_training_data(
            raster.path, labels, desk.outputs / "chips", "kind", 32, background="class", workers=1
        )
        desk.said.append(describe_chips(chips))
        return chips

    def check(chips):
        desk.said += re.findall(r'"scales?".*', (desk.outputs / "chips" / "chips.json").read_text())  # is remembered
        found = ground.pasted_chips(chips, raster.transform, SIZE)
        ground.require_any([lambda reading=reading: one(chips, found, reading) for reading in raster.readings])

    def one(chips, found, reading):
        ground.same(found["valid"], reading.valid, np.ones(SIZE, bool), "valid mask")
        ground.same(found["data"], reading.data, reading.valid, "pixels")
        require_labels(found["codes"], chips.legend, reading.valid)
        require_said(desk, reading)

    if by_shell(case) and raster.crs:
        labels.to_parquet(desk.inputs / "labels.parquet")
    hold("rasters: chips", act, check, Expected(raster.refusable))


@cases("predict")
def test_predict(case, desk, hold, monkeypatch):
    raster = write_raster(desk.inputs, case)
    names = raster.readings[-1].names
    cell = abs(rasterio.Affine(*raster.transform[:6]).determinant) ** 0.5
    units = {"geographic": "degree", "lon360": "degree", "rotated-pole": "degree", "feet": "US survey foot"}
    options = {"dtype": case["dtype"], "cell": cell, "units": units.get(case["crs"], "metre")}
    out = desk.outputs / "map.tif"
    if by_shell(case):
        models.load_echoes(monkeypatch)
        models.save_echo(desk.inputs / "model", names, **options)

    def act():
        if by_shell(case):
            shell(desk, "predict", desk.inputs / "model", raster.path, "--out", out, "--device", "cpu")
        else:
            geopsp.classify_pixels(raster.path, models.Classifier(names, **options), out)

    def check(_):
        with rasterio.open(out) as dataset:
            assert dataset.transform.almost_equals(raster.transform, precision=1e-9), "the map lies elsewhere"
            assert dataset.crs == raster.crs, f"the map has the CRS {dataset.crs}"
            found = dataset.read(1)
        ground.require_any([lambda reading=reading: one(found, reading) for reading in raster.readings])

    def one(found, reading):
        expected = models.codes_of(reading.data[0], reading.valid)
        ground.same(found, expected, np.ones(SIZE, bool), "classes")
        require_said(desk, reading)

    hold("rasters: predict", act, check, Expected(raster.refusable))


@cases("train")
def test_train(case, desk, hold):
    raster = write_raster(desk.inputs, case)
    labels = frame_for(raster, case)

    def act():
        return geopsp.prepare_data(
            images=raster.path, labels=labels, class_field="kind", chip_size=32, split="random", val_split_pct=0.5,
            batch_size=2, workers=0, transforms=v2.Identity(),
        )  # fmt: skip

    def check(data):
        desk.said.append(repr(data.chips.pixel_values))  # a scale is remembered
        batch = next(iter(data.train_dl))
        assert np.isfinite(batch.image.numpy()).all()
        assert set(np.unique(batch.label)) <= {*range(data.c), 255}
        ground.require_any([lambda reading=reading: one(data, reading) for reading in raster.readings])

    def one(data, reading):
        std, mean = (part[:, None, None] for part in (data.statistics.std, data.statistics.mean))
        names, sure = ground.label_names(HEIGHT, WIDTH)
        for number, row in enumerate(data.valid_rows):
            sample, at = data.valid_ds[number], data.chips.index.iloc[row]
            rows, cols = (slice(start, min(start + 32, end)) for start, end in zip((at.row, at.col), SIZE, strict=True))
            inside = np.s_[..., : rows.stop - rows.start, : cols.stop - cols.start]
            valid = sample.valid[0].numpy()[inside] > 0
            ground.same(valid, reading.valid[rows, cols], np.ones_like(valid), "valid mask")
            assert len(sample.image) == len(reading.data), f"{len(sample.image)} bands"
            image = sample.image.numpy()[inside] * np.maximum(std, 1e-6) + mean
            assert np.allclose(image[:, valid], reading.data[:, rows, cols][:, valid], atol=0.05), "pixels differ"
            expected = np.vectorize(data.classes.index, otypes=[int])(names[rows, cols])
            expected[~valid] = 255
            ground.same(sample.label.numpy()[inside], expected, sure[rows, cols] | ~valid, "labels")
        require_said(desk, reading)

    hold("rasters: train", act, check, Expected(raster.refusable))


@cases("evaluate")
def test_evaluate(case, desk, hold):
    """The chips of any raster, scored by a model whose answer is known."""
    raster = write_raster(desk.inputs, case)
    labels = frame_for(raster, case)

    def act():
        chips = geopsp.export_training_data(raster.path, labels, desk.outputs / "chips", "kind", 32, workers=1)
        classifier = object.__new__(PixelClassifier)
        classifier.device, classifier.data = "cpu", None
        classifier.model = models.echo_model(chips.bands, chips.dtype, chips.cell_size[1], chips.units)
        return classifier.evaluate(desk.outputs / "chips")

    def check(scores):
        ground.require_any([lambda reading=reading: one(scores, reading) for reading in raster.readings])

    def one(scores, reading):
        names, sure = ground.label_names(HEIGHT, WIDTH)
        truth = np.vectorize(models.NAMES.index, otypes=[int])(names)
        predicted = models.channels_of(np.where(reading.valid, reading.data[0], 1))
        counts = np.zeros((5, 5), int)
        np.add.at(counts, (truth[reading.valid], predicted[reading.valid]), 1)
        doubtful = int((~sure).sum())
        off = int(np.abs(scores.counts - counts).sum())
        assert off <= 2 * doubtful, f"{off} pixels of the confusion matrix differ"

    hold("rasters: evaluate", act, check, Expected(raster.refusable))


@cases("info")
def test_info(case, desk, hold):
    raster = write_raster(desk.inputs, case)

    def act():
        return shell(desk, "info", raster.path)

    def check(text):
        assert f"{WIDTH} x {HEIGHT}" in text, text
        assert case["dtype"] in text, text

    hold("rasters: info", act, check, Expected())
