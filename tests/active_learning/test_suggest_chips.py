"""Suggestions for whole images: ranking, places, resuming, the file, and what goes wrong."""

from __future__ import annotations

import logging
import shutil
import sqlite3

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from active_learning_common import CERTAIN, UNSURE, Positional, Told
from common import slow
from inference_common import trained_model

from geopsp import PixelClassifier, export_training_data, suggest_chips
from geopsp.active_learning import suggest_chips as module
from geopsp.active_learning.score_windows import WindowScorer
from geopsp.chips.chip_set import ChipSet
from geopsp.core.output import partial_path
from geopsp.errors import (
    BandError,
    ChipError,
    GeopspError,
    InputNotFoundError,
    ModelError,
    OptionError,
    OutputError,
    RasterError,
)

SIZE = 32


def classifier(network=None, **options):
    found = PixelClassifier.__new__(PixelClassifier)
    found.model, found.device = trained_model(network=network or Told(), size=SIZE, **options), "cpu"
    return found


@pytest.fixture
def model():
    return classifier()


def ground(rows=4, cols=5, special=(), value=UNSURE):
    """Blocks of a window each, certain but for some."""
    data = np.full((1, rows * SIZE, cols * SIZE), CERTAIN, np.uint8)
    data += np.arange(rows * SIZE * cols * SIZE, dtype=np.uint8).reshape(data.shape) % 3
    for row, col in special:
        data[0, row * SIZE : (row + 1) * SIZE, col * SIZE : (col + 1) * SIZE] = value
    return data


@pytest.fixture
def image(make_raster):
    return make_raster("scene.tif", ground(special=[(1, 2), (3, 0)]), names=("level",))


@pytest.fixture
def messages():
    found = []
    handler, logger = logging.Handler(), logging.getLogger("geopsp")
    handler.emit = lambda record: found.append(record.getMessage())
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def windows(path):
    return gpd.read_file(path, layer="windows")


def labels(path):
    return gpd.read_file(path, layer="labels")


