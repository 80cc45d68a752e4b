"""Models of ArcGIS are told what they are; nothing of them is unpickled, extracted or believed."""

from __future__ import annotations

import json
import os
import pickle
import random
import stat
import struct
import zipfile
from contextlib import suppress

import pytest
from click.testing import CliRunner

from geopsp.cli.commands import main
from geopsp.errors import PackageError
from geopsp.models.arcgis_package import MAX_SETTINGS_BYTES, find_arcgis_package
from geopsp.models.manifest import read_manifest

THEIRS = {
    "ModelFile": "parcels.pth",
    "ModelType": "ImageClassification",
    "ModelName": "PSPNetClassifier",
    "Framework": "arcgis.learn.models._inferencing",
    "ModelConfiguration": "_psp",
    "InferenceFunction": "ArcGISImageClassifier.py",
    "ExtractBands": [0, 1, 2],
    "ImageHeight": 224,
    "ImageWidth": 224,
    "ModelParameters": {"backbone": "resnet50", "backend": "pytorch", "pyramid_sizes": [1, 2, 3, 6]},
    "NormalizationStats": None,
    "LearningRate": "slice('1.2e-05', '1.2e-04', None)",
    "Classes": [
        {"Value": 1, "Name": "Roof", "Color": [12, 200, 3]},
        {"Value": 2, "Name": "Street", "Color": [1, 2, 3]},
    ],
    "accuracy": 9.1e-01,
}


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def theirs(folder, definition=None, *, trap=None):
    """What arcgis.learn's save leaves: weights, .emd, .dlpk, script."""
    folder.mkdir()
    (folder / "parcels.pth").write_bytes(pickle.dumps(Trap(trap or folder / "sprung")))
    (folder / "parcels.emd").write_text(json.dumps(THEIRS if definition is None else definition))
    (folder / "ArcGISImageClassifier.py").write_text("raise SystemExit")
    with zipfile.ZipFile(folder / "parcels.dlpk", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("parcels.pth", "parcels.emd", "ArcGISImageClassifier.py"):
            archive.write(folder / name, name)
        archive.writestr("ModelCharacteristics/loss_graph.png", b"x")
    return folder


@pytest.fixture
def folder(tmp_path):
    return theirs(tmp_path / "parcels", trap=tmp_path / "sprung")


@pytest.mark.parametrize("name", ["", "parcels.emd", "parcels.dlpk"])
def test_a_model_of_arcgis_learn_is_told(folder, name):
    words = (
        r"is a model of ArcGIS \(PSPNetClassifier, backbone resnet50\) with 2 classes \(1 Roof, 2 Street\) and 3 bands"
        r"\. Its weights \(parcels.pth\) are pickled, .* never loads .* train on them: geopsp train CHIPS"
    )
    with pytest.raises(PackageError, match=words):
        read_manifest(folder / name)
    for command in (("predict", folder / name, "x.tif", "--out", folder / "m.tif"), ("evaluate", folder / name, "c")):
        found = CliRunner().invoke(main, [str(each) for each in command])
        assert found.exit_code == 2
        assert "a model of ArcGIS (PSPNetClassifier" in found.output
    found = CliRunner().invoke(main, ["info", str(folder / name)])
    assert found.exit_code == 0, found.output
    assert "a model of ArcGIS (PSPNetClassifier, backbone resnet50)" in found.output
    assert "1 Roof, 2 Street" in found.output
    assert "pickled" in found.output
    content = json.loads(CliRunner().invoke(main, ["info", "--json", str(folder / name)]).output)
    assert content["classes"] == ["1 Roof", "2 Street"]
    assert not (folder.parent / "sprung").exists()


@pytest.mark.slow  # loads torch
def test_from_model_refuses_it(folder):
    from geopsp import PSPNetClassifier

    with pytest.raises(PackageError, match="a model of ArcGIS"):
        PSPNetClassifier.from_model(folder / "parcels.dlpk")
    assert not (folder.parent / "sprung").exists()


def test_chips_of_arcgis_are_no_model(tmp_path):
    (tmp_path / "esri_model_definition.emd").write_text(json.dumps({"MetaDataMode": "Classified_Tiles"}))
    assert find_arcgis_package(tmp_path) is None
    assert find_arcgis_package(tmp_path / "esri_model_definition.emd") is None
    assert find_arcgis_package(tmp_path / "none.dlpk") is None


@pytest.mark.parametrize(
    "change",
    [
        {"Classes": None}, {"Bands": ["red", "nir"], "ExtractBands": None}, {"ModelParameters": {"backbone": 7}},
        {"ModelName": "\x1b[31mred\n"}, {"ImageHeight": "224"},
        {"Classes": [{"Value": v, "Name": f"n{v}" * 200} for v in range(300)]},
    ],
)  # fmt: skip
def test_unusual_definitions(tmp_path, change):
    folder = theirs(tmp_path / "m", THEIRS | change)
    with pytest.raises(PackageError, match="model of ArcGIS") as error:
        read_manifest(folder)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 1500


def packed(path, entries, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def link(name):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


GOOD = ("m.emd", json.dumps(THEIRS))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([("m.emd", b" " * (MAX_SETTINGS_BYTES + 1))], "has more than"),
        ([("m.emd", "[" * 100_000)], "levels deep|not JSON"),
        ([("m.emd", "no JSON")], "not JSON"),
        ([("m.emd", "[1]")], "must be a dict"),
        ([("m.emd", json.dumps({"Classes": 5}))], "Classes"),
        ([GOOD, ("n.emd", "{}")], "2 .emd files"),
        ([("x.pth", b"")], "0 .emd files"),
        ([("folder/m.emd", "{}")], "0 .emd files"),
        ([GOOD, ("../evil.py", b"")], "outside"),
        ([GOOD, ("/etc/evil", b"")], "outside"),
        ([GOOD, ("C:\\evil", b"")], "outside"),
        ([GOOD, ("a\\..\\..\\evil", b"")], "outside"),
        ([(link("m.emd"), "/etc/passwd")], "a link"),
        ([GOOD, *((f"{n}", b"") for n in range(10_001))], "may hold 10,000"),
    ],
)
def test_hostile_packages(tmp_path, entries, words):
    path = packed(tmp_path / "m.dlpk", entries)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PackageError, match=words) as error:
        read_manifest(path)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before
    found = CliRunner().invoke(main, ["info", str(path)])
    assert found.exit_code == 2, found.output


