"""A run as a file: what --save-config writes, --config repeats."""

from __future__ import annotations

import json
import re

import click
import numpy as np
import pytest
import shapely
import yaml
from click.testing import CliRunner
from common import examples
from hypothesis import HealthCheck, given, settings
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


@settings(max_examples=examples(20), deadline=None)
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


def test_a_switch_that_is_on_unless_a_flag_turns_it_off(tmp_path):
    """A file says it as Python does."""
    path, saved = tmp_path / "run.yaml", tmp_path / "saved.yaml"
    for said in (False, True):
        path.write_text(f"images: a.tif\npredict_background: {str(said).lower()}\n")
        found = taken(["--config", path, "--save-config", saved], *CLASSES)
        assert found.get("predict_background", True) is said
        assert yaml.safe_load(saved.read_text())["predict_background"] is said
        saved.unlink()


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
        ("smooth: 2\ndissolve: perhaps\n", "run.yaml, line 2, dissolve: it is 'perhaps', but must be true or false"),
        ("# mine\n\nsimplify: soft\n", "run.yaml, line 3, simplify: 'soft' is not a valid float"),
        (
            "smooth: 2\nmin-aera: 4\n",
            "run.yaml, line 2: `geopsp polygonize` has no option 'min-aera'. Did you mean",
        ),
        ("smooth: -1\n", "--smooth is -1, but must be a whole number from 0 to 5 (rounds). (See"),
        ("smooth: -1\n", "run.yaml, line 1, smooth.)"),
        ("raster: [", "cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_is_one_clear_error(tmp_path, text, says):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    result = run("polygonize", "--config", path, "--out", tmp_path / "x.gpkg", "map.tif")
    assert result.exit_code == 2
    assert says in result.stderr.splitlines()[-1]
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


TEXTS = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="-,="), min_size=1, max_size=6)
WORDS = {
    "bands": st.sampled_from(["red,3", "1", "nir"]), "confidence_bins": st.sampled_from(["0.5", "0.5,0.8"]),
    "expected_accuracy": st.sampled_from(["0.9", "0.9,water=0.97", "a b=1"]),
    "extent": st.just("0,1.5,2e3,3"), "lr": st.sampled_from(["0.01", "1e-5,0.001"]),
    "min_confidence": st.sampled_from(["0.6", "building=0.7,other=0.5", "a=b=0.1"]),
    "regularize": st.sampled_from([None, "1.5", "2"]), "json_path": st.sampled_from([None, "a.json"]),
}  # fmt: skip
"""Values of options that are read in a way of their own; None: the option without a value."""


def values_of(option):
    """Draw texts that an option takes."""
    if option.name in WORDS:
        return WORDS[option.name]
    if isinstance(option.type, click.Choice):
        return st.sampled_from(list(option.type.choices))
    kinds = {
        click.INT: st.integers(-5, 10**9).map(str), click.FLOAT: st.floats(allow_nan=False).map(repr),
    }  # fmt: skip
    if isinstance(option.type, click.FloatRange):
        return st.floats(0.1, 1e9).map(repr)
    lists = {"NAME,...": st.lists(TEXTS, min_size=1, max_size=3), "N,...": st.lists(st.integers().map(str), min_size=1)}
    if option.type in kinds:
        return kinds[option.type]
    return lists[option.metavar].map(",".join) if option.metavar in lists else TEXTS


@st.composite
def command_lines(draw, command):
    """Draw arguments and options of a command."""
    words = []
    options = [each for each in command.params if isinstance(each, click.Option)]
    chosen = draw(st.lists(st.sampled_from(options), unique_by=id, max_size=8))
    for option in [each for each in options if each.required or each in chosen]:
        if option.name in config_file.NOT_SAVED or not option.expose_value:
            continue
        if option.is_flag:
            words.append(draw(st.sampled_from([*option.opts, *option.secondary_opts])))
            continue
        for _ in range(draw(st.integers(1, 3)) if option.multiple else 1):
            value = draw(values_of(option))
            flag = draw(st.sampled_from(option.opts))
            words.append(flag if value is None else f"{flag}={value}")
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    return [*words, "--", *(draw(TEXTS) for each in arguments for _ in range(2 if each.nargs == -1 else 1))]


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(sorted(set(main.commands) - {"completion"})), data=st.data())
def test_what_a_run_saves_repeats_it(name, data, tmp_path_factory):
    """Any command with any options: the file gives the same values."""
    command, path = main.commands[name], tmp_path_factory.mktemp("config") / "run.yaml"
    words = data.draw(command_lines(command))
    first = command.make_context(name, list(words))
    path.write_text(config_file.config_text(first), encoding="utf-8")
    again = command.make_context(name, ["--config", str(path)])
    assert again.params == first.params


def test_a_run_is_recorded_beside_its_output(make_raster, tmp_path):
    """`--config` takes the output's name; files of others stay."""
    codes = np.kron(np.array([[1, 2], [2, 1]], np.uint8), np.ones((8, 8), np.uint8))[None]
    maps = [make_raster(f"{name}.tif", data=codes[:, ::step].copy()) for name, step in (("a", 1), ("b", -1))]
    out, again = tmp_path / "c.tif", tmp_path / "d.tif"
    assert run("change", *maps, "--out", out, "--min-area", 3, "-q").exit_code == 0
    text = (tmp_path / "c.tif.yaml").read_text()
    assert yaml.safe_load(text)["min_area"] == 3
    assert run("change", "--config", out, "--out", again, "-q").exit_code == 0
    assert out.read_bytes() == again.read_bytes()
    repeated = yaml.safe_load((tmp_path / "d.tif.yaml").read_text())
    assert repeated == yaml.safe_load(text) | {"out": str(again)}
    (tmp_path / "d.tif.yaml").write_text("mine: 1")
    result = run("change", *maps, "--out", again, "--overwrite", "-q")
    assert (result.exit_code, "so it is kept" in result.stderr) == (0, True), result.output
    assert (tmp_path / "d.tif.yaml").read_text() == "mine: 1"


def test_a_chip_folder_holds_the_runs_that_filled_it(make_raster, make_labels, tmp_path):
    out = tmp_path / "chips"
    labels = make_labels("l.gpkg", [shapely.box(601234, 5301697, 601254, 5301717)], {"kind": ["a"]})
    cutting = ("chips", make_raster(), "--labels", labels, "--class-field", "kind", "--out", out, "--size", 32)
    assert run(*cutting, "-q").exit_code == 0
    assert run(*cutting, "--stride", 16, "--append", "-q").exit_code == 0
    assert yaml.safe_load((out / "chips.yaml").read_text())["tile_size"] == 32
    assert yaml.safe_load((out / "chips-2.yaml").read_text())["append"] is True
    again = tmp_path / "again"
    assert run("chips", "--config", out, "--out", again, "-q").exit_code == 0
    assert run("chips", "--config", out / "chips-2.yaml", "--out", again, "-q").exit_code == 0
    names = [path.relative_to(out) for path in out.rglob("*.tif")]
    assert names
    assert all((out / name).read_bytes() == (again / name).read_bytes() for name in names)
    (out / "notes.txt").write_text("mine")
    assert run("chips", "--config", out, "--overwrite").exit_code == 2, "a folder with files of others stays"
    (out / "notes.txt").unlink()
    assert run("chips", "--config", out, "--overwrite", "-q").exit_code == 0


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
