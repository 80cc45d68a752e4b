"""What must stay as it is, whatever modules and classes are called: files, keys, public names, options of the shell.

`golden/` holds what the version of commit 246788e wrote (`golden/make.py` tells how), and what it was like as .json.
Where a change is meant, `GEOPSP_UPDATE_GOLDEN=1 python -m pytest tests/test_golden.py` writes the .json files anew, and
their diff shows what has changed; models, chips and maps are never written anew.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import shutil
from dataclasses import is_dataclass
from pathlib import Path
from typing import get_args

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
from torch._subclasses.fake_tensor import FakeTensor

import geopsp
from geopsp import (
    ChipSet,
    PixelClassifier,
    PSPNetClassifier,
    Scene,
    classify_pixels,
    export_training_data,
    prepare_data,
)
from geopsp.cli import main
from geopsp.core.owned_files import FILE_LIST, is_unfinished
from geopsp.labels.read_labels import read_labels
from geopsp.models.build import ModelSpec, build_network

GOLDEN = Path(__file__).with_name("golden")
UPDATE = os.environ.get("GEOPSP_UPDATE_GOLDEN") == "1"
MTIME = 1_700_000_000
MAPPING = {"pond": {"name": "water", "code": 7, "color": "#2040c0"}, "wood": "forest", "sand": None}
CHIPS = {"class_field": "kind", "tile_size": 64, "class_mapping": MAPPING}
MAP = {"precision": "fp32", "device": "cpu"}
"""So that the key is the same on all machines."""

CUTTING_DEFAULTS = {
    "class_field": None, "stride": None, "background": "class", "aoi": None, "aoi_rule": "mask", "all_touched": False,
    "where": None, "class_mapping": None, "buffer": 0.0, "priority": None, "priority_field": None, "bands": None,
    "per_image": True, "order": "given", "cell_size": None, "extent": None, "min_labelled": 0.0, "min_valid": 0.0,
    "skip_empty": False, "rotation_angle": 0.0, "grid": True, "random_chips": 0,
}  # fmt: skip
MAP_DEFAULTS = {
    "polygons": None, "probabilities": None, "probability_type": "uint8", "confidence": None, "disagreement": None,
    "bands": None, "extent": None, "aoi": None, "cell_size": None, "order": "given", "tile_size": None, "padding": None,
    "batch_size": None, "test_time_augmentation": False, "predict_background": True, "sieve": 0, "compiled": False,
    "client": None, "scheduler": None, "overwrite": False,
}  # fmt: skip
NETWORK_DEFAULTS = {
    "pointrend": False, "encoder_depth": 5, "class_balancing": False, "focal_loss": False, "dice_loss_fraction": 0.0,
    "dice_loss_average": "micro", "lovasz_fraction": 0.0, "tversky_fraction": 0.0, "tversky_alpha": 0.3,
    "tversky_beta": 0.7, "label_smoothing": 0.0, "ohem": 1.0, "mixup": False, "ignore_classes": (), "device": None,
}  # fmt: skip
PRESETS_DECIDE = {"pointrend": None, "encoder_depth": None}
MEANT = {
    **CUTTING_DEFAULTS, **MAP_DEFAULTS, "precision": "auto", "encoder_weights": "auto", **NETWORK_DEFAULTS,
    **PRESETS_DECIDE,
}  # fmt: skip
"""Defaults of what commit 246788e took by **options, where no signature tells them; all functions have the same."""

UNTOLD = "?"
REQUIRED = "-"


def as_text(value, depth=2, indent=""):
    """JSON with a line for each thing `depth` levels down, so that a diff is read with ease."""
    if not depth or not value or not isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    inner = indent + " "
    if isinstance(value, dict):
        opened, closed = "{}"
        lines = [f"{inner}{json.dumps(key)}: {as_text(each, depth - 1, inner)}" for key, each in value.items()]
    else:
        opened, closed = "[]"
        lines = [f"{inner}{as_text(each, depth - 1, inner)}" for each in value]
    return "\n".join([opened, ",\n".join(lines), indent + closed])


def golden(name, section, found):
    """What a section of a .json file holds; with GEOPSP_UPDATE_GOLDEN=1 it is first set to what is found."""
    path = GOLDEN / f"{name}.json"
    if UPDATE:
        told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        told[section] = json.loads(json.dumps(found))
        path.write_text(as_text(dict(sorted(told.items())), 3) + "\n", encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))[section]


def require_same(name, section, found):
    """The section holds what is found."""
    assert json.loads(json.dumps(found)) == golden(name, section, found)


def tree(value):
    """Keys and types, all the way down; of a list those of its first item."""
    if isinstance(value, dict):
        return {str(key): tree(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [tree(each) for each in value[:1]]
    return "null" if value is None else type(value).__name__


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with all that is golden, where we are; files changed at one time, as keys tell it."""
    shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.rglob("*"):
        os.utime(path, (MTIME, MTIME))
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    return tmp_path


