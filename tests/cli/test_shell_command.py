"""What all commands have in common: warnings repeated or taken for errors, Ctrl-C, names that do not exist."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import shapely
from click.testing import CliRunner
from common import REPOSITORY

from geopsp.cli.commands import main

logger = logging.getLogger("geopsp.somewhere")
LEFT, TOP = 601234.0, 5301717.0


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def ground(make_raster, make_labels):
    """Two images and labels with warnings: an image without labels, a name that nothing has, rare classes."""
    squares = [shapely.box(LEFT, TOP - 60, LEFT + 60, TOP), shapely.box(LEFT + 80, TOP - 90, LEFT + 84, TOP - 86)]
    labels = make_labels("l.gpkg", squares, {"kind": ["a", "b"]})
    return make_raster("a.tif"), make_raster("far.tif", origin=(LEFT + 9000, TOP)), labels


def cut(ground, out, *more):
    near, far, labels = ground
    mapping = out.parent / "m.yaml"
    mapping.write_text("{a: a, b: b, z: z}")
    return run("chips", near, far, "--labels", labels, "--size", 32, "--class-mapping", mapping, "--out", out,
               "--class-field", "kind", *more)  # fmt: skip


def test_warnings_are_told_repeated_and_kept(ground, tmp_path):
    result = cut(ground, tmp_path / "chips")
    assert result.exit_code == 0, result.output
    told = [line.removeprefix("Warning: ") for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    start = result.stderr.splitlines().index(f"{len(told)} warnings:")
    assert [line.removeprefix("- ") for line in result.stderr.splitlines()[start + 1 :]] == told
    assert sum("does not contain z, but --class-mapping does" in text for text in told) == 1
    assert sum("No labels on 1 of 2 images (" in text for text in told) == 1
    assert sum("Class 'b' occurs in only 1 chip" in text and "--random-chips" in text for text in told) == 1
    assert "`" not in result.output
    (export,) = json.loads((tmp_path / "chips" / "chips.json").read_text())["exports"]
    kept = [(warning["kind"], warning["text"]) for warning in export["report"]["warnings"]]
    assert len(kept) == len(told)
    assert {kind for kind, _ in kept} == {"input", "imbalance"}
    for text in told:
        assert f"  warning    {text}" in result.stdout, "and in the report"
    described = run("info", tmp_path / "chips").stdout
    assert sum(line.startswith("  warning    ") for line in described.splitlines()) == len(told)
    again = cut(ground, tmp_path / "chips")
    assert "nothing to do" in again.stderr
    assert [line for line in again.stderr.splitlines() if line.startswith("- ")] == [f"- {text}" for text in told]


def test_strict_stops_before_anything_is_written(ground, tmp_path):
    result = cut(ground, tmp_path / "chips", "--strict")
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "far.tif): The labels of" in line
    assert line.endswith("(--strict takes this warning for an error.)")
    assert "Warning" not in result.stderr
    assert not (tmp_path / "chips").exists()


def test_a_strict_export_that_warns_late_goes_on_without(make_raster, make_labels, tmp_path):
    squares = [shapely.box(LEFT, TOP - 60, LEFT + 60, TOP), shapely.box(LEFT + 80, TOP - 90, LEFT + 84, TOP - 86)]
    words = ("chips", make_raster(), "--labels", make_labels("l.gpkg", squares, {"kind": ["a", "b"]}), "--size", 32,
             "--class-field", "kind", "--out", tmp_path / "chips")  # fmt: skip
    assert run(*words, "--strict").exit_code == 2
    assert not (tmp_path / "chips").exists()
    result = run(*words)
    assert (result.exit_code, "Resuming an interrupted export" in result.stderr) == (0, True), result.output
    assert run(*words, "--strict").exit_code == 2, "nothing to do, but the warnings hold"


def test_every_command_that_reads_inputs_is_strict():
    strict = {name for name, command in main.commands.items() if "strict" in {each.name for each in command.params}}
    assert strict == {
        "chips", "train", "evaluate", "predict", "polygonize", "sample", "assess", "calibrate", "change", "compare",
        "suggest", "export", "report",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "x", "--out", "y", "--learning-rate", "1"], "No such option --learning-rate. Did you mean --lr?"),
        (["train", "x", "--out", "y", "--batchsize", "1"], "No such option --batchsize. Did you mean --batch-size?"),
        (["chips", "x", "--out", "y", "--class-value-field", "k"], "Did you mean --class-field?"),
        (["predict", "m", "x", "--overlap", "8"], "Did you mean --padding?"),
        (["info", "x", "--zzz"], "No such option '--zzz'."),
    ],
)
def test_an_unknown_option_suggests_one(words, says):
    result = run(*words)
    assert result.exit_code == 2
    assert says in result.stderr


@pytest.mark.parametrize(
    ("words", "function", "says"),
    [
        (["chips", "a.tif", "--labels", "l", "--out", "c"], "chips.export_training_data.export_training_data",
         "Stopped. Chips that are cut are kept: the same command goes on from them."),
        (["train", "c", "--out", "m"], "training.training_data.prepare_data", "the same command with --resume goes on"),
        (["polygonize", "a.tif", "--out", "a.gpkg"], "polygons.raster_to_polygons.raster_to_polygons",
         "Stopped. Nothing was written."),
    ],
)  # fmt: skip
def test_after_ctrl_c_it_is_said_what_is_kept(words, function, says, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"geopsp.{function}", stop)
    result = run(*words)
    assert result.exit_code == 130
    assert says in result.stderr
    assert "Aborted" not in result.output


def test_a_file_may_begin_with_a_dash(make_raster, tmp_path, monkeypatch):
    make_raster("-dash.tif", data=np.ones((1, 20, 20), np.uint8))
    monkeypatch.chdir(tmp_path)
    for name in ("-dash.tif", "./-dash.tif"):
        result = run("info", name)
        assert (result.exit_code, "20 x 20 pixels, 1 band" in result.stdout) == (0, True), result.output


def test_evaluate_sees_what_is_missing_before_torch_is_loaded(tmp_path):
    code = (
        "import sys\nfrom geopsp.cli.commands import main\n"
        "for words in ('evaluate m c', 'predict m a.tif --out b.tif'):\n"
        "    try:\n        main(words.split())\n    except SystemExit:\n        print('torch' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert (found.stdout, found.stderr.count("No such folder: m")) == ("False\n" * 2, 2), found.stderr


def test_python_m_geopsp(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "geopsp", "--version"], capture_output=True, text=True, check=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert "version" in found.stdout