def places(path):
    return [(row // SIZE, col // SIZE) for row, col in windows(path)[["pixel_row", "pixel_col"]].to_numpy().tolist()]


ONLY_UNSURE = {"disagreement_weight": 0, "novelty_weight": 0, "rarity_weight": 0}


@pytest.mark.parametrize("criterion", ["entropy", "margin"])
def test_the_least_certain_windows_come_first(criterion, model, image, tmp_path):
    out = suggest_chips(model, image, tmp_path / "n.gpkg", number=3, criterion=criterion, **ONLY_UNSURE)
    assert set(places(out)[:2]) == {(1, 2), (3, 0)}
    table = windows(out)
    assert table["rank"].tolist() == [1, 2, 3]
    assert (table["score"].diff().dropna() <= 0).all()
    assert table[criterion].iloc[0] > 0.7
    assert table[criterion].iloc[2] < 0.1
    assert set(table["status"]) == {"open"}


def test_outlines_are_those_of_the_pixels(model, image, tmp_path):
    out = suggest_chips(model, image, tmp_path / "n.gpkg", number=4)
    with rasterio.open(image) as dataset:
        for row in windows(out).itertuples():
            left, top = dataset.transform * (row.pixel_col, row.pixel_row)
            assert row.geometry.equals(shapely.box(left, top - 64, left + 64, top))
        assert windows(out).crs == dataset.crs


def test_rare_classes_come_first(make_raster, tmp_path):
    image = make_raster("rare.tif", ground(special=[(2, 3)], value=220), names=("level",))
    weights = ONLY_UNSURE | {"uncertainty_weight": 0, "rarity_weight": 1}
    out = suggest_chips(classifier(), image, tmp_path / "n.gpkg", number=2, **weights)
    assert places(out)[0] == (2, 3)
    assert windows(out)["predicted_class"].tolist() == ["water", "background"]
    assert windows(out)["rarity"].iloc[0] == 1


def test_novel_windows_come_first(make_raster, tmp_path):
    """Of the windows, 1, 1 is labelled; what looks like it is not new."""
    data = ground(2, 2, special=[(1, 1), (0, 1)], value=90)
    image = make_raster("novel.tif", data, names=("level",))
    left, top = 601234.0, 5301717.0
    known = gpd.GeoDataFrame(geometry=[shapely.box(left + 64, top - 128, left + 128, top - 64)], crs="EPSG:32632")
    weights = ONLY_UNSURE | {"uncertainty_weight": 0, "novelty_weight": 1}
    out = suggest_chips(classifier(), image, tmp_path / "n.gpkg", number=3, labelled=known, **weights)
    assert places(out)[0] in {(0, 0), (1, 0)}
    assert windows(out)["novelty"].tolist()[0] == 1
    assert (1, 1) not in places(out)


def test_views_that_differ_count(make_raster, tmp_path):
    image = make_raster("views.tif", ground(special=[(1, 1)], value=130), names=("level",))
    weights = ONLY_UNSURE | {"uncertainty_weight": 0, "disagreement_weight": 1}
    out = suggest_chips(classifier(Positional()), image, tmp_path / "n.gpkg", number=2, symmetries=8, **weights)
    assert places(out)[0] == (1, 1)
    found = windows(out)["disagreement"]
    assert found.iloc[0] > 0.02
    assert found.iloc[1] < 1e-4


def test_the_mean_of_all_symmetries_does_not_depend_on_the_tiles_turn(make_raster, tmp_path):
    """An image and its mirror image have the same measures; no shifted tile has room."""
    rng = np.random.default_rng(3)
    data = rng.integers(60, 160, (1, SIZE, SIZE)).astype("uint8")
    found = []
    for name, pixels in (("a", data), ("b", data[:, :, ::-1])):
        image = make_raster(f"{name}.tif", np.ascontiguousarray(pixels), names=("level",))
        out = suggest_chips(classifier(Positional()), image, tmp_path / f"{name}.gpkg", number=1, symmetries=8)
        found.append(windows(out)[["entropy", "margin", "disagreement"]])
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    assert found[0]["disagreement"][0] > 0.01


def test_windows_are_those_of_chips(model, image, tmp_path):
    """Also where the last overhang."""
    out = suggest_chips(model, image, tmp_path / "n.gpkg", number=100, min_valid=0, stride=20)
    assert not any((windows(out)["pixel_row"] % 20) | (windows(out)["pixel_col"] % 20))
    shapes = windows(out).geometry
    pairs = shapely.area(shapely.intersection(shapes.to_numpy()[:, None], shapes.to_numpy()))
    assert np.count_nonzero(pairs) == len(shapes), "no two overlap"


def test_few_windows_are_said(model, image, messages, tmp_path):
    suggest_chips(model, image, tmp_path / "n.gpkg", number=21, min_distance=1)
    assert any("Only 20 windows are suggested of 21: there are 20 candidates" in text for text in messages)


def test_density_is_kept(model, image, tmp_path):
    out = suggest_chips(model, image, tmp_path / "n.gpkg", number=20, max_per_km2=3)
    assert len(windows(out)) == 3
    out = suggest_chips(model, image, tmp_path / "o.gpkg", number=20, min_distance=150)
    centres = windows(out).centroid
    assert min(a.distance(b) for i, a in enumerate(centres) for b in centres[:i]) > 149


def test_nodata_is_never_suggested(model, make_raster, tmp_path):
    valid = np.ones((4 * SIZE, 5 * SIZE), bool)
    valid[SIZE : 2 * SIZE, 2 * SIZE : 3 * SIZE] = False  # the least certain
    valid[3 * SIZE : 4 * SIZE - 10, :SIZE] = False  # 10 of 32 rows are valid
    image = make_raster("scene.tif", ground(special=[(1, 2), (3, 0)]), names=("level",), mask=valid * np.uint8(255))
    out = suggest_chips(model, image, tmp_path / "n.gpkg", number=20)
    assert len(windows(out)) == 18
    assert not {(1, 2), (3, 0)} & set(places(out))
    out = suggest_chips(model, image, tmp_path / "o.gpkg", number=20, min_valid=0.3)
    assert (3, 0) in places(out)
    inside = labels(out)[labels(out)["window"] == places(out).index((3, 0)) + 1]
    assert inside.area.sum() <= 10 * SIZE * 4 + 1


def test_several_images_in_their_own_crs(model, make_raster, tmp_path):
    one = make_raster("one.tif", ground(special=[(0, 0)]), names=("level",))
    two = make_raster("two.tif", ground(special=[(1, 1)]), names=("level",), crs="EPSG:32633", origin=(150_000, 5.3e6))
    out = suggest_chips(model, [one, two], tmp_path / "n.gpkg", number=2, allow_resolution_mismatch=True, **ONLY_UNSURE)
    table = windows(out).set_index("image")
    assert set(table.index) == {str(one), str(two)}
    assert table.crs.to_epsg() == 32632
    expected = gpd.GeoSeries([shapely.box(150_064, 5.3e6 - 128, 150_128, 5.3e6 - 64)], crs=32633).to_crs(32632)
    assert table.geometry[str(two)].symmetric_difference(expected[0]).area < 20
    shapes = labels(out).dissolve("window").geometry
    for rank, shape in zip(table["rank"], table.geometry, strict=True):
        if rank in shapes.index:
            assert shape.buffer(0.1).covers(shapes[rank])


def test_images_on_the_same_ground_are_suggested_once(model, make_raster, tmp_path):
    one = make_raster("one.tif", ground(), names=("level",))
    shutil.copy(one, tmp_path / "two.tif")
    out = suggest_chips(model, [one, tmp_path / "two.tif"], tmp_path / "n.gpkg", number=40)
    assert len(windows(out)) == 20


def test_the_area_of_interest_limits_the_search(model, image, tmp_path):
    left, top = 601234.0, 5301717.0
    area = gpd.GeoDataFrame(geometry=[shapely.box(left, top - 64, left + 64 * 5, top)], crs="EPSG:32632")
    out = suggest_chips(model, image, tmp_path / "n.gpkg", number=20, aoi=area)
    assert sorted(places(out)) == [(0, col) for col in range(5)]


@pytest.mark.slow
def test_the_same_call_gives_the_same_windows(image, tmp_path):
    first = suggest_chips(classifier(), image, tmp_path / "a.gpkg", number=8)
    second = suggest_chips(classifier(), image, tmp_path / "b.gpkg", number=8, batch_size=1)
    assert windows(first).equals(windows(second))
    assert labels(first).equals(labels(second))


def test_polygons_are_the_models_map_without_background(make_raster, tmp_path):
    image = make_raster("rare.tif", ground(special=[(2, 3)], value=220), names=("level",))
    out = suggest_chips(classifier(), image, tmp_path / "n.gpkg", number=20)
    rank = places(out).index((2, 3)) + 1
    (polygon,) = labels(out).itertuples()
    assert (polygon[1], polygon.window) == ("water", rank)
    assert polygon.geometry.equals(windows(out).geometry[rank - 1])
    out = suggest_chips(classifier(), image, tmp_path / "all.gpkg", number=20, polygon_options={"drop": ["water"]})
    assert set(labels(out)["class"]) == {"background"}


def test_styles_have_drop_downs(model, image, tmp_path):
    out = suggest_chips(model, image, tmp_path / "n.gpkg", number=2)
    with sqlite3.connect(out) as base:
        styles = dict(base.execute("SELECT f_table_name, styleQML FROM layer_styles"))
    base.close()
    assert set(styles) == {"windows", "labels"}
    for layer, names in (("windows", ["open", "done", "skipped", "cut"]), ("labels", model.model.legend.names)):
        assert 'editWidget type="ValueMap"' in styles[layer]
        assert all(f'name="{name}" type="QString" value="{name}"' in styles[layer] for name in names)
        assert 'type="categorizedSymbol"' in styles[layer]


def test_an_interrupted_run_resumes(image, monkeypatch, messages, tmp_path):
    whole = suggest_chips(classifier(), image, tmp_path / "whole.gpkg", number=8)
    scored, score = [], WindowScorer.score

    def stop_at_the_third_row(scorer, chunk):
        scored.append(chunk.row)
        if len(set(scored)) == 3:
            raise KeyboardInterrupt
        return score(scorer, chunk)

    out = tmp_path / "n.gpkg"
    monkeypatch.setattr(WindowScorer, "score", stop_at_the_third_row)
    with pytest.raises(KeyboardInterrupt):
        suggest_chips(classifier(), image, out, number=8)
    assert not out.exists()
    assert sorted(path.name for path in partial_path(out).iterdir()) == ["0-0.npz", "0-32.npz", "run.json"]
    rows = []
    monkeypatch.setattr(WindowScorer, "score", lambda scorer, chunk: rows.append(chunk.row) or score(scorer, chunk))
    suggest_chips(classifier(), image, out, number=8)
    assert set(rows) == {64, 96}
    assert any("2 rows of windows had been scored before" in text for text in messages)
    assert windows(out).equals(windows(whole))
    assert not partial_path(out).exists()


@pytest.mark.parametrize("damage", ["rows", slow("key")])
def test_what_another_run_left_is_not_used(damage, image, monkeypatch, tmp_path):
    out = tmp_path / "n.gpkg"
    monkeypatch.setattr(module, "select_windows", None)
    with pytest.raises(TypeError):
        suggest_chips(classifier(), image, out, number=8)
    monkeypatch.undo()
    if damage == "rows":
        for path in partial_path(out).glob("*.npz"):
            path.write_bytes(path.read_bytes()[:50])
    rows, score = [], WindowScorer.score
    monkeypatch.setattr(WindowScorer, "score", lambda scorer, chunk: rows.append(chunk.row) or score(scorer, chunk))
    suggest_chips(classifier(), image, out, number=8, symmetries=4 if damage == "key" else 2)
    assert set(rows) == {0, 32, 64, 96}


def test_files_of_others_are_kept(model, image, tmp_path):
    (tmp_path / ".partial-n.gpkg").mkdir()
    (tmp_path / ".partial-n.gpkg" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        suggest_chips(model, image, tmp_path / "n.gpkg")
    assert (tmp_path / ".partial-n.gpkg" / "notes.txt").exists()


def test_rows_are_streamed(model, make_raster, monkeypatch, tmp_path):
    """Of a wide scene, only some windows are in memory."""
    image = make_raster("wide.tif", ground(2, 60), names=("level",))
    sizes, read = [], module.WindowScorer._read

    def watched(scorer, wanted):
        pixels = read(scorer, wanted)
        sizes.append(pixels.data.shape[1:])
        return pixels

    monkeypatch.setattr(WindowScorer, "_read", watched)
    suggest_chips(model, image, tmp_path / "n.gpkg", number=2)
    assert max(rows for rows, _ in sizes) == SIZE
    assert max(cols for _, cols in sizes) == 17 * SIZE


def chips_of(image, tmp_path, shapes, name="chips", **options):
    frame = gpd.GeoDataFrame({"class": ["water"] * len(shapes)}, geometry=shapes, crs="EPSG:32632")
    return export_training_data(image, frame, tmp_path / name, "class", SIZE, **options)


def test_ground_of_chips_is_left_out(model, image, tmp_path):
    left, top = 601234.0, 5301717.0
    row = shapely.box(left, top - 128, left + 64 * 5, top - 64)
    area = gpd.GeoDataFrame(geometry=[row], crs="EPSG:32632")
    chips_of(image, tmp_path, [row], aoi=area, aoi_rule="inside")
    out = suggest_chips(model, image, tmp_path / "n.gpkg", number=20, labelled=tmp_path / "chips")
    assert len(windows(out)) == 15
    assert not [place for place in places(out) if place[0] == 1]


def test_chips_without_labels_are_no_labelled_ground(image, monkeypatch, tmp_path):
    """A folder holds chips of all the image, but few have labels; their tiles fill batches together."""
    left, top = 601234.0, 5301717.0
    shapes = [shapely.box(left + 5, top - 20, left + 20, top - 5), shapely.box(left + 70, top - 20, left + 80, top - 5)]
    chips_of(image, tmp_path, shapes, background="ignore")
    has_labels = ChipSet.open(tmp_path / "chips").index["labelled"] > 0
    assert 0 < has_labels.sum() < len(has_labels)
    tiles, chip_features = [], module.chip_features

    def watched(chips, trained, views, size):
        predict = views.predict
        monkeypatch.setattr(views, "predict", lambda batch: tiles.append(len(batch)) or predict(batch))
        return chip_features(chips, trained, views, size)

    monkeypatch.setattr(module, "chip_features", watched)
    out = suggest_chips(classifier(), image, tmp_path / "n.gpkg", number=30, labelled=tmp_path / "chips", batch_size=4)
    assert tiles[0] == has_labels.sum()
    assert len(windows(out)) == len(has_labels) - has_labels.sum()


def test_a_round_trip_gives_the_windows_that_are_done(image, tmp_path):
    """Chips that are appended hold exactly these windows, with the corrected labels; others stay unlabelled."""
    left, top = 601234.0, 5301717.0
    area = gpd.GeoDataFrame(geometry=[shapely.box(left, top - 64, left + 128, top)], crs="EPSG:32632")
    chips_of(image, tmp_path, [area.geometry[0]], aoi=area, aoi_rule="inside")
    options = {"labelled": tmp_path / "chips", "number": 5}
    out = suggest_chips(classifier(), image, tmp_path / "n.gpkg", **options)
    table = windows(out)
    corrected = gpd.GeoDataFrame(
        {"class": ["road"], "window": [2]}, geometry=[table.geometry[1].buffer(-16, join_style="mitre")], crs=table.crs
    )
    corrected.to_file(out, layer="labels", mode="a")
    with pytest.raises(GeopspError, match="contains no features"):
        append(image, out, tmp_path)
    table.loc[[1, 4], "status"] = "done"
    table.to_file(tmp_path / "edited.gpkg", layer="windows")
    edit_status(out, [2, 5])
    chips = append(image, out, tmp_path)
    assert len(chips) == 4
    new = chips.index.iloc[2:]
    expected = table.iloc[[1, 4]][["pixel_row", "pixel_col"]].to_numpy().tolist()
    assert sorted(new[["row", "col"]].to_numpy().tolist()) == sorted(expected)
    assert set(chips.legend.names) == {"background", "water", "road"}
    second = new[(new["row"] == table["pixel_row"][1]) & (new["col"] == table["pixel_col"][1])].iloc[0]
    with rasterio.open(second["label"]) as file:
        codes = file.read(1)
    expected = np.zeros((SIZE, SIZE), np.uint8)
    expected[8:-8, 8:-8] = chips.legend.code_of("road")
    assert np.array_equal(codes, expected)
    again = suggest_chips(classifier(), image, tmp_path / "again.gpkg", **options)
    assert not set(places(again)) & {places(out)[1], places(out)[4]}


def edit_status(path, ranks):
    """Set the status as an editor does, which knows the functions of GDAL's triggers."""
    base = sqlite3.connect(path)
    for name in ("ST_IsEmpty", "ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY"):
        base.create_function(name, 1, lambda _: 0)
    with base:
        base.execute(f"UPDATE windows SET status = 'done' WHERE rank IN ({', '.join(map(str, ranks))})")
    base.close()


def append(image, out, tmp_path):
    return export_training_data(
        image, f"{out}|layername=labels", tmp_path / "chips", "class", SIZE, aoi=out, aoi_rule="inside", append=True
    )


def test_a_model_without_features_says_so(image, messages, tmp_path):
    out = suggest_chips(classifier(Told(encoder=False)), image, tmp_path / "n.gpkg", number=3)
    assert any("gives no features" in text for text in messages)
    assert set(windows(out)["novelty"]) == {0}
    assert set(places(out)[:2]) == {(1, 2), (3, 0)}


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"number": 0}, OptionError, r"`number` is 0, but must be a whole number of at least 1"),
        ({"symmetries": 3}, OptionError, "one of 1, 2, 4, 8"),
        (dict.fromkeys(("uncertainty_weight", "disagreement_weight", "novelty_weight", "rarity_weight"), 0),
         OptionError, "are all 0"),
        ({"rarity_weight": -1}, OptionError, "`rarity_weight` is -1"),
        ({"polygon_options": {"smoth": 1}}, OptionError, "smooth"),
        ({"polygon_options": {"keep": ["sea"]}}, OptionError, "no class 'sea'"),
        ({"tile_size": 40}, ModelError, "multiple of 32"),
        ({"bands": [1, 2]}, OptionError, "2 bands are given"),
        ({"labelled": "nowhere"}, InputNotFoundError, "nowhere"),
        ({"max_per_km2": 0}, OptionError, "max_per_km2"),
    ],
)  # fmt: skip
def test_bad_options_are_named(options, error, says, model, image, tmp_path):
    with pytest.raises(error, match=says):
        suggest_chips(model, image, tmp_path / "n.gpkg", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif"]


def test_bad_outputs_are_named(model, image, tmp_path):
    with pytest.raises(OptionError, match=r"must end in \.gpkg"):
        suggest_chips(model, image, tmp_path / "n.shp")
    (tmp_path / "n.gpkg").write_text("")
    with pytest.raises(OutputError, match="already exists"):
        suggest_chips(model, image, tmp_path / "n.gpkg")
    known = tmp_path / "known.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32632").to_file(known)
    with pytest.raises(OptionError, match="would be lost"):
        suggest_chips(model, image, known, labelled=known, overwrite=True)


