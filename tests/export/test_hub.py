"""Models go to a hub on this machine and come back; their cards escape what strangers wrote."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import yaml
from click.testing import CliRunner
from hub_common import hub  # noqa: F401 (a fixture)
from huggingface_hub import ModelCard, constants
from stac_common import require_valid

from geopsp import PixelClassifier, classify_pixels
from geopsp.cli import main
from geopsp.core.escape import markdown_text
from geopsp.core.legend import Legend
from geopsp.errors import InputNotFoundError, ModelError, OptionError, OutputError, PackageError
from geopsp.export.export_model import export_model
from geopsp.export.formats import HUB_FOLDER
from geopsp.export.hub import HUB_FILES
from geopsp.export.model_card import model_card
from geopsp.models.hub_model import HubName, hub_address, hub_name, local_model
from geopsp.models.saved_model import load_model

HOSTILE = (
    "<script>alert(1)</script>",
    "[x](javascript:1)",
    "| a | b |",
    "`rm`\n# head\n---",
    "\x1b[2J\u202e",
    "![](http://x)",
)


@pytest.fixture(scope="module")
def model(trained):
    return PixelClassifier.from_model(trained)


def card_of(model, **options):
    text = model_card(model, "owner/name", **{"license_id": None, "onnx": False, **options})
    header, body = re.fullmatch(r"---\n(.*?)\n---\n\n(.*)", text, re.DOTALL).groups()
    return yaml.safe_load(header), body


def test_what_is_pushed_comes_back(model, trained, small_world, hub, tmp_path):  # noqa: F811
    address = model.push_to_hub("owner/small-world", token="hf_x", private=True, commit_message="first", license="mit")
    assert address == f"{hub.url}/owner/small-world"
    files = hub.repositories["owner/small-world", "main"]
    assert (set(files), hub.private, hub.message) == (
        {"config.json", "README.md", "model.json", "weights.safetensors", "history.csv", "model.stac.json"},
        {"owner/small-world": True}, "first",
    )  # fmt: skip
    require_valid(json.loads(files["model.stac.json"]))
    files["evil.py"], files["weights.bin"] = b"raise SystemExit", b"\x80\x04."
    loaded = PixelClassifier.from_model("hf://owner/small-world")
    assert loaded.model.fingerprint() == model.model.fingerprint()
    asked = {path.rpartition("/")[2] for command, path in hub.asked if "/resolve/" in path}
    assert asked == {"model.json", "weights.safetensors", "history.csv", "model.stac.json"}
    out = tmp_path / "a.tif"
    command = ["predict", "hf://owner/small-world", str(small_world["part"]), "--out", str(out), "--stac"]
    run = CliRunner().invoke(main, command)
    assert run.exit_code == 0, run.output
    expected = classify_pixels(small_world["part"], trained, tmp_path / "b.tif")
    with rasterio.open(tmp_path / "a.tif") as ours, rasterio.open(expected) as theirs:
        assert np.array_equal(ours.read(), theirs.read())
    links = json.loads((tmp_path / "a.stac.json").read_text())["links"]
    commit = hub.commit("owner/small-world", "main")
    assert links[0]["href"] == f"https://huggingface.co/owner/small-world/resolve/{commit}/model.stac.json"
    for command, *chips in (["info"], ["evaluate", str(small_world["few_chips"])]):
        run = CliRunner().invoke(main, [command, "hf://owner/small-world", *chips])
        assert run.exit_code == 0, run.output


def test_a_branch_and_a_second_upload(model, hub):  # noqa: F811
    model.push_to_hub("owner/name", token="t")
    model.push_to_hub("owner/name", token="t", revision="v2")
    assert {revision for _, revision in hub.repositories} == {"main", "v2"}
    assert local_model("hf://owner/name@v2").name == hub.commit("owner/name", "v2")
    with pytest.raises(InputNotFoundError, match=r"hf://owner/name@v3: there is no such branch, tag or commit"):
        local_model("hf://owner/name@v3")


def test_damaged_weights_are_refused(model, hub):  # noqa: F811
    model.push_to_hub("owner/name", token="t")
    files = hub.repositories["owner/name", "main"]
    files["weights.safetensors"] = files["weights.safetensors"][:-1] + b"x"
    with pytest.raises(PackageError, match="its checksum differs"):
        PixelClassifier.from_model("hf://owner/name")


def test_a_downloaded_model_needs_no_network(model, hub, monkeypatch):  # noqa: F811
    model.push_to_hub("owner/name", token="t")
    local_model("hf://owner/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_model("hf://owner/name").fingerprint() == model.model.fingerprint()
    with pytest.raises(ModelError, match=r"Cannot reach the Hugging Face Hub, and hf://owner/other was not downloaded"):
        load_model("hf://owner/other")


def test_what_the_hub_has_not_is_said_in_one_line(hub):  # noqa: F811
    with pytest.raises(InputNotFoundError, match=r"has no hf://owner/none, or does not show it to you"):
        PixelClassifier.from_model("hf://owner/none")
    hub.repositories["owner/bert", "main"] = {"config.json": b"{}", "pytorch_model.bin": b"\x80"}
    with pytest.raises(PackageError, match=r"hf://owner/bert has no model.json, so it is not a model of geopsp"):
        PixelClassifier.from_model("hf://owner/bert")
    assert not [path for _, path in hub.asked if path.endswith((".bin", "config.json"))]
    run = CliRunner().invoke(main, ["predict", "hf://owner/none", "image.tif", "--out", "map.tif"])
    assert (run.exit_code, run.output.count("\n")) == (2, 1), run.output


@pytest.mark.parametrize(
    "name", ["hf://", "hf://owner", "hf://a/b/c", "hf://a/b@", "hf://../x", "hf:/owner", "hf://a/b\nc"]
)
def test_names_that_are_none(name):
    with pytest.raises(ModelError, match="Write hf://OWNER/NAME"):
        hub_name(name)


def test_names():
    assert hub_name("hf://a/b.c") == hub_name("hf:/a/b.c") == HubName("a/b.c")
    assert hub_name("hf://a/b@refs/pr/1") == HubName("a/b", "refs/pr/1")
    assert hub_name("folder/model") is None


def test_addresses_of_downloads(tmp_path):
    assert (
        hub_address(tmp_path / "models--a--b--c" / "snapshots" / "0af9") == "https://huggingface.co/a/b--c/resolve/0af9"
    )
    assert hub_address(tmp_path / "model") is None


@pytest.mark.parametrize("name", ["owner", "a/b/c", "hf://a", ""])
def test_no_upload_without_a_name(model, name):
    with pytest.raises(ModelError, match="Write OWNER/NAME"):
        model.push_to_hub(name)


def test_the_folder_for_the_hub(trained, tmp_path):
    folder = export_model(trained, tmp_path / "small world", "hub", license="cc-by-4.0")
    assert {path.name for path in folder.iterdir()} - {".geopsp-files"} <= set(HUB_FILES)
    assert all(HUB_FOLDER.matches(name) for name in HUB_FILES)
    assert load_model(folder).fingerprint() == load_model(trained).fingerprint()
    text = (folder / "README.md").read_text()
    assert "geopsp predict hf://OWNER/small_world IMAGE.tif" in text
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == dict(enumerate_texts(load_model(trained).legend.names))
    with pytest.raises(OutputError, match="already exists"):
        export_model(trained, folder, "hub")
    export_model(trained, folder, "hub", overwrite=True)
    assert ModelCard.load(folder / "README.md").data.license == "unknown"


def enumerate_texts(names):
    return ((str(number), name) for number, name in enumerate(names))


@pytest.mark.slow
def test_the_folder_may_hold_an_onnx_file(trained, tmp_path):
    folder = export_model(trained, tmp_path / "model", "hub", onnx=True)
    item = json.loads((folder / "model.onnx.stac.json").read_text())
    require_valid(item)
    assert item["properties"]["mlm:input"][0]["value_scaling"] is None
    assert "model.onnx" in (folder / "README.md").read_text()


def test_the_card_says_what_the_model_knows(model):
    header, body = card_of(model.model, license_id="apache-2.0")
    found = model.model
    assert (header["library_name"], header["pipeline_tag"], header["license"]) == (
        "geopsp", "image-segmentation", "apache-2.0"
    )  # fmt: skip
    for info in found.legend:
        assert f"| {info.code} | {info.name} | `{info.color}` |" in body
    per_class = {"a": {"iou": 0.25, "f1": float("nan")}}
    scored = replace(found, metrics={"miou": 0.5, "accuracy": None, "per_class": per_class})
    header, body = card_of(scored)
    ((result,),) = [each["metrics"] for each in header["model-index"][0]["results"]]
    assert (result["type"], result["value"]) == ("mean_iou", 0.5)
    assert "| a | " in body
    assert "| 0.2500 |  |  |  |" in body
    assert "Unknown: whoever published the model did not state a licence" in body


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_strangers_are_escaped(model, name):
    found = replace(
        model.model,
        legend=Legend.from_names({0: name, 1: "b"}),
        bands=(name, "nir"),
        units=name,
        settings={"network": name, "encoder_weights": f"a/{name}", "warnings": [name]},
        metrics={"miou": "<b>", "per_class": {name: {"iou": "<i>"}}},
    )
    header, body = card_of(found)
    assert header["license"] == "unknown"
    assert "model-index" not in header
    for part in ("<script", "](", "\n# head", "\x1b", "\u202e", "<b>", "<i>"):
        assert part not in body.replace("# name", "")
    rows = [line for line in body.splitlines() if line.startswith("| 0 |")]
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 8


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_is_one_line_without_marks(text):
    found = markdown_text(text)
    assert "\n" not in found
    assert not re.search(r"(?<!\\)[`*_\[\]()#|!<>]", found)


@pytest.mark.parametrize("license_id", ["<b>", "a b", "", "x" * 80])
def test_a_licence_is_a_word(trained, tmp_path, license_id):
    with pytest.raises(OptionError, match="`license` is"):
        export_model(trained, tmp_path / "model", "hub", license=license_id)


def test_an_item_elsewhere_points_to_the_model(trained, tmp_path, model):
    """By the shell, too; of a model that was not saved there is none."""
    path = tmp_path / "catalogue" / "item.json"
    run = CliRunner().invoke(main, ["export", str(trained), "--to", "stac", "--out", str(path)])
    assert run.exit_code == 0, run.output
    item = json.loads(path.read_text())
    require_valid(item)
    for asset in item["assets"].values():
        assert (path.parent / asset["href"]).resolve().is_file()
    with pytest.raises(OptionError, match="was not saved"):
        model.export(tmp_path / "item.json", "stac")
    with pytest.raises(OptionError, match="not to stac"):
        export_model(trained, tmp_path / "item.json", "stac", license="mit")