@pytest.fixture
def labels(place):
    return gpd.read_file("labels.geojson")


@pytest.fixture(scope="module")
def classifiers():
    """One of each kind, as untrained as they come."""
    data = prepare_data(GOLDEN / "chips", split="random", val_split_pct=0.25, workers=0)

    def made(kind, **options):
        torch.manual_seed(0)
        options = {"encoder_weights": None, "device": "cpu", **options}
        return getattr(geopsp, kind)(data, "tu-test_resnet", **options)

    return {
        "PSPNetClassifier": made("PSPNetClassifier", pyramid_sizes=(1, 3), aux_loss=True, pointrend=True),
        "PSPNetClassifier plain": made("PSPNetClassifier", use_unet=False, aux="presence"),
        "FCNClassifier": made("FCNClassifier"),
        "UnetClassifier": made("UnetClassifier"),
        "DeepLab": made("DeepLab"),
        "defaults": made("PSPNetClassifier", **{n: v for n, v in NETWORK_DEFAULTS.items() if n != "device"}),
        "nothing said": made("PSPNetClassifier"),
    }


def area_of(labels):
    """Some of the polygons, as an area of interest."""
    return labels.iloc[::2][["geometry"]]


def written_key(folder):
    return json.loads(Path(folder, "chips.json").read_text())["exports"][-1]["key"]


def tags(path):
    with rasterio.open(path) as dataset:
        return dataset.tags()