def changed(path, edit):
    data = bytearray(path.read_bytes())
    edit(data)
    path.write_bytes(data)
    return path


def test_bombs_are_not_unpacked(tmp_path):
    """Sizes that lie, unusual packing, encryption, an endless list of files."""
    path = packed(tmp_path / "m.dlpk", [("m.emd", b"0" * 50_000_000)])
    changed(path, lambda data: data.__setitem__(slice(22, 26), struct.pack("<I", 10)))
    central = path.read_bytes().rindex(b"PK\x01\x02")
    changed(path, lambda data: data.__setitem__(slice(central + 24, central + 28), struct.pack("<I", 10)))
    with pytest.raises(PackageError):
        find_arcgis_package(path)
    for compression in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        with pytest.raises(PackageError, match="unusual"):
            find_arcgis_package(packed(tmp_path / "l.dlpk", [GOOD], compression))
    path = packed(tmp_path / "e.dlpk", [GOOD])
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = path.read_bytes().rindex(mark)
        changed(path, lambda data, at=start + at: data.__setitem__(at, 1))
    with pytest.raises(PackageError, match="encrypted"):
        find_arcgis_package(path)
    path = packed(tmp_path / "b.dlpk", [GOOD, ("w.pth", b"")])
    for each in (0xFFFFFFFE, 5 * 2**20):
        end = path.read_bytes().rindex(b"PK\x05\x06")
        changed(
            path, lambda data, end=end, each=each: data.__setitem__(slice(end + 12, end + 16), struct.pack("<I", each))
        )
        with pytest.raises(PackageError, match="list of files is too long"):
            find_arcgis_package(path)
    path = packed(tmp_path / "s.dlpk", [GOOD, *((f"{n}.pth", b"") for n in range(9))])
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        data[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFFF0)
        at = data.find(b"PK\x01\x02", at + 4)
    path.write_bytes(data)
    with pytest.raises(PackageError, match="GB unpacked"):
        find_arcgis_package(path)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"no zip at all", b"\0" * 70_000, b"PK\x03\x04" * 9])
def test_files_that_are_no_zip(tmp_path, content):
    (tmp_path / "m.dlpk").write_bytes(content)
    with pytest.raises(PackageError, match="no ZIP file"):
        find_arcgis_package(tmp_path / "m.dlpk")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "p.dlpk")
    with pytest.raises(PackageError, match="no regular file"):
        find_arcgis_package(tmp_path / "p.dlpk")
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "d" / "m.emd")
    assert find_arcgis_package(tmp_path / "d") is None
    (tmp_path / "l.dlpk").symlink_to(tmp_path / "nowhere.dlpk")
    with pytest.raises(PackageError, match="Cannot read"):
        find_arcgis_package(tmp_path / "l.dlpk")


@pytest.mark.parametrize("seed", range(40))
def test_damaged_packages_are_refused_or_read(folder, seed):
    rng = random.Random(seed)
    path = folder / "parcels.dlpk"

    def flip(data):
        for _ in range(rng.choice((1, 3, 30))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if seed % 4 == 0:
            del data[rng.randrange(len(data)) :]

    changed(path, flip)
    with suppress(PackageError):
        find_arcgis_package(path)
    assert not (folder.parent / "sprung").exists()
