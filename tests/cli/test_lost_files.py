"""No command removes, replaces or writes through a link what geopsp did not write."""

from __future__ import annotations

import hashlib
import shutil

import geopandas as gpd
import pytest
import rasterio
from click.testing import CliRunner

from geopsp.chips.export_training_data import export_training_data
from geopsp.cli.commands import main
from geopsp.errors import RasterError

TINY = (
    "--backbone",
    "tu-test_resnet",
    "--epochs",
    1,
    "--lr",
    1e-3,
    "--no-unet",
    "--weights",
    "none",
    "--batch-size",
    4,
)


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refuses(*arguments, says):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert says in result.stderr.strip().splitlines()[-1], result.stderr


def digests(folder):
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@pytest.fixture
def inputs(small_world, tmp_path):
    """Copies of an image and its labels, and chips of them."""
    place = tmp_path / "place"
    place.mkdir()
    found = {"scene": shutil.copy(small_world["part"], place / "scene.tif")}
    gpd.read_file(small_world["labels"]).to_file(place / "labels.gpkg")
    found["labels"] = place / "labels.gpkg"
    found["chips"] = shutil.copytree(small_world["few_chips"], place / "chips")
    return found


def chips_of(inputs):
    return ("chips", inputs["scene"], "--labels", inputs["labels"], "--class-field", "kind", "--size", 64)


def test_a_map_does_not_empty_the_folder_that_a_link_points_to(inputs, trained, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.txt").write_text("mine")
    (tmp_path / ".partial-x.tif").symlink_to(victim)
    before = digests(tmp_path)
    refuses("predict", trained, inputs["scene"], "--out", tmp_path / "x.tif", says="is a link")
    assert digests(tmp_path) == before


def test_a_map_keeps_files_of_others_in_its_work_folder(inputs, trained, tmp_path):
    (tmp_path / ".partial-x.tif").mkdir()
    (tmp_path / ".partial-x.tif" / "thesis.txt").write_text("mine")
    before = digests(tmp_path)
    refuses("predict", trained, inputs["scene"], "--out", tmp_path / "x.tif", says="thesis.txt")
    assert digests(tmp_path) == before


def test_a_map_does_not_replace_a_sidecar_that_lies_at_its_place(inputs, trained, tmp_path):
    """A user's notes in GDAL's file stay until `--overwrite`; that of an earlier map goes with the map."""
    notes = tmp_path / "x.tif.aux.xml"
    notes.write_text("mine")
    command = ("predict", trained, inputs["scene"], "--out", tmp_path / "x.tif")
    refuses(*command, says="x.tif.aux.xml")
    assert notes.read_text() == "mine"
    for _ in range(2):
        assert run(*command, "--overwrite").exit_code == 0
    assert notes.read_text().startswith("<")


def test_training_keeps_files_of_others_in_the_folder_of_its_run(inputs, tmp_path):
    folder = tmp_path / "best.run"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    (folder / "thesis.txt").write_text("mine")
    refuses("train", inputs["chips"], "--out", tmp_path / "best", *TINY, "--overwrite", says="thesis.txt")
    assert (folder / "thesis.txt").read_text() == "mine"
    (folder / "run.json").unlink()
    result = run("train", inputs["chips"], "--out", tmp_path / "best", *TINY)
    assert result.exit_code == 0, result.output
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("option", ["--json", "--picture"])
def test_a_report_replaces_no_file_unasked_and_never_an_input(option, inputs, tmp_path):
    mine = tmp_path / "mine.png"
    mine.write_text("mine")
    before = digests(tmp_path)
    refuses(*chips_of(inputs), "--out", tmp_path / "new", f"{option}={mine}", says="already exists")
    for path in (inputs["labels"], inputs["scene"]):
        words = (*chips_of(inputs), "--out", tmp_path / "new", f"{option}={path}")
        refuses(*words, says="already exists")
        refuses(*words, "--overwrite", says="is also an input")
    assert digests(tmp_path) == before


@pytest.mark.parametrize("marker", ["chips.json", "model.json"])
def test_one_marker_file_does_not_give_a_folder_away(marker, inputs, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / marker).write_text("{}")
    (folder / "thesis.txt").write_text("mine")
    command = chips_of(inputs) if marker == "chips.json" else ("train", inputs["chips"], *TINY)
    before = digests(tmp_path)
    refuses(*command, "--out", folder, "--overwrite", says="thesis.txt")
    assert digests(tmp_path) == before


def test_inputs_that_lie_in_the_output_stay(inputs, tmp_path):
    """Also if geopsp wrote them: chips of one export are images of the next."""
    image = next(iter(sorted((inputs["chips"] / "images").iterdir())))
    label = inputs["chips"] / "labels" / image.name
    before = digests(tmp_path)
    command = ("chips", image, "--labels", label, "--size", 64, "--out", inputs["chips"], "--overwrite")
    refuses(*command, says="contains the input")
    refuses("train", inputs["chips"], *TINY, "--out", inputs["chips"], "--overwrite", says="geopsp did not write")
    refuses(
        "train", inputs["chips"], *TINY, "--out", inputs["chips"].parent, "--overwrite", says="geopsp did not write"
    )
    assert digests(tmp_path) == before


@pytest.mark.parametrize("link", ["images/099999.tif", "images"])
def test_append_does_not_write_through_links(link, inputs, tmp_path):
    victim = tmp_path / "victim"
    if link == "images":
        (inputs["chips"] / link).rename(victim)
    else:
        victim.write_text("mine")
    (inputs["chips"] / link).symlink_to(victim)
    before = digests(tmp_path)
    refuses(*chips_of(inputs), "--stride", 17, "--out", inputs["chips"], "--append", says="is a link")
    assert digests(tmp_path) == before


def test_an_image_that_changes_during_an_export_is_told(inputs, tmp_path):
    def rewrite(done, total):
        with rasterio.open(inputs["scene"], "r+") as dataset:
            dataset.write(dataset.read() // 2)

    with pytest.raises(RasterError, match="changed during the export"):
        export_training_data(inputs["scene"], inputs["labels"], tmp_path / "new", class_field="kind", tile_size=64,
                             progress=rewrite)  # fmt: skip
    assert not (tmp_path / "new").exists()
    export_training_data(inputs["scene"], inputs["labels"], tmp_path / "new", class_field="kind", tile_size=64)
    export_training_data(inputs["scene"], inputs["labels"], tmp_path / "whole", class_field="kind", tile_size=64)
    assert [path.read_bytes() for path in sorted((tmp_path / "new/images").iterdir())] == [
        path.read_bytes() for path in sorted((tmp_path / "whole/images").iterdir())
    ]
