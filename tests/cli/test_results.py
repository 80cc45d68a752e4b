"""What every command says: with --json one object, with --dry-run a plan in one form, on the way out a status."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from common import REPOSITORY

from geopsp.cli.commands import main
from geopsp.cli.options import JSON_TO_STDOUT, split_json

WITHOUT_WORK = {"info", "weights", "doctor", "completion"}
"""Commands that neither write anything nor take long."""

PLAN = ["dry_run", "reads", "writes", "max_bytes", "seconds", "notes"]


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def made(small_world, trained, tmp_path_factory):
    """A map of a part of the small world, and the words of each command, with outputs in a folder that is not there."""
    folder = tmp_path_factory.mktemp("results")
    class_map = folder / "map.tif"
    assert run("predict", trained, small_world["part"], "--out", class_map, "-q").exit_code == 0
    chips, scene, labels = (small_world[name] for name in ("few_chips", "part", "labels"))
    return {
        "chips": [scene, "--labels", labels, "--class-field", "kind", "--size", "64", "--out", "new/chips"],
        "train": [chips, "--backbone", "tu-test_resnet", "--weights", "none", "--epochs", "1", "--out", "new/model"],
        "evaluate": [trained, chips],
        "predict": [trained, scene, "--out", "new/map.tif", "--polygons", "new/map.gpkg"],
        "polygonize": [class_map, "--out", "new/p.gpkg", "--simplify", "2"],
        "sample": [class_map, "--out", "new/s.gpkg", "--size", "20"],
        "assess": [class_map, labels, "--reference-field", "kind"],
        "calibrate": [trained, chips, "--out", "new/calibrated"],
        "change": [class_map, class_map, "--out", "new/c.tif"],
        "compare": [trained, trained, chips, "--resamples", "100"],
        "report": [trained, "--chips", chips, "--map", class_map, "--images", scene, "--out", "new/report.html"],
        "suggest": [trained, scene, "--out", "new/next.gpkg", "--number", "2", "--size", "64"],
        "export": [trained, "--to", "stac", "--out", "new/item.json"],
        "demo": ["--out", "new/demo"],
        "info": [scene],
        "weights": ["--backbone", "resnet18"],
        "doctor": [],
    }  # fmt: skip


def test_all_commands_are_here(made):
    assert {*made, "completion"} == set(main.commands)
    for name, command in main.commands.items():
        flags = {flag for each in command.params for flag in each.opts}
        assert ("--json" in flags) is (name != "completion")
        assert ("--dry-run" in flags) is (name not in WITHOUT_WORK)


@pytest.mark.parametrize("name", sorted(set(main.commands) - WITHOUT_WORK))
def test_a_dry_run_plans_and_leaves_the_disk_as_it_is(name, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [name, *made[name]]
    result = run(*words, "--dry-run", "--json", "-q")
    assert result.exit_code == 0, result.output
    assert files_in(tmp_path) == []
    plan = json.loads(result.stdout)
    assert [key for key in plan if key in PLAN] == PLAN
    assert (plan["dry_run"], plan["wrote"]) == (True, [])
    assert plan["seconds"] > 0
    inputs = [str(word) for word in made[name] if os.path.exists(word)]  # noqa: PTH110
    assert [path for each in plan["reads"] for path in each["paths"]][: len(inputs)] == inputs or name == "demo"
    outputs = [word for word in made[name] if str(word).startswith("new/")]
    assert plan["writes"] == outputs
    assert (plan["max_bytes"] or 1) > 0


def test_a_plan_is_read_from_top_to_bottom(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("change", *made["change"], "--dry-run")
    lines = result.stdout.splitlines()
    size = "128 x 128 pixels, 1 band of uint8"
    assert lines[0] == "Would read:"
    assert lines[1] == lines[2] == f"  {made['change'][0]}: raster of {size}"
    assert lines[3].startswith("16,384 pixels on the grid of map a; 3 classes: background, a, b.")
    assert lines[4:] == ["Would write (up to 22 kB):", "  new/c.tif", "Would take about 1 s.", "Nothing was written."]


def test_a_dry_run_refuses_what_the_run_refuses(made, tmp_path, monkeypatch):
    """Outputs that exist, files that do not, options that do not fit."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new").mkdir()
    for word in [each for words in made.values() for each in words if str(each).startswith("new/")]:
        (tmp_path / word).write_bytes(b"mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    for name in sorted(set(main.commands) - WITHOUT_WORK - {"evaluate", "assess", "compare"}):
        result = run(name, *made[name], "--dry-run")
        assert (result.exit_code, "already exists" in result.stderr) == (2, True), (name, result.output)
    for name, word, says in (
        ("sample", ["--expected-accuracy", "2"], "--expected-accuracy"),
        ("assess", ["--reference-field", "knd"], "no field 'knd'. Did you mean 'kind'?"),
        ("export", ["--to", "onnx", "--license", "MIT", "--out", "new/m.onnx"], "--license only applies to"),
    ):
        result = run(name, *made[name], *word, "--dry-run")
        assert (result.exit_code, says in result.stderr) == (2, True), (name, result.output)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


SLOW = {"predict", "compare", "evaluate", "calibrate", "suggest"}
"""Commands that run a network."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW))
        for name in sorted(set(main.commands) - {"train", "demo", "completion"})
    ],
)
def test_json_is_one_object_and_nothing_else(name, made, tmp_path, monkeypatch):
    """Trained and shown elsewhere: train (test_commands), demo (slow)."""
    monkeypatch.chdir(tmp_path)
    result = run(name, *made[name], "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert list(found)[-2:] == ["wrote", "warnings"] or "warnings" in found
    outputs = [word for word in made[name] if str(word).startswith("new/")]
    assert sorted(found["wrote"]) == sorted(outputs)
    assert all((tmp_path / path).exists() for path in outputs)
    assert len(found) > 2 or name in {"predict", "polygonize"}
    assert all(key == key.lower() and " " not in key for key in found)


def test_warnings_are_in_the_object_in_the_words_of_the_shell(make_raster, make_labels, tmp_path):
    import shapely

    squares = [shapely.box(601234, 5301657, 601294, 5301717), shapely.box(601314, 5301627, 601318, 5301631)]
    labels = make_labels("l.gpkg", squares, {"kind": ["a", "b"]})
    result = run("chips", make_raster(), "--labels", labels, "--class-field", "kind", "--size", 32, "--json",
                 "--out", tmp_path / "chips", "-q")  # fmt: skip
    found = json.loads(result.stdout)
    assert any("--random-chips" in text for text in found["warnings"])
    assert len(set(found["warnings"])) == len(found["warnings"])


def test_after_an_error_there_is_no_object(tmp_path):
    result = run("info", tmp_path / "none.tif", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: No such file")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("m c --json", "m c --json=-"),
        ("--json m c", "--json=- m c"),
        ("m c --json s.json", "m c --json s.json"),
        ("--json S.JSON m c", "--json S.JSON m c"),
        ("m c --json --overwrite", "m c --json=- --overwrite"),
        ("m c --json=s.txt", "m c --json=s.txt"),
    ],
)
def test_json_takes_the_next_word_only_if_it_is_such_a_file(given, expected):
    assert str(JSON_TO_STDOUT) == "-"
    assert split_json(given.split()) == expected.split()


def test_json_to_a_file_and_as_text(made, tmp_path):
    result = run("assess", *made["assess"], "--json", tmp_path / "a.json")
    assert f"Wrote {tmp_path / 'a.json'}" in result.stdout.splitlines()
    printed = json.loads(run("assess", "--json", *made["assess"]).stdout)
    assert {**json.loads((tmp_path / "a.json").read_text()), "wrote": [], "warnings": []} == printed


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["info", "map.tif"], 0),
        (["--help"], 0),
        (["info", "map.tif", "--help-all"], 0),
        (["info"], 2),
        (["no-such-command"], 2),
        (["info", "--no-such-option"], 2),
        (["info", "none.tif"], 2),
        (["polygonize", "map.tif", "--out", "taken.gpkg"], 2),
        (["polygonize", "map.tif", "--out", "p.gpkg", "--smooth", "99"], 2),
        (["chips", "map.tif", "far.tif", "--labels", "map.tif", "--size", "32", "--out", "c", "--strict"], 2),
    ],
)
def test_exit_statuses(words, status, make_raster, tmp_path, monkeypatch):
    """As docs/guide.md has them."""
    monkeypatch.chdir(tmp_path)
    codes = np.kron(np.array([[1, 2], [2, 1]], np.uint8), np.ones((32, 32), np.uint8))[None]
    make_raster("map.tif", data=codes)
    make_raster("far.tif", data=codes, origin=(700000.0, 5301717.0))
    (tmp_path / "taken.gpkg").write_text("mine")
    result = run(*words)
    assert result.exit_code == status, result.output
    assert status == 0 or "Error: " in result.stderr.splitlines()[-1]


def test_one_damaged_image_of_several_is_an_error_after_the_others_are_mapped(small_world, trained, tmp_path):
    good, bad = tmp_path / "good.tif", tmp_path / "bad.tif"
    content = small_world["part"].read_bytes()
    good.write_bytes(content)
    bad.write_bytes(content[: len(content) // 2])
    result = run("predict", trained, good, bad, "--per-image", "--out", tmp_path / "maps", "-q")
    assert result.exit_code == 2, result.output
    assert "bad.tif" in result.stderr.splitlines()[-1]


def test_a_fault_of_geopsp_is_status_1_with_a_traceback(monkeypatch):
    def fail(_):
        raise ZeroDivisionError

    monkeypatch.setattr("geopsp.report.describe.describe", fail)
    result = run("info", "x")
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.slow
def test_ctrl_c_is_status_130(tmp_path):
    """A real signal to a real process."""
    code = (
        "import os, signal, geopsp.report.describe as d\n"
        "d.describe = lambda _: os.kill(os.getpid(), signal.SIGINT)\n"
        "from geopsp.cli.commands import main\nmain(['info', 'x'])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert (process.returncode, process.stdout) == (130, "")
    assert process.stderr.splitlines()[-1] == "Stopped."