def pixels(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


# Keys


def test_keys_of_exports(place, labels):
    """Another key makes the same call refuse or cut anew what it cut before."""
    field, plain = "field.tif", {"class_field": "kind", "tile_size": 64}
    chosen = {
        "stride": 100, "background": "ignore", "all_touched": True, "where": "rank < 2", "priority": ["wood"],
        "priority_field": "rank", "min_valid": 0.1, "min_labelled": 0.01, "rotation_angle": 90.0, "random_chips": 2,
        "aoi": area_of(labels), "seed": 7,
    }  # fmt: skip
    calls = {
        "plain": (field, labels, plain),
        "class_mapping": (field, labels, CHIPS),
        "all defaults said": (field, labels, {**CUTTING_DEFAULTS, **plain}),
        "many options": (field, labels, plain | chosen),
        "extent and cell size": (
            field,
            labels,
            plain | {"cell_size": 4.0, "extent": (601420, 5301300, 601700, 5301500)},
        ),
        "mosaic": ([field, "shifted.tif"], labels, plain | {"per_image": False}),
        "two images": ([field, "shifted.tif"], labels, plain | {"chip_format": "png", "bands": [1]}),
        "a file a band": ({"red": "red.tif", "nir": "nir.tif"}, labels, plain),
    }
    keys = {}
    for number, (name, (images, wanted, options)) in enumerate(calls.items()):
        export_training_data(images, wanted, f"out{number}", **options)
        keys[name] = written_key(f"out{number}")
    assert len(set(keys.values())) == len(keys) - 1
    assert keys["all defaults said"] == keys["plain"]
    assert keys["class_mapping"] == written_key("chips")
    require_same("keys", "exports", keys)


def test_what_tells_label_files_from_others(place):
    """It goes into the key of an export; with the full path, which is another one on each machine."""
    found = {
        "plain": read_labels("labels.geojson", class_field="kind").fingerprint(),
        "class_mapping": read_labels("labels.geojson", class_field="kind", class_mapping=MAPPING).fingerprint(),
        "raster": read_labels("chips/labels/000009.tif").fingerprint(),
        "raster, class_mapping": read_labels("chips/labels/000009.tif", class_mapping={1: "trees"}).fingerprint(),
    }
    here = str(Path.cwd().resolve())
    require_same("keys", "labels", {name: [line.replace(here, "HERE") for line in its] for name, its in found.items()})


def test_keys_of_maps(place, labels):
    """Another key makes half-made maps begin anew, and finished ones be refused as there already."""
    field, small = "field.tif", {"extent": (601420, 5301400, 601560, 5301520)}
    options = {"tile_size": 32, "padding": 4, "sieve": 3, "predict_background": False, "test_time_augmentation": True}
    more = {
        "probabilities": "p.tif", "confidence": "c.tif", "disagreement": "d.tif", "probability_type": "float16",
        "overwrite": True,
    }  # fmt: skip
    calls = {
        "plain": (field, {}),
        "extent": (field, small),
        "all defaults said": (field, MAP_DEFAULTS | small),
        "many options": (field, small | options),
        "all rasters": (field, small | more),
        "area of interest": (field, {"aoi": area_of(labels)}),
        "cell size": (field, {"cell_size": 4.0}),
        "mosaic": ([field, "shifted.tif"], small),
        "a file a band": ({"red": "red.tif", "nir": "nir.tif"}, small | {"batch_size": 2}),
    }
    found = {}
    require_same("keys", "what PROJ calls the CRS, which keys hold", Scene.open(field).grid.crs.to_wkt())
    model = PixelClassifier.from_model("model")
    for number, (name, (images, asked)) in enumerate(calls.items()):
        found[name] = tags(classify_pixels(images, model, f"map{number}.tif", **MAP, **asked))
    keys = {name: its["GEOPSP_JOB"] for name, its in found.items()}
    assert len(set(keys.values())) == len(keys) - 1
    assert keys["all defaults said"] == keys["extent"]
    require_same("keys", "maps", keys)
    require_same("keys", "model of a map", found["plain"]["GEOPSP_MODEL"])
    require_same("keys", "tags of a map", sorted(name for name in found["plain"] if name.startswith("GEOPSP")))
    require_like(pixels("map0.tif")[0], "field")


def require_like(found, name):
    """Nearly the classes that were stored: other processors round otherwise, where two classes are a near tie."""
    with np.load(GOLDEN / "expected.npz") as stored:
        expected = stored[name]
    assert found.shape == expected.shape
    assert np.array_equal(found == 255, expected == 255)
    assert (found != expected).mean() < 0.002


# What was written


def test_a_saved_model_loads_and_is_known_again(place):
    """Its classes on an image are tested with the keys of maps."""
    model = PixelClassifier.from_model("model")
    assert type(PSPNetClassifier.from_model("model")) is PSPNetClassifier
    require_same("keys", "fingerprint", model.model.fingerprint())
    require_same("keys", "summary", repr(model))
    saved = model.save("again")
    assert (saved / "weights.safetensors").read_bytes() == Path("model/weights.safetensors").read_bytes()
    ours, theirs = (json.loads((Path(folder) / "model.json").read_text()) for folder in ("again", "model"))
    for its in (ours, theirs):
        del its["made_with"], its["manifest_sha256"]
    assert ours == theirs
    assert (saved / "history.csv").read_text() == Path("model/history.csv").read_text()


def test_a_chip_folder_opens_and_the_same_call_does_nothing(place, labels, capsys):
    chips = ChipSet.open("chips")
    require_same("formats", "chip set", [repr(chips), chips.pixels_per_class.tolist(), list(chips.index.columns)])
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in Path("chips").rglob("*")}
    export_training_data("field.tif", labels, "chips", **CHIPS)
    assert "nothing to do" in capsys.readouterr().err
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in Path("chips").rglob("*")} == before


def test_chips_are_added_to_a_folder_of_old(place, labels):
    old = json.loads(Path("chips/chips.json").read_text())
    chips = export_training_data("shifted.tif", labels, "chips", append=True, **CHIPS)
    told = json.loads(Path("chips/chips.json").read_text())
    assert old["chips"] == 12
    assert (len(chips), told["chips"], len(told["exports"])) == (16, 16, 2)
    assert told["exports"][0] == old["exports"][0]
    assert [Path(path).name for path in chips.index["image"]][11:] == [f"{number:06d}.tif" for number in range(11, 16)]
    export_training_data("shifted.tif", labels, "chips", append=True, **CHIPS)
    assert json.loads(Path("chips/chips.json").read_text()) == told


