"""write_report and `geopsp report`: which file, of what, and what is refused; records that are damaged or missing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from report_common import Page

from geopsp import PixelClassifier, prepare_data, write_report
from geopsp.cli.commands import main
from geopsp.core.calls import call_text
from geopsp.core.owned_files import foreign_files
from geopsp.errors import InputNotFoundError, OptionError, OutputError, PackageError
from geopsp.models.manifest import MODEL_FOLDER, RECORD, REPORT
from geopsp.models.training_record import read_record, record_text
from geopsp.training.training_record import fingerprint


@pytest.fixture
def model(trained, tmp_path):
    """A copy of a saved model, which may be changed."""
    return Path(shutil.copytree(trained, tmp_path / "model"))


def test_a_saved_model_is_reported_without_torch(trained, tmp_path):
    code = (
        "import sys; from geopsp import write_report; write_report(sys.argv[1], sys.argv[2]); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(trained), str(tmp_path / "r.html")], check=True)
    words = Page((tmp_path / "r.html").read_text()).words
    scores = read_record(trained).scores
    assert f"On the validation chips ({scores.chips} with labels)" in words
    assert "Worst" in words
    assert "model.fit(5, lr=0.003)" in words


def test_the_report_in_a_models_folder_is_one_of_its_files(model):
    assert not foreign_files(model, MODEL_FOLDER)
    write_report(model, model / REPORT)
    assert not foreign_files(model, MODEL_FOLDER)
    with pytest.raises(OutputError, match="already exists"):
        write_report(model, model / REPORT)
    (model / "note.txt").write_text("mine")
    write_report(model, model / REPORT, overwrite=True)
    assert foreign_files(model, MODEL_FOLDER) == ["note.txt"]


def test_a_classifier_in_memory_is_scored_and_reported(trained, small_world, tmp_path):
    classifier = PixelClassifier.from_model(trained, data=prepare_data(small_world["chips"], batch_size=8))
    record = classifier.model.record
    classifier.model.record = record.model_copy(update={"scores": None})
    path = classifier.report(tmp_path / "r.html")
    assert classifier.model.record.scores.confusion == record.scores.confusion
    assert "On the validation chips" in Page(path.read_text()).words
    again = write_report(classifier.model, tmp_path / "again.html")
    assert "PSPNetClassifier" in Page(again.read_text()).words


def test_what_cannot_be_reported_is_said_before_the_work(trained, small_world, tmp_path):
    with pytest.raises(OptionError, match=r"ends in '.pdf', but must end in .html"):
        write_report(trained, tmp_path / "r.pdf")
    with pytest.raises(OptionError, match="beside a map only"):
        write_report(trained, tmp_path / "r.html", images="scene.tif")
    with pytest.raises(OptionError, match="an ONNX file, which tells nothing of its training"):
        write_report("model.onnx", tmp_path / "r.html")
    with pytest.raises(OptionError, match="`model` is a int"):
        write_report(3, tmp_path / "r.html")
    with pytest.raises(InputNotFoundError, match="No such folder"):
        write_report(tmp_path / "none", tmp_path / "r.html")
    shutil.copy(small_world["scene"], tmp_path / "scene.html")
    with pytest.raises(OutputError, match="is also an input"):
        write_report(trained, tmp_path / "scene.html", map=tmp_path / "scene.html", overwrite=True)
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"format": "geopsp-training"}', lambda text: text.replace('"seconds":', '"second":')]
)
def test_a_damaged_record_is_said_and_the_model_still_loads(model, damage, caplog):
    text = (model / RECORD).read_text()
    (model / RECORD).write_text(damage if isinstance(damage, str) else damage(text))
    with pytest.raises(PackageError, match=r"training.json cannot be read: .*\. Remove it"):
        read_record(model)
    loaded = PixelClassifier.from_model(model)
    assert loaded.model.record is None
    assert "training.json cannot be read" in caplog.text
    (model / RECORD).unlink()
    assert read_record(model) is None
    assert "holds no training.json" in Page(write_report(model, model / REPORT).read_text()).words


def test_a_record_is_saved_as_it_is(model, tmp_path):
    found = read_record(model)
    assert record_text(found) == (model / RECORD).read_text()
    classifier = PixelClassifier.from_model(model)
    saved = classifier.save(tmp_path / "again", compute_metrics=False)
    assert read_record(saved) == found
    picture = json.loads(record_text(found))
    picture["scores"]["pictures"][0]["image"] = "https://example.org/x.png"
    (model / RECORD).write_text(json.dumps(picture))
    with pytest.raises(PackageError, match=r"scores\.pictures"):
        read_record(model)


def test_fingerprints_tell_what_changed(small_world, tmp_path):
    folder = Path(shutil.copytree(small_world["chips"], tmp_path / "chips"))
    before = fingerprint(folder)
    assert before.size == sum(
        file.stat().st_size for file in folder.rglob("*") if file.name[0] != "." and file.is_file()
    )
    assert fingerprint(folder) == before
    (folder / "more.tif").write_bytes(b"x")
    assert fingerprint(folder).sha256 != before.sha256
    one, other = tmp_path / "a.bin", tmp_path / "b.bin"
    one.write_bytes(b"\0" * 3_000_000)
    other.write_bytes(b"\0" * 2_999_999 + b"1")
    assert fingerprint(one).sha256 != fingerprint(other).sha256
    assert fingerprint(one).files == 1


def test_calls_are_written_as_people_write_them():
    def function(path, size=3, *, names=(), place=None, scale=1.0):
        """Take some."""

    def text(**values):
        return call_text("f", function, values)

    assert text(path=Path("a b")) == "f('a b')"
    assert text(path=["a", Path("b")], size=4) == "f(['a', 'b'], size=4)"
    assert text(path="a", size=3, names=("x",), place={1: Path("c")}) == "f('a', names=('x',), place={1: 'c'})"
    assert text(path="a", scale=object()) == "f('a', scale=<object>)"
    assert call_text("f", function, {"size": 5}, first=["data"]) == "f(data, size=5)"


def run(*arguments):
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_shell_writes_reports(trained, small_world, tmp_path):
    out = tmp_path / "report.html"
    assert run("report", trained, "--out", out) == f"Wrote {out}\n"
    result = CliRunner().invoke(main, ["report", str(trained), "--out", str(out)])
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr
    found = CliRunner().invoke(main, ["report", str(trained), "--images", "x.tif", "--out", str(tmp_path / "r.html")])
    assert "--images are shown beside a map only. Give --map" in found.stderr.replace("`", "")


@pytest.mark.slow
def test_training_and_evaluation_write_reports_and_their_commands_repeat_them(small_world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = ["train", str(small_world["chips"]), "--out", "model", "--backbone", "tu-test_resnet", "--weights", "none",
             "--epochs", "1", "--precision", "fp32", "--preset", "fast"]  # fmt: skip
    assert "Wrote model/report.html" in run(*typed)
    words = Page(Path("model/report.html").read_text()).words
    assert " ".join(["geopsp", *typed]) in words
    assert "geopsp train --config model --out model-2" in words
    run("train", "--config", "model", "--out", "model-2")
    original = PixelClassifier.from_model("model").model
    assert PixelClassifier.from_model("model-2").model.fingerprint() == original.fingerprint()
    names: dict = {}
    exec("\n".join(["from geopsp import PSPNetClassifier, prepare_data", *original.record.code]), names)
    assert names["model"].model.fingerprint() == original.fingerprint()
    run("train", "--config", "model", "--out", "model-2", "--overwrite")
    shown = run("evaluate", "model", small_world["chips"], "--report", "scores.html", "--json", "scores.json")
    assert "Wrote scores.html" in shown
    miou = json.loads(Path("scores.json").read_text())["miou"]
    assert f"mean IoU {miou:.3f}" in Page(Path("scores.html").read_text()).words
