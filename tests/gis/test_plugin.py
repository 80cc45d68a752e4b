"""The QGIS plugin finds geopsp, builds its commands, reads what it prints, and stops it with its children."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import click
import psutil
import pytest
from common import REPOSITORY, SOON

import geopsp
from geopsp.cli.commands import main

PLUGIN = REPOSITORY / "qgis" / "geopsp_processing"


def module(name):
    """A module of the plugin that needs no QGIS."""
    spec = importlib.util.spec_from_file_location(f"geopsp_processing_{name}", PLUGIN / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found  # dataclasses look there for their types
    spec.loader.exec_module(found)
    return found


program, run = module("program"), module("run")


def make_program(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(program.importlib.util, "find_spec", lambda _: None)


def test_the_setting_comes_first_then_the_path_then_qgis_itself(tmp_path, monkeypatch, nothing_installed):
    chosen, on_path = make_program(tmp_path / "chosen" / "geopsp"), make_program(tmp_path / "path" / "geopsp")
    with pytest.raises(program.ProgramError, match=r"was not found on PATH.*Settings > Options"):
        program.find_program("")
    monkeypatch.setattr(program.importlib.util, "find_spec", lambda _: "found")
    found = program.find_program("")
    assert (found.words[1:], found.in_qgis) == (("-m", "geopsp.cli"), True)
    assert Path(found.words[0]).name.startswith("python")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert program.find_program(" ") == program.Program((str(on_path),))
    assert program.find_program(f' "{chosen}" ') == program.Program((str(chosen),))


@pytest.mark.parametrize(
    ("place", "more"),
    [
        ("bin/geopsp", ()),
        ("Scripts/geopsp.exe", ()),
        ("geopsp.exe", ()),
        ("bin/python", ("-m", "geopsp.cli")),
        ("python.exe", ("-m", "geopsp.cli")),
    ],
)
def test_the_folder_of_an_environment_will_do(place, more, tmp_path):
    path = make_program(tmp_path / "my env" / place)
    assert program.find_program(str(tmp_path / "my env")).words == (str(path), *more)


def test_a_python_runs_geopsp_as_a_module(tmp_path):
    path = make_program(tmp_path / "python3.12")
    assert program.find_program(str(path)).words == (str(path), "-m", "geopsp.cli")


@pytest.mark.parametrize("name", ["none", "empty"])
def test_a_setting_that_leads_nowhere_is_an_error(name, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(program.ProgramError, match=r"There is no (geopsp|program).*Settings > Options"):
        program.find_program(str(tmp_path / name))


def test_what_would_mislead_another_python_is_left_out():
    base = {"PATH": "/bin", "PYTHONHOME": "/qgis", "PROJ_LIB": "/qgis/proj", "GDAL_DATA": "/qgis/gdal", "HOME": "/me"}
    ours = {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", "GEOPSP_PROGRESS": "json"}
    assert program.Program(("geopsp",)).environment(base) == {"PATH": "/bin", "HOME": "/me"} | ours
    assert program.Program(("python",), in_qgis=True).environment(base) == base | ours


def test_a_command_line():
    words = program.command_line(
        program.Program(("py", "-m", "geopsp.cli")), "predict", "C:\\a model", "-x.tif",
        options={"overwrite": True, "tta": False, "extent": "-7.5,1,2,3", "min-area": "", "out": "m é.tif"},
        extra=["--sieve", "4"],
    )  # fmt: skip
    assert words == [
        "py", "-m", "geopsp.cli", "predict", "--overwrite", "--extent=-7.5,1,2,3", "--out=m é.tif", "--sieve", "4",
        "--", "C:\\a model", "-x.tif",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("--crf  --bands 4,3,2", ["--crf", "--bands", "4,3,2"]),
        (r"--class-mapping C:\new\m.yaml", ["--class-mapping", r"C:\new\m.yaml"]),
        (r"""--aoi "C:\my maps\a.shp" --keep 'a b#c'""", ["--aoi", r"C:\my maps\a.shp", "--keep", "a b#c"]),
    ],
)  # fmt: skip
def test_further_options(text, words):
    assert program.split_options(text) == words


def test_a_quotation_mark_without_a_partner_is_an_error():
    with pytest.raises(program.ProgramError, match=r"A quotation mark is not closed: --keep 'a"):
        program.split_options("--keep 'a")


def test_the_shell_reads_such_a_command_line(monkeypatch, tmp_path):
    """Values that begin with a minus, and the end of the options."""
    monkeypatch.chdir(tmp_path)
    seen = {}
    command = main.commands["predict"]
    monkeypatch.setattr(command, "callback", lambda **given: seen.update(given))
    words = program.command_line(
        program.Program(("geopsp",)),
        "predict",
        "model.onnx",
        "-x.tif",
        options={"extent": "-7.5,1,2,3", "out": "m.tif"},
    )
    command.main(words[2:], standalone_mode=False)
    assert (seen["images"], seen["extent"]) == (("-x.tif",), (-7.5, 1, 2, 3))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"progress": 0.42, "title": "Mapping", "note": "9 s left"}', run.Step("Mapping", 0.42)),
        ('{"progress": "x"}', run.Message("info", '{"progress": "x"}')),
        ('{"progress": 1', run.Message("info", '{"progress": 1')),
        ('{"progress": 1, "title": "a"} etc', run.Message("info", '{"progress": 1, "title": "a"} etc')),
        ("Error: No such file: x. Check the path.", run.Message("error", "No such file: x. Check the path.")),
        ("Warning: 3 chips", run.Message("warning", "3 chips")),
        ("  Error: indented", run.Message("info", "  Error: indented")),
    ],
)  # fmt: skip
def test_lines(line, found):
    assert run.parse_line(line) == found


def follow(code, *args, cancelled=lambda: False):
    """Run Python code as the command; return what it said."""
    lines = []
    run.run([sys.executable, "-c", code, *args], os.environ, on_line=lines.append, is_cancelled=cancelled)
    return lines


def test_progress_and_messages_arrive_in_their_order():
    steps = [json.dumps({"progress": done / 2, "title": "Mäpping", "note": ""}) for done in range(3)]
    code = "import sys; [print(line, file=sys.stderr) for line in sys.argv[1:]]; sys.stderr.flush(); print('Wrote é')"
    found = follow(code, "Warning: careful", *steps)
    assert found == [
        run.Message("warning", "careful"), *(run.Step("Mäpping", done / 2) for done in range(3)),
        run.Message("info", "Wrote é"),
    ]  # fmt: skip


def test_an_error_is_the_one_line_of_the_shell():
    with pytest.raises(run.CommandError, match=r"^No such file: x\.$"):
        follow("import sys; print('Usage: geopsp'); print('Error: No such file: x.'); sys.exit(2)")


def test_a_crash_shows_the_last_lines():
    with pytest.raises(run.CommandError, match=r"^geopsp ended with status 3: 5 / 6 / 7 / 8 / 9$"):
        follow("import sys; [print(number) for number in range(10)]; sys.exit(3)")


def test_a_program_that_is_none_is_an_error(tmp_path):
    with pytest.raises(run.CommandError, match=r"none cannot be started: No such file"):
        run.run([str(tmp_path / "none")], os.environ, on_line=print, is_cancelled=lambda: False)


@pytest.mark.skipif(os.name == "nt", reason="processes end by signals")
@pytest.mark.parametrize("is_stubborn", [False, True])
def test_cancel_stops_the_command_and_its_children(is_stubborn, monkeypatch):
    """Also those that Ctrl-C does not end."""
    monkeypatch.setattr(run, "STOP_SECONDS", 1)
    ignore = "signal.signal(signal.SIGINT, signal.SIG_IGN);" if is_stubborn else ""
    code = f"""
