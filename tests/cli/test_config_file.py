"""A run as a file: what --save-config writes, --config repeats."""

from __future__ import annotations

import json
import re

import click
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from geopsp.cli import config_file
from geopsp.cli.commands import main
from geopsp.cli.options import options_of, take
from geopsp.cli.shell_command import ShellCommand
from geopsp.inference.options import MapOptions
from geopsp.models.loss_options import LossSpec
from geopsp.polygons.options import PolygonSettings
from geopsp.training.options import DataOptions, FitOptions, ModelOptions, RunConfig
from geopsp.training.presets import PSPNetOptions

CLASSES = (MapOptions, PolygonSettings)
TRAINING = (ModelOptions, PSPNetOptions, LossSpec, FitOptions, RunConfig, DataOptions)


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def taken(words, *classes):
    """What a command with these options takes."""
    seen = {}

    @click.command("toy", cls=ShellCommand)
    @click.argument("images", nargs=-1, required=True)
    @options_of(*classes)
    def toy(images, **options):
        seen.update(take(options, *classes), images=images)

    result = CliRunner().invoke(toy, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return seen


LINES = st.lists(
    st.sampled_from(
        [
            ("--tile-size", "512"), ("--tta",), ("--padding", "0"), ("--bands", "red,3"), ("--extent", "0,1,2.5,3"),
            ("--smooth", "2"), ("--regularize",), ("--regularize", "1.5"), ("--keep", "a b,c"), ("--dissolve",),
            ("--min-area", "1e3"), ("--device", "cuda:1"), ("--no-background",), ("--overwrite",),
        ]
    ),
    unique_by=lambda words: words[0],
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(LINES)
def test_a_saved_run_is_the_same_run(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("config") / "run.yaml"
    lines = [words for words in lines if words[0] in {flag for each in known(*CLASSES) for flag in each.opts}]
    words = ["a.tif", "b c.tif", *(word for line in lines for word in line)]
    first = taken([*words, "--save-config", path], *CLASSES)
    assert taken(["--config", path], *CLASSES) == first


def known(*classes):
    return list(options_of(*classes)(lambda: None).__click_params__)


def test_training_options_come_back(tmp_path):
    words = ("chips", "--lr", "1e-4,1e-3", "--pyramid-sizes", "1,2", "--no-unet", "--epochs", 3, "--ema", 0.9,
             "--val-split", 0.3, "--pointrend", "--weights", "none", "--ignore-classes", "a,b")  # fmt: skip
    flags = {flag for each in known(*TRAINING) for flag in (*each.opts, *each.secondary_opts)}
    words = [str(word) for word in words]
    assert not [word for word in words if word.startswith("--") and word not in flags]
    first = taken([*words, "--save-config", tmp_path / "run.yaml"], *TRAINING)
    assert first["lr"] == (1e-4, 1e-3)
    assert first["use_unet"] is False
    assert taken(["--config", tmp_path / "run.yaml"], *TRAINING) == first


def test_the_command_line_takes_precedence(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("images: [a.tif, b.tif]\ntile-size: 256\nsmooth: 2\n")
    assert taken(["--config", path], *CLASSES) == {"images": ("a.tif", "b.tif"), "tile_size": 256, "smooth": 2}
    assert taken(["--config", path, "c.tif", "--tile-size", 64], *CLASSES) == {
        "images": ("c.tif",), "tile_size": 64, "smooth": 2,
    }  # fmt: skip


def test_lists_switches_and_the_names_of_the_shell(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "images: a.tif\ntta: true\nbands: [red, 3]\nextent: [0, 1, 2, 3]\nregularize: true\npolygons: null\n"
    )
    found = taken(["--config", path], *CLASSES)
    assert found == {
        "images": ("a.tif",), "test_time_augmentation": True, "bands": ("red", 3), "extent": (0, 1, 2, 3),
        "regularize": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("command: train\n", "is for `geopsp train`, not for `geopsp polygonize`"),
        ("simplfy: 2\n", "has no option 'simplfy'. Did you mean simplify?"),
        ("- 1\n", "holds no names and values such as `epochs: 10`"),
        ("dissolve: perhaps\n", "'dissolve' is 'perhaps', but must be true or false"),
        ("simplify: soft\n", "'soft' is not a valid float"),
        ("raster: [", "cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_is_one_clear_error(tmp_path, text, says):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    result = run("polygonize", "--config", path, "--out", tmp_path / "x.gpkg", "map.tif")
    assert result.exit_code == 2
    assert says in result.stderr.splitlines()[-1].replace("'--simplify': ", "")
    assert run("polygonize", "--config", tmp_path / "none.yaml").exit_code == 2


def test_an_existing_file_is_not_replaced(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("mine")
    result = run("polygonize", "map.tif", "--out", tmp_path / "x.gpkg", "--save-config", path)
    assert result.exit_code == 2
    assert path.read_text() == "mine"
    assert "run.yaml" in result.stderr


def test_what_is_saved_is_readable_and_whole(tmp_path):
    path = tmp_path / "run.yaml"
    run("polygonize", "map.tif", "--out", tmp_path / "x.gpkg", "--smooth", 2, "--save-config", path, "-q")
    found = yaml.safe_load(path.read_text())
    assert list(found)[:4] == ["command", "raster", "out", "smooth"]
    assert found["command"] == "polygonize"
    assert found["overwrite"] is False
    assert not set(found) & config_file.NOT_SAVED
    json.dumps(found)


def test_messages_go_to_a_log_file_with_dates(make_raster, tmp_path):
    log = tmp_path / "run.log"
    for _ in range(2):
        run("polygonize", tmp_path / "none.tif", "--out", tmp_path / "x.gpkg", "--log-file", log)
    lines = log.read_text().splitlines()
    assert len(lines) == 2
    assert all(re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d,\d+ ERROR Error: .*none\.tif", line) for line in lines)
    result = run("info", make_raster(), "--log-file", tmp_path / "no" / "run.log")
    assert result.exit_code == 2
    assert "--log-file" in result.stderr