def test_chips_are_cut_and_described_as_they_were(place, labels):
    """Every file of the folder and what it says; the ledger, too."""
    ledger = []

    def look(done, total, note=""):
        ledger.append(Path(".partial-new/ledger.jsonl").read_text())

    export_training_data("field.tif", labels, "new", progress=look, **CHIPS)
    assert ledger[-1] == Path("ledger.jsonl").read_text()
    require_same("formats", "ledger.jsonl", [tree(json.loads(line)) for line in ledger[-1].splitlines()[:2]])
    require_same_chips("new", "chips")
    require_same("formats", "chips.json", tree(json.loads(Path("new/chips.json").read_text())))


def require_same_chips(ours, theirs):
    names = [sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*")) for folder in (ours, theirs)]
    assert [name for name in names[0] if name != FILE_LIST] == names[1]  # earlier versions wrote no list
    for name in names[1]:
        one, other = Path(ours, name), Path(theirs, name)
        if name.endswith(".tif"):
            assert np.array_equal(pixels(one), pixels(other)), name
        elif name.endswith(".parquet"):
            assert gpd.read_parquet(one).equals(gpd.read_parquet(other)), name
        elif name.endswith(".json"):
            assert json.loads(one.read_text()) == json.loads(other.read_text()), name
        elif one.is_file():
            assert one.read_text() == other.read_text(), name


def test_an_export_of_old_goes_on(place, labels):
    """Of its four rows two are there; their chips are not cut again."""
    lines = Path("ledger.jsonl").read_text().splitlines(keepends=True)
    rows = [row for line in lines[1:3] for row in json.loads(line)["rows"]]
    for name, column in (("images", "chip"), ("labels", "label")):
        Path(".partial-new", name).mkdir(parents=True)
        for row in rows:
            shutil.copy2(Path("chips", name, row[column]), Path(".partial-new", name, row[column]))
    Path(".partial-new/ledger.jsonl").write_text("".join(lines[:3]))
    steps = []
    export_training_data("field.tif", labels, "new", progress=lambda done, total, *_: steps.append(done), **CHIPS)
    assert steps[0] > len(rows) == 8
    kept = {row["chip"] for row in rows}
    assert {path.name for path in Path("new/images").iterdir() if path.stat().st_mtime == MTIME} == kept
    require_same_chips("new", "chips")


def test_a_map_of_old_goes_on(place, monkeypatch):
    """Two of its four parts are there and stay; only tiles that touch the others are computed."""
    folder = shutil.move("half_map", ".partial-map.tif")
    done = [path for path in Path(folder).rglob("*") if path.is_file() and path.parent.name == "parts"]
    assert len(done) == 2
    states, shown, written = set(), [], {}

    def look(_, inputs, __):
        states.add(tuple((path.stat().st_ino, path.stat().st_mtime_ns) for path in done))
        if not isinstance(inputs[0], FakeTensor):  # of which the memory is derived
            shown.append(len(inputs[0]))

    def replace(path, target, replaced=Path.replace):
        if is_unfinished(path.name):  # the job's notes, which are gone in the end
            written[Path(target).name] = json.loads(path.read_text())
        return replaced(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    expected = (tuple((path.stat().st_ino, path.stat().st_mtime_ns) for path in done),)
    model = PixelClassifier.from_model("model")
    told = json.loads(Path(folder, "job.json").read_text())
    model.model.network.register_forward_hook(look)
    classify_pixels("scene.tif", model, "map.tif", **MAP)
    assert tuple(states) == expected
    require_same("formats", "tiles of half a map", sum(shown))
    assert sum(shown) < 156 / 2
    assert tags("map.tif")["GEOPSP_JOB"] == told["key"]
    assert written["job.json"] == told
    require_same("formats", "job.json", written["job.json"])
    assert written["publish"] == {"key": told["key"], "places": [str(Path("map.tif").absolute())]}
    assert not Path(folder).exists()
    require_like(pixels("map.tif")[0], "scene")


def test_a_run_s_notes_and_checkpoints(place):
    """Old chips and an old model train on; what `resume` compares and what Lightning keeps have their old names."""
    data = prepare_data("chips", split="random", val_split_pct=0.25, batch_size=4, workers=0, cache="cache")
    model = PSPNetClassifier.from_model("model", data, device="cpu")
    before = len(model.history)
    model.fit(1, (1e-5, 1e-4), early_stopping=True, ema=0.9, precision="fp32", folder="run")
    require_same("formats", "run.json", json.loads(Path("run/run.json").read_text()))
    checkpoint = torch.load("run/last.ckpt", map_location="cpu", weights_only=True)
    require_same("formats", "state keys", sorted(key.partition("{")[0] for key in checkpoint["callbacks"]))
    assert set(checkpoint["state_dict"]) == {f"network.{name}" for name in model.model.network.state_dict()}
    assert list(checkpoint["callbacks"]["Journal"]) == ["rows"]
    assert len(model.history) == before + 1
    require_same("formats", "history", list(model.history.columns))
    require_same("formats", "a run's files", sorted(path.name for path in Path("run").iterdir()))
    model.save("new")
    told = json.loads(Path("new/model.json").read_text())
    require_same("formats", "model.json", tree(told))
    require_same("formats", "a training in model.json", told["settings"]["runs"][-1])
    (stamp,) = Path("cache").rglob("cache.json")
    require_same("formats", "cache.json", tree(json.loads(stamp.read_text())))
    require_same("formats", "cache", sorted(path.name for path in stamp.parent.iterdir()))


def test_tensors_of_networks(classifiers):
    """Their names are the keys of saved weights."""
    found = {
        name: {
            key: list(tensor.shape)
            for key, tensor in classifier.model.network.state_dict().items()
            if not key.startswith("encoder.") or name == "UnetClassifier"  # one encoder is like another
        }
        for name, classifier in classifiers.items()
        if name not in {"defaults", "nothing said"}
    }
    require_same("networks", "tensors", found)
    specs = {name: classifier.model.spec.to_json() for name, classifier in classifiers.items()}
    require_same("networks", "architectures", specs)
    assert all(ModelSpec.from_json(spec) == classifiers[name].model.spec for name, spec in specs.items())
    require_same("networks", "losses", classifiers["nothing said"].model.losses.to_json())
    for part in (specs, {name: classifier.model.losses.to_json() for name, classifier in classifiers.items()}):
        assert part["defaults"] == part["nothing said"]


def test_networks_of_earlier_versions_are_what_they_were():
    """Their descriptions have no decoder width; they, and thus the fingerprints of models, stay the same."""
    earlier = json.loads((GOLDEN / "networks.json").read_text(encoding="utf-8"))
    for name, description in earlier["earlier architectures"].items():
        spec = ModelSpec.from_json(description)
        assert json.loads(json.dumps(spec.to_json())) == description, name
        if tensors := earlier["earlier tensors"].get(name):
            state = build_network(spec).state_dict()
            assert {key: list(state[key].shape) for key in tensors} == tensors, name
            assert all(key in tensors or key.startswith("encoder.") for key in state), name


# Public names


def shape(function):
    """What it is called with: arguments by position in their order, and all that it takes by name, with defaults."""
    by_place, by_name = [], {}
    for parameter in inspect.signature(function).parameters.values():
        default = REQUIRED if parameter.default is parameter.empty else repr(parameter.default)
        if parameter.name == "self" or parameter.name.startswith("_"):
            continue
        if parameter.kind == parameter.VAR_KEYWORD:
            by_name |= dict.fromkeys(option_names(function, parameter), UNTOLD)
        elif parameter.kind == parameter.KEYWORD_ONLY:
            by_name[parameter.name] = default
        else:
            star = "*" if parameter.kind == parameter.VAR_POSITIONAL else ""
            by_place.append([star + parameter.name, default])
    return {"by place": by_place, "by name": dict(sorted(by_name.items()))}


def option_names(function, parameter):
    """The keys of the TypedDict of which **parameter is."""
    function = inspect.unwrap(function.__init__ if inspect.isclass(function) else function)
    annotation = parameter.annotation
    if isinstance(annotation, str):
        annotation = eval(annotation, function.__globals__)
    (options,) = get_args(annotation)
    return options.__annotations__


def members(kind):
    """The public methods, properties and fields of a class."""
    found = {}
    for name in dir(kind):
        static = inspect.getattr_static(kind, name)
        if name.startswith("_"):
            continue
        if isinstance(static, classmethod | staticmethod) or inspect.isfunction(static):
            found[name] = shape(getattr(kind, name))
        elif isinstance(static, property):
            found[name] = "property"
        elif is_dataclass(kind) and name in kind.__dataclass_fields__:
            found[name] = "field"
    return found


def require_callable_as(name, found, expected):
    """It can be called as ever, and what had a default has the same one."""
    assert found["by place"] == expected["by place"], name
    assert set(found["by name"]) == set(expected["by name"]), name
    for option, default in expected["by name"].items():
        now = found["by name"][option]
        if UNTOLD not in (default, now):
            assert now == default, f"{name}({option}=)"
        elif now != UNTOLD and option in MEANT:  # since then an argument of its own
            assert now == repr(MEANT[option]), f"{name}({option}=)"


def require_members(name, found, expected):
    """All that there was is there; there may be more."""
    for member, how in expected.items():
        assert member in found, f"{name}.{member}"
        if isinstance(how, dict):
            require_callable_as(f"{name}.{member}", found[member], how)
        else:  # whether it is stored or computed is nobody's business
            assert found[member] in {"property", "field"}, f"{name}.{member}"


def test_public_names():
    assert sorted(geopsp.__all__) == golden("public_names", "names", sorted(geopsp.__all__))


def test_arguments_of_public_functions_and_classes():
    public = {name: getattr(geopsp, name) for name in geopsp.__all__ if name not in {"__version__", "GeopspError"}}
    found = {name: shape(each) for name, each in public.items()}
    expected = golden("public_names", "arguments", found)
    assert found.keys() == expected.keys()
    for name in expected:
        require_callable_as(name, found[name], expected[name])


def test_members_of_public_classes():
    found = {name: members(each) for name in geopsp.__all__ if inspect.isclass(each := getattr(geopsp, name))}
    del found["GeopspError"]
    expected = golden("public_names", "members", found)
    assert found.keys() == expected.keys()
    for name in expected:
        require_members(name, found[name], expected[name])


def test_members_of_what_public_objects_hand_out(place):
    scene, chips, model = Scene.open("field.tif"), ChipSet.open("chips"), PixelClassifier.from_model("model")
    objects = {
        "classifier.model": model.model,
        "chips.statistics": chips.statistics,
        "scene.grid": scene.grid,
        "scene.grid.window": scene.grid.window,
        "scene.read()": scene.read(),
        "scene.sources[0]": scene.sources[0],
    }
    found = {name: members(type(each)) for name, each in objects.items()}
    expected = golden("public_names", "handed out", found)
    for name in expected:
        require_members(name, found[name], expected[name])


def test_errors():
    """`geopsp.errors` stays where it is."""
    errors = importlib.import_module("geopsp.errors")
    found = {
        name: [base.__name__ for base in each.__mro__[1:-1]]
        for name, each in vars(errors).items()
        if inspect.isclass(each)
    }
    require_same("public_names", "errors", found)


# The shell


def plain(value):
    """A default as JSON has it; None for what click says in its own words."""
    return value if isinstance(value, str | int | float | bool | list | tuple | None) else None


def declared(parameter):
    """All of an option or argument but its words."""
    told = parameter.to_info_dict()
    return {
        "spelt": [spelling(parameter), *parameter.opts[1:], *parameter.secondary_opts],
        "type": parameter.type.name,
        "choices": list(getattr(parameter.type, "choices", ())),
        "default": plain(told["default"]),
        "required": parameter.required,
        "multiple": parameter.multiple,
        "nargs": parameter.nargs,
        "flag": told.get("is_flag", False),
        "flag_value": plain(told.get("flag_value")),
        "is_parsed": parameter.callback is not None,
    }


def spelling(parameter):
    """The first name of an option, or what stands for an argument in the help."""
    if parameter.param_type_name == "argument":
        return parameter.metavar or parameter.name.upper()
    return parameter.opts[0]


def test_options_of_the_shell():
    """They may be put in another order, but for arguments, which have no other name than their place."""
    found = {
        name: {spelling(each): declared(each) for each in command.params}
        for name, command in {**main.commands, "geopsp": main}.items()
    }
    require_same("shell_options", "options", found)
    places = {
        name: [spelling(each) for each in command.params if each.param_type_name == "argument"]
        for name, command in main.commands.items()
    }
    require_same("shell_options", "arguments", places)


def test_words_of_the_shell():
    """Words may be bettered: see above for how these are then written anew."""
    found = {
        name: {
            "": command.help,
            **{
                spelling(each): {"help": each.help, "metavar": each.metavar, "shows default": bool(each.show_default)}
                for each in command.params
                if each.param_type_name == "option"
            },
        }
        for name, command in {**main.commands, "geopsp": main}.items()
    }
    require_same("shell_options", "words", found)


def test_nothing_golden_names_the_machine_that_it_was_made_on():
    for path in GOLDEN.rglob("*"):
        if path.is_file() and path.suffix != ".py":
            content = path.read_bytes()
            assert not any(word in content for word in (b"/tmp", b"/work", b"/root", b"/home", b"/Users")), path
