"""What the doctor says: twenty lines, true of this machine, without names of users, whatever is broken."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pyproj
import pytest
import rasterio
import torch
from click.testing import CliRunner

from geopsp.cli import main
from geopsp.core.jit import cache_folder
from geopsp.report import doctor
from geopsp.report.doctor import FEATURES, describe_diagnosis, diagnose

WITHOUT_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "lightning", "timm", "onnxruntime"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *_: None if name in {"torch", "onnxruntime"} else found(name)
from geopsp.cli import main
main(["doctor"])
"""


def test_it_fits_into_a_report(monkeypatch):
    run = CliRunner().invoke(main, ["doctor"])
    assert run.exit_code == 0, run.output
    lines = run.output.splitlines()
    assert 8 <= len(lines) <= 20
    for words in (f"geopsp {version('geopsp')}", f"torch {torch.__version__.partition('+')[0]}", pyproj.__version__):
        assert words in run.output
    assert rasterio.__gdal_version__ in run.output
    assert all(len(line) < 730 for line in lines)


def test_as_json_it_says_the_same():
    run = CliRunner().invoke(main, ["doctor", "--json"])
    facts = json.loads(run.output)
    assert describe_diagnosis(facts)
    assert facts["torch"]["devices"][-1]["device"] == "cpu"
    assert "COG" in facts["raster"]["has"]
    assert "GPKG" in facts["vector"]["has"]
    assert facts["missing"].keys() <= FEATURES.keys()


def test_names_of_users_and_passwords_are_left_out(monkeypatch, tmp_path):
    home = tmp_path / "home" / "maria"
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setattr(getpass, "getuser", lambda: "maria")
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    monkeypatch.setenv("HF_ENDPOINT", "https://maria:secret@mirror.example")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/scratch/maria/numba")
    facts = diagnose()
    text = describe_diagnosis(facts) + json.dumps(facts)
    assert "maria" not in text
    assert "secret" not in text
    assert facts["caches"]["torch cache"].startswith("~/torch/hub (")
    assert facts["environment"]["NUMBA_CACHE_DIR"] == "/scratch/USER/numba"
    assert facts["environment"]["HF_ENDPOINT"] == "https://mirror.example"


def test_a_library_that_does_not_load_is_told(monkeypatch):
    def broken():
        raise OSError("libcuda.so.1: cannot open\nshared object")

    monkeypatch.setattr(doctor, "_torch", broken)
    monkeypatch.setattr(doctor, "_raster", broken)
    facts = diagnose()
    assert facts["torch"] == "cannot be used: OSError: libcuda.so.1: cannot open shared object"
    assert f"raster      {facts['raster']}" in describe_diagnosis(facts)


def test_it_needs_no_torch():
    run = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "torch: not installed" in run.stdout
    assert "torch (train, evaluate, and predict with a model folder: pip install geopsp)" in run.stdout
    assert 'onnxruntime (predict with an ONNX file: pip install "geopsp[onnx]")' in run.stdout


@pytest.mark.parametrize(("count", "lines"), [(1, 1), (3, 3), (4, 3), (9, 3)])
def test_many_devices_take_three_lines(count, lines):
    gpu = {"device": "cuda:0", "name": "GPU X", "capability": "9.0", "memory": 2**37, "free": 2**36, "fast": ["bf16"]}
    found = doctor._device_lines({"build": "CUDA 13", "devices": [gpu] * count})
    assert len(found) == lines
    assert "128 GiB (64 free), capability 9.0, fast: bf16" in found[0]
    assert count <= 3 or found[-1].endswith(f"and {count - 2} more")


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    assert doctor._folder(tmp_path).endswith("(NOT writable)")
    assert doctor._folder(tmp_path / "a" / "b").endswith("(NOT writable, not made yet)")


def test_the_cache_of_machine_code_is_where_numba_writes(tmp_path):
    code = "from geopsp.core.jit import cache_folder; print(cache_folder())"
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "PATH": "", "PYTHONPATH": str(Path(doctor.__file__).parents[2])}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.startswith(str(tmp_path))
    assert cache_folder() is None or Path(cache_folder()).name
