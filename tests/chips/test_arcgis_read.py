"""Folders as ArcGIS writes and reads them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from geopsp.chips.arcgis_read import read_arcgis_folder
from geopsp.chips.arcgis_write import write_arcgis_files
from geopsp.chips.chip_folder import VERSION
from geopsp.chips.chip_set import ChipSet, class_pixels
from geopsp.core.bands import BandStats
from geopsp.core.legend import Legend
from geopsp.data.dataset import ChipFiles
from geopsp.errors import ChipError

SIZE = 16
LEFT, TOP, CELL = 601234.0, 5301717.0, 2.0
CLASSES = [{"Value": 2, "Name": "boat", "Color": [1, 2, 250]}, {"Value": 9, "Name": "road", "Color": [9, 8, 7]}]


def raster(path, data, *, crs, transform, **profile):
    frame = {"driver": {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG"}[path.suffix], "dtype": data.dtype}
    frame |= {"count": len(data), "height": data.shape[1], "width": data.shape[2], "crs": crs, "transform": transform}
    with rasterio.open(path, "w", **frame | profile) as dataset:
        dataset.write(data)


@pytest.fixture
def arcgis_folder(tmp_path):
    """A folder as ArcGIS Pro writes it: `arcgis_folder("name", model={...}, sums={...}, ...)`.

    Backslashes, a byte-order mark, sums as doubles, label value 0 where nothing was drawn and named nodata.
    """

    def make(
        name="export", *, chips=6, model=None, sums=None, crs="EPSG:32632", ending=".tif", codes=(0, 2, 9), **image
    ):
        folder, rng = tmp_path / name, np.random.default_rng(1)
        (folder / "images").mkdir(parents=True)
        (folder / "labels").mkdir()
        lines, pixels, drawn = [], [], []
        for number in range(chips):
            stem = f"{number:012d}"
            place = from_origin(LEFT + number * 40, TOP, CELL, CELL) if crs else rasterio.Affine.identity()
            data = rng.integers(1, 255, (3, SIZE, SIZE)).astype(np.uint8)
            label = rng.choice(np.array(codes, np.uint8), (1, SIZE, SIZE))
            raster(folder / "images" / f"{stem}{ending}", data, crs=crs, transform=place, **image)
            raster(folder / "labels" / f"{stem}.tif", label, crs=crs, transform=place, nodata=0)
            lines.append(rf"images\{stem}{ending}  labels\{stem}.tif 0 {number}")
            pixels.append(data.reshape(3, -1))
            drawn.append(label)
        seen = np.concatenate(pixels, axis=1).astype(float)
        definition = {
            "Framework": "", "ModelFile": "", "MetaDataMode": "Classified_Tiles", "ImageSpaceUsed": "MAP_SPACE",
            "ImageHeight": SIZE, "ImageWidth": SIZE, "ExtractBands": [0, 1, 2], "Classes": CLASSES,
            "AllTilesStats": [
                {"Min": b.min(), "Max": b.max(), "Mean": b.mean(), "StdDev": b.std()} for b in seen
            ],
            "InputRastersProps": {"RasterCount": 1, "SensorName": "Raster", "BandNames": ["Red", "Green", "NIR"]},
        } | (model or {})  # fmt: skip
        accumulated = {
            "Version": "1.0.0", "MetaDataMode": "Classified_Tiles", "NumBands": 3, "NumClasses": 2,
            "NumTilesAsDouble": float(chips), "TileSizeX": SIZE, "TileSizeY": SIZE, "OutputFeatures": True,
            "BandStatsState": [
                {"Min": b.min(), "Max": b.max(), "M1": b.mean(), "M2": b.var() * b.size, "Num": float(b.size)}
                for b in seen
            ],
        } | (sums or {})  # fmt: skip
        (folder / "map.txt").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig", newline="")
        (folder / "esri_model_definition.emd").write_text(json.dumps(definition), encoding="utf-8-sig")
        (folder / "esri_accumulated_stats.json").write_text(json.dumps(accumulated), encoding="utf-8-sig")
        (folder / "stats.txt").write_text("images = 6 *3*16*16\n")
        return folder, seen, np.array(drawn)

    return make


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_folder_that_arcgis_exported_opens_unchanged(arcgis_folder):
    folder, seen, drawn = arcgis_folder()
    before = tree(folder)
    chips = ChipSet.open(folder)
    assert tree(folder) == before
    assert chips.legend.codes == [0, 2, 9]
    assert chips.legend.names == ["background", "boat", "road"]
    assert chips.legend.classes[1].rgb == (1, 2, 250)
    assert (chips.bands, chips.dtype, chips.tile_size, chips.units) == (("Red", "Green", "NIR"), "uint8", SIZE, "metre")
    assert chips.cell_size == (CELL, CELL)
    np.testing.assert_allclose(chips.statistics.mean, seen.mean(axis=1))
    np.testing.assert_allclose(chips.statistics.std, seen.std(axis=1))
    assert chips.statistics.count == seen.shape[1]
    assert chips.statistics.low.tolist() == seen.min(axis=1).tolist()
    for code in (0, 2, 9):
        assert chips.index[f"pixels_{code}"].tolist() == (drawn == code).sum(axis=(1, 2, 3)).tolist()
    assert chips.index["labelled"].eq(1).all()
    assert chips.index["valid"].eq(1).all()
    assert chips.index.crs.to_epsg() == 32632
    boxes = [shapely.box(x, TOP - SIZE * CELL, x + SIZE * CELL, TOP) for x in LEFT + 40 * np.arange(6)]
    assert shapely.equals(chips.index.geometry.to_numpy(), boxes).all()
    assert all(Path(path).exists() for path in [*chips.index["image"], *chips.index["label"]])
    assert (chips.index["source"] == str(folder)).all()
    assert chips.reports[0]["warnings"] == []


def test_manifest_and_index_have_the_keys_of_ours(arcgis_folder):
    manifest, index = read_arcgis_folder(arcgis_folder()[0])
    assert set(manifest) == {
        "version", "chips", "tile_size", "legend", "bands", "dtype", "cell_size", "units", "statistics", "exports",
    }  # fmt: skip
    assert set(manifest["exports"][0]) == {"key", "options", "sources", "report"}
    assert list(index.columns) == [
        "chip", "label", "source", "col", "row", "angle", "valid", "labelled", "pixels_0", "pixels_2", "pixels_9",
        "geometry",
    ]  # fmt: skip
    assert json.loads(json.dumps(manifest)) == manifest
    assert manifest["version"] == VERSION


def test_invalid_pixels_are_not_counted(arcgis_folder):
    folder, _, drawn = arcgis_folder(nodata=0)
    path = next((folder / "images").iterdir())
    with rasterio.open(path, "r+") as dataset:
        data = dataset.read()
        data[:, :4] = 0
        dataset.write(data)
    index = read_arcgis_folder(folder)[1].set_index("chip")
    assert index["valid"][path.name] == 0.75
    assert index["labelled"][path.name] == 0.75
    number = int(path.stem)
    assert index["pixels_9"][path.name] == (drawn[number, 0, 4:] == 9).sum()


@pytest.mark.parametrize(("ending", "exact"), [(".png", True), (".jpg", False)])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_chips_of_pixels_only(arcgis_folder, ending, exact):
    """No ground is known; the rest is as ever."""
    folder, *_ = arcgis_folder(ending=ending, crs=None, model={"ImageSpaceUsed": "PIXEL_SPACE"})
    manifest, index = read_arcgis_folder(folder)
    assert index.geometry.isna().all()
    assert index.crs is None
    assert (manifest["units"], manifest["cell_size"]) == ("pixel", [1.0, 1.0])
    assert "no georeference" in manifest["exports"][0]["report"]["warnings"][0]["text"]
    assert index["chip"][0] == f"{0:012d}{ending}"
    assert index["label"][0] == f"{0:012d}.tif"


def test_chips_of_several_crs_are_brought_to_the_first(arcgis_folder):
    folder, *_ = arcgis_folder()
    far, *_ = arcgis_folder("far", crs="EPSG:32633")
    name = f"{4:012d}.tif"
    for part in ("images", "labels"):
        shutil.copy(far / part / name, folder / part / name)
    index = read_arcgis_folder(folder)[1]
    own = shapely.box(LEFT + 160, TOP - SIZE * CELL, LEFT + 160 + SIZE * CELL, TOP)
    there = gpd.GeoSeries([own], crs="EPSG:32633").to_crs("EPSG:32632")
    assert index.crs.to_epsg() == 32632
    assert shapely.hausdorff_distance(index.geometry[4], there[0]) < 1e-6


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (["Band_1", "band 2", "Band3"], ["band_1", "band_2", "band_3"]),
        (["a", "A", "b"], ["band_1", "band_2", "band_3"]),
        (["a", "b"], ["band_1", "band_2", "band_3"]),
        (["a", None, "b"], ["a", "band_2", "b"]),
    ],
)
def test_band_names(arcgis_folder, names, bands):
    folder, *_ = arcgis_folder(chips=1, model={"InputRastersProps": {"BandNames": names}})
    assert read_arcgis_folder(folder)[0]["bands"] == bands


def test_statistics_of_the_definition_where_there_are_no_sums(arcgis_folder):
    folder, seen, _ = arcgis_folder(sums={"BandStatsState": None})
    found = BandStats.from_json(read_arcgis_folder(folder)[0]["statistics"])
    np.testing.assert_allclose(found.std, seen.std(axis=1))
    assert found.count == seen.shape[1]


def test_bands_may_count_different_numbers_of_pixels(arcgis_folder):
    rows = [
        {"Min": 0, "Max": 9, "M1": 4, "M2": spread * num, "Num": num} for spread, num in ((4, 100), (9, 50), (1, 0.0))
    ]
    found = BandStats.from_json(read_arcgis_folder(arcgis_folder(sums={"BandStatsState": rows})[0])[0]["statistics"])
    np.testing.assert_allclose(found.std, [2, 3, 0])
    assert found.count == 100


def test_a_class_of_value_0_is_named_as_the_folder_does(arcgis_folder):
    rows = [{"Value": 0, "Name": "NoData", "Color": [0, 0, 0]}, *CLASSES]
    assert ChipSet.open(arcgis_folder(model={"Classes": rows})[0]).legend.names == ["NoData", "boat", "road"]
    rows = [{"Value": 2, "Name": "background"}, CLASSES[1]]
    assert ChipSet.open(arcgis_folder("b", model={"Classes": rows})[0]).legend.names == [
        "background 0", "background", "road",
    ]  # fmt: skip


def test_what_does_not_fit_is_told(arcgis_folder):
    folder, _, drawn = arcgis_folder(codes=(0, 2, 7, 9), sums={"NumTilesAsDouble": 9.0})
    manifest, index = read_arcgis_folder(folder)
    counted, others = (warning["text"] for warning in manifest["exports"][0]["report"]["warnings"])
    assert "counts 9 chips, but map.txt names 6" in counted
    assert f"{(drawn == 7).sum():,} label pixels have a value that is not a class" in others
    np.testing.assert_allclose(index["labelled"], (drawn != 7).mean(axis=(1, 2, 3)))


@pytest.mark.parametrize("key", ["NumTiles", "NumTilesAsDouble"])
def test_a_count_that_is_no_number_is_told(arcgis_folder, key):
    manifest, index = read_arcgis_folder(arcgis_folder(sums={key: "x"})[0])
    assert len(index) == 6
    assert manifest["exports"][0]["report"]["warnings"] == [
        {"kind": "input", "text": "esri_accumulated_stats.json counts 'x' chips, but map.txt names 6, which are used."}
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_text_is_read_as_it_was_encoded(arcgis_folder, encoding):
    folder, *_ = arcgis_folder(model={"Classes": [CLASSES[0], {"Value": 9, "Name": "R\u00fcbe"}]})
    path = folder / "images" / f"{3:012d}.tif"
    path.rename(path.with_name("f\u00e9ld.tif"))
    for name in ("map.txt", "esri_model_definition.emd"):
        text = (folder / name).read_text(encoding="utf-8-sig").replace(f"images\\{path.name}", "images\\f\u00e9ld.tif")
        text = text if name == "map.txt" else json.dumps(json.loads(text), ensure_ascii=False)
        (folder / name).write_text(text, encoding=encoding)
    chips = ChipSet.open(folder)
    assert chips.legend.names == ["background", "boat", "R\u00fcbe"]
    assert Path(chips.index["image"][3]).name == "f\u00e9ld.tif"


@pytest.mark.parametrize("columns", ["", " 0 3", "  0.5 -1 2"])
@pytest.mark.parametrize("names", [("a b.tif", "0003.tif"), ("0003.tif", "a 1.5 b.tif"), ("a  b 3.tif", "c d.tif")])
def test_names_may_hold_blanks(arcgis_folder, names, columns):
    folder, *_ = arcgis_folder()
    own = f"{3:012d}.tif"
    for part, name in zip(("images", "labels"), names, strict=True):
        (folder / part / own).rename(folder / part / name)
    lines = (folder / "map.txt").read_text(encoding="utf-8-sig").splitlines()
    lines[3] = rf"images\{names[0]}  labels\{names[1]}{columns}"
    (folder / "map.txt").write_text("\n".join(lines))
    index = read_arcgis_folder(folder)[1]
    assert (index["chip"][3], index["label"][3]) == names
    assert index["chip"][4] == f"{4:012d}.tif"


@pytest.mark.parametrize("mode", ["RCNN_Masks", "PASCAL_VOC_rectangles", None])
def test_other_formats_are_refused(arcgis_folder, mode):
    folder, *_ = arcgis_folder(model={"MetaDataMode": mode}, sums={"MetaDataMode": mode})
    with pytest.raises(ChipError, match=rf'exported as {mode!r}.*"Classified Tiles"'):
        read_arcgis_folder(folder)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"Classes": [{"Value": 300, "Name": "a"}]}, r"class values 300, .*from 0 to 254"),
        ({"Classes": [{"Value": 255, "Name": "a"}]}, "class values 255"),
        ({"Classes": []}, "no Classes"),
        ({"Classes": None}, "no usable Classes"),
        ({"Classes": [{"Value": 1, "Name": "a"}, {"Value": 2, "Name": "a"}]}, "several classes of one name"),
    ],
)
def test_unusable_classes(arcgis_folder, model, words):
    with pytest.raises(ChipError, match=words):
        read_arcgis_folder(arcgis_folder(model=model)[0])


def test_missing_and_broken_files(arcgis_folder):
    folder, *_ = arcgis_folder()
    image = folder / "images" / f"{3:012d}.tif"
    label = folder / "labels" / image.name
    whole = image.read_bytes()

    image.unlink()
    with pytest.raises(ChipError, match=r"incomplete: 1 of the 12 files in map.txt are missing.*000003"):
        read_arcgis_folder(folder)
    image.write_bytes(whole[:40])
    with pytest.raises(ChipError, match=r"Cannot read the chip .*000003"):
        read_arcgis_folder(folder)
    image.unlink()
    raster(image, np.ones((3, 8, 8), np.uint8), crs="EPSG:32632", transform=from_origin(0, 0, 1, 1))
    with pytest.raises(ChipError, match="has 16 x 16 pixels, but its image has 8 x 8"):
        read_arcgis_folder(folder)
    raster(label, np.ones((1, 8, 8), np.uint8), crs="EPSG:32632", transform=from_origin(0, 0, 1, 1))
    with pytest.raises(ChipError, match="differ in size: 16 x 16 pixels and 8 x 8 pixels"):
        read_arcgis_folder(folder)
    image.write_bytes(whole)
    raster(label, np.full((1, 16, 16), 700, np.uint16), crs="EPSG:32632", transform=from_origin(0, 0, 1, 1))
    with pytest.raises(ChipError, match=r"values from 700 to 700 \(uint16\)"):
        read_arcgis_folder(folder)

    for name in ("esri_model_definition.emd", "esri_accumulated_stats.json"):
        text = (folder / name).read_text(encoding="utf-8-sig")
        (folder / name).write_text("{ broken")
        with pytest.raises(ChipError, match=f"{name} is damaged"):
            read_arcgis_folder(folder)
        (folder / name).unlink()
        with pytest.raises(ChipError, match=f"has no {name}"):
            read_arcgis_folder(folder)
        (folder / name).write_text(text)
    (folder / "map.txt").write_text("images\\a.tif\n")
    with pytest.raises(ChipError, match=r"Line 1 of .* names only one file"):
        read_arcgis_folder(folder)
    (folder / "map.txt").write_text("\n")
    with pytest.raises(ChipError, match="names no chips"):
        read_arcgis_folder(folder)


# Ours, as its reader takes them


def taken_by_arcgis(folder):
    """What the reader of an exported folder takes: by the names and in the order that it expects."""
    assert (folder / "images").is_dir()
    pairs = [re.split(r"\s+", line)[:2] for line in (folder / "map.txt").read_text().splitlines()]
    for image, label in pairs:
        assert (folder / image).is_file()
        assert (folder / label).is_file()
    sums = json.loads((folder / "esri_accumulated_stats.json").read_text())
    model = json.loads((folder / "esri_model_definition.emd").read_text())
    assert sums["MetaDataMode"] == model["MetaDataMode"] == "Classified_Tiles"
    assert model["ImageSpaceUsed"] == "MAP_SPACE"
    classes = {row["Value"]: (row["Name"], tuple(row["Color"])) for row in model["Classes"]}
    pixels = sums["ClassPixelStats"]
    assert len(pixels["NumPixelsPerClass"]) == len(pixels["NumImagesPerClass"]) == sums["NumClasses"] == len(classes)
    assert pixels["NumImagesTotal"] == (sums.get("NumTiles") or sums["NumTilesAsDouble"]) == len(pairs)
    assert sums["NumBands"] == len(sums["BandStatsState"]) == len(model["AllTilesStats"])
    assert sums["NumBands"] == len(model["InputRastersProps"]["BandNames"])
    assert {"SensorName", "RasterCount"} <= set(model["InputRastersProps"])
    bands = [
        {"min": row["Min"], "max": row["Max"], "mean": row["M1"], "std": (row["M2"] / row["Num"]) ** 0.5}
        for row in sums["BandStatsState"]
    ]
    for row, band in zip(model["AllTilesStats"], bands, strict=True):
        assert [row[k] for k in ("Min", "Max", "Mean")] == [band[k] for k in ("min", "max", "mean")]
        assert row["StdDev"] == pytest.approx(band["std"])
    size = model["ImageHeight"], model["ImageWidth"]
    return {"pairs": pairs, "classes": classes, "bands": bands, "size": size, "pixels": pixels["NumPixelsPerClass"]}


def test_ours_with_mixed_endings_open_there(tmp_path):
    legend = Legend.from_names({0: "background", 3: "boat"})
    files = [("000000.tif", "000000.tif"), ("000001.png", "000001.tif"), ("000001_r90.jpg", "000001_r90.tif")]
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
        for pair in files:
            (tmp_path / part / pair[part == "labels"]).touch()
    pixels = {"pixels_0": [4, 0, 0], "pixels_3": [1, 2, 3]}
    index = gpd.GeoDataFrame(pixels | {"chip": [c for c, _ in files], "label": [n for _, n in files]})
    stats = BandStats.from_array(np.arange(24).reshape(2, 3, 4), np.ones((3, 4), bool))
    write_arcgis_files(tmp_path, index, legend, stats, ["red", "nir"], "uint8", 4)
    found = taken_by_arcgis(tmp_path)
    assert found["pairs"] == [[f"images/{chip}", f"labels/{label}"] for chip, label in files]
    assert found["classes"] == {0: ("background", (27, 27, 27)), 3: ("boat", legend.classes[1].rgb)}
    assert found["size"] == (4, 4)
    assert found["pixels"] == [4, 6]
    assert found["bands"][1]["mean"] == pytest.approx(17.5)


def test_ours_open_as_an_export_of_arcgis_too(small_world, tmp_path):
    """An export of ours without our index is read as one of theirs: the same chips and counts."""
    ours = ChipSet.open(small_world["chips"])
    copy = shutil.copytree(small_world["chips"], tmp_path / "copy", ignore=shutil.ignore_patterns("chips.*"))
    taken = taken_by_arcgis(copy)
    assert taken["pixels"] == ours.pixels_per_class.tolist()
    theirs = ChipSet.open(copy)
    assert theirs.legend == ours.legend
    assert (theirs.bands, theirs.cell_size, theirs.units) == (ours.bands, ours.cell_size, ours.units)
    for name in ["valid", "labelled", *(f"pixels_{code}" for code in ours.legend.codes)]:
        np.testing.assert_allclose(theirs.index[name], ours.index[name])
    assert shapely.equals_exact(theirs.index.geometry.to_numpy(), ours.index.geometry.to_numpy(), 1e-6).all()
    np.testing.assert_allclose(theirs.statistics.mean, ours.statistics.mean)
    np.testing.assert_allclose(theirs.statistics.std, ours.statistics.std)


def test_training_reads_the_labels_that_the_index_counts(arcgis_folder):
    """Also where the label files call 0, which is the background there, nodata."""
    folders = [arcgis_folder("one")[0], arcgis_folder("two", nodata=0)[0]]
    for chips in (*map(ChipSet.open, folders), ChipSet.open(folders)):
        files = ChipFiles(chips)
        counts = class_pixels(chips.index, chips.legend)
        for row in range(len(chips)):
            codes = files.read(row, 0, 0, chips.tile_size).codes
            channels = chips.tables[chips.index["table"].iloc[row]][codes]
            found = np.bincount(channels.ravel(), minlength=256)
            assert found[: len(chips.legend)].tolist() == counts[row].tolist()