def test_images_without_the_models_bands(make_raster, tmp_path):
    image = make_raster("rgb.tif", names=("red", "green", "blue"))
    with pytest.raises(BandError, match="level"):
        suggest_chips(classifier(), image, tmp_path / "n.gpkg")


def test_no_window_is_left(model, make_raster, image, tmp_path):
    empty = make_raster("empty.tif", np.zeros((1, 64, 64), np.uint8), names=("level",), nodata=0)
    with pytest.raises(RasterError, match="no window to suggest: none has at least 50% valid pixels"):
        suggest_chips(model, empty, tmp_path / "n.gpkg")
    everything = gpd.GeoDataFrame(geometry=[shapely.box(6e5, 5.2e6, 6.1e5, 5.4e6)], crs="EPSG:32632")
    with pytest.raises(RasterError, match="is not labelled yet"):
        suggest_chips(model, image, tmp_path / "n.gpkg", labelled=everything)


def test_chips_with_other_bands(model, image, make_raster, tmp_path):
    other = make_raster("other.tif", ground(), names=("infrared",))
    box = shapely.box(601234, 5301717 - 64, 601234 + 64, 5301717)
    chips_of(other, tmp_path, [box])
    with pytest.raises(ChipError, match="have the bands infrared, but the model needs level"):
        suggest_chips(model, image, tmp_path / "n.gpkg", labelled=tmp_path / "chips")