import signal, subprocess, sys
{ignore}
child = subprocess.Popen([sys.executable, "-c", "import signal;{ignore}print('up', flush=True); signal.pause()"])
print(child.pid, flush=True)
child.wait()
"""
    found = []
    run.run(
        [sys.executable, "-c", code], os.environ, on_line=lambda line: found.append(line.text),
        is_cancelled=lambda: "up" in found and len(found) > 1,
    )  # fmt: skip
    (child,) = (int(text) for text in found if text.isdecimal())
    deadline = time.monotonic() + SOON
    while is_running(child):  # a signal takes its time
        assert time.monotonic() < deadline


def is_running(number):
    """False for a process that has ended, also if nobody has asked how."""
    return psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE


def test_the_zip_has_one_folder_and_the_version_of_geopsp(tmp_path):
    for name in ("a.zip", "b.zip"):
        subprocess.run([sys.executable, REPOSITORY / "qgis" / "make_zip.py", tmp_path / name], check=True)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
        metadata = archive.read("geopsp_processing/metadata.txt").decode()
    assert {name.partition("/")[0] for name in names} == {"geopsp_processing"}
    assert {"geopsp_processing/__init__.py", "geopsp_processing/LICENSE", "geopsp_processing/icon.svg"} <= set(names)
    assert not [name for name in names if name.endswith(".pyc")]
    assert f"\nversion={geopsp.__version__}\n" in metadata


@pytest.mark.parametrize("name", ["predict", "polygonize", "sample", "assess"])
def test_the_options_exist_in_the_shell(name):
    """Each --option that an algorithm names is one of its command, which takes a value or is a flag as it is used."""
    text = (PLUGIN / f"{name}.py").read_text(encoding="utf-8")
    block = text.partition("options: ClassVar[dict[str, str]] = ")[2].partition("\n    }")[0] + "}"
    flags = {flag: each for each in main.commands[name].params if isinstance(each, click.Option) for flag in each.opts}
    options = eval(block)
    assert options
    for parameter, option in options.items():
        assert f"--{option}" in flags, option
        is_boolean = f'QgsProcessingParameterBoolean("{parameter}"' in " ".join(text.split()).replace("( ", "(")
        assert flags[f"--{option}"].is_flag == is_boolean, option


def test_no_module_needs_more_than_qgis():
    allowed = {"qgis", "processing"} | set(sys.stdlib_module_names)
    for path in PLUGIN.glob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]) and not words[1].startswith("."):
                assert words[1].partition(".")[0] in allowed, (path.name, line)
