"""Options stand in one place: signatures, docstrings, shell, checks and reference page follow the dataclasses."""

from __future__ import annotations

import importlib.util
import inspect
import json
import typing
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import get_args

import click
import numpy as np
import pytest

import geopsp
from geopsp.active_learning.options import SuggestOptions
from geopsp.assessment.accuracy.assess_options import AssessOptions
from geopsp.assessment.change.change_options import ChangeOptions
from geopsp.assessment.comparison.comparison_options import ComparisonOptions
from geopsp.assessment.sampling.sample_options import SampleOptions
from geopsp.chips.options import CUTTING, Background, ChipSpec, ExportOptions, ImageOptions, LabelOptions
from geopsp.cli import main
from geopsp.cli.options import ShellOption, flag_names, options_of, take
from geopsp.core.options import check_fields, describes, info_of, option, option_fields
from geopsp.errors import OptionError
from geopsp.export.options import ExportOptions as ModelExportOptions
from geopsp.inference.classify_pixels import classify_pixels
from geopsp.inference.options import MapOptions, MapSettings
from geopsp.labels.class_table import Background as LabelBackground
from geopsp.labels.read_labels import read_labels
from geopsp.models import spec
from geopsp.models.crf import CRFOptions
from geopsp.models.decoder import MIN_WIDTH
from geopsp.models.loss_options import LossSpec
from geopsp.models.manifest import MAX_DECODER_WIDTH
from geopsp.polygons.options import PolygonOptions, PolygonSettings, PolygonSettingsDict
from geopsp.raster.open_scenes import open_scenes
from geopsp.training.classifier import PixelClassifier
from geopsp.training.networks import CLASSIFIERS, DEEPLABS
from geopsp.training.options import (
    MIN_CHIP_SIZE,
    NETWORKS,
    DataOptions,
    FitOptions,
    ModelOptions,
    RunConfig,
)
from geopsp.training.presets import DEEPLAB_VERSIONS, DeepLabOptions, PSPNetOptions

NETWORK = (ModelOptions, LossSpec)
FUNCTIONS = {
    "assess_map": (geopsp.assess_map, (AssessOptions,), {"class_map", "reference"}),
    "export_training_data": (
        geopsp.export_training_data,
        (*CUTTING, ExportOptions),
        {"images", "labels", "out", "progress"},
    ),
    "prepare_data": (geopsp.prepare_data, (*CUTTING, DataOptions), {"path", "images", "labels"}),
    "PSPNetClassifier": (geopsp.PSPNetClassifier.__init__, (*NETWORK, PSPNetOptions), {"self", "data"}),
    "FCNClassifier": (geopsp.FCNClassifier.__init__, NETWORK, {"self", "data"}),
    "UnetClassifier": (geopsp.UnetClassifier.__init__, NETWORK, {"self", "data"}),
    "DeepLab": (geopsp.DeepLab.__init__, (*NETWORK, DeepLabOptions), {"self", "data"}),
    "fit": (PixelClassifier.fit, (FitOptions, RunConfig), {"self"}),
    "export": (PixelClassifier.export, (ModelExportOptions,), {"classifier", "path", "format"}),
    "classify_pixels": (classify_pixels, (MapOptions,), {"images", "model", "out"}),
    "CRFOptions": (CRFOptions, (CRFOptions,), set()),
    "suggest_chips": (geopsp.suggest_chips, (SuggestOptions,), {"model", "images", "out"}),
    "raster_to_polygons": (geopsp.raster_to_polygons, (PolygonOptions,), {"raster", "out"}),
    "compare_maps": (geopsp.compare_maps, (ChangeOptions,), {"map_a", "map_b", "out"}),
    "compare_models": (geopsp.compare_models, (ComparisonOptions,), {"model_a", "model_b", "chips"}),
    "draw_sample": (geopsp.draw_sample, (SampleOptions,), {"class_map", "out"}),
}
"""Public functions and constructors, the dataclasses of their options, and what else they take."""

WIDER = {"ignore_classes": "Sequence[str]", "folder": "str | Path | None"}
"""Types in signatures that take more than the field holds."""

COMMANDS = {
    "assess": (AssessOptions,),
    "chips": (*CUTTING, ExportOptions),
    "train": (*CUTTING, DataOptions, *NETWORK, PSPNetOptions, DeepLabOptions, FitOptions, RunConfig),
    "export": (ModelExportOptions,),
    "predict": (MapOptions, CRFOptions, PolygonSettings),
    "polygonize": (PolygonOptions,),
    "suggest": (SuggestOptions, PolygonSettings),
    "change": (ChangeOptions,),
    "compare": (ComparisonOptions,),
    "sample": (SampleOptions,),
}


def parameters(function, without=()):
    return {name: each for name, each in inspect.signature(function).parameters.items() if name not in without}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_are_the_fields(name):
    """With the same defaults and types, and nothing else."""
    function, classes, others = FUNCTIONS[name]
    found, known = parameters(function, others), option_fields(*classes)
    assert set(found) == set(known)
    for option_name, entry in known.items():
        parameter = found[option_name]
        assert repr(parameter.default) == repr(entry.default), option_name
        assert parameter.annotation == WIDER.get(option_name, entry.type), option_name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_name_every_option(name):
    function, classes, _ = FUNCTIONS[name]
    lines = [line.strip() for line in inspect.getdoc(function).splitlines()]
    assert "{options}" not in lines
    for option_name, entry in option_fields(*classes).items():
        (line,) = (line for line in lines if line.startswith(f"{option_name}: "))
        assert " ".join(info_of(entry).help.split()[:3]).rstrip(".") in line


def test_the_base_class_takes_what_all_networks_take():
    known = option_fields(*NETWORK)
    del known["backbone"], known["aux_loss"]  # the description of the network has them
    found = parameters(PixelClassifier.__init__, {"self", "data", "spec"})
    assert {name: repr(each.default) for name, each in found.items()} == {n: repr(e.default) for n, e in known.items()}


def test_no_public_function_takes_unnamed_options():
    for name in geopsp.__all__:
        each = getattr(geopsp, name)
        if callable(each) and name != "GeopspError":
            kinds = {parameter.kind for parameter in inspect.signature(each).parameters.values()}
            assert inspect.Parameter.VAR_KEYWORD not in kinds, name


def test_overloads_are_the_function_itself():
    whole = parameters(classify_pixels, {"per_image"})
    overloads = typing.get_overloads(inspect.unwrap(classify_pixels))
    assert len(overloads) == 2
    for each in overloads:
        assert parameters(each, {"per_image"}) == whole


@pytest.mark.parametrize(
    ("function", "cls", "without"), [(read_labels, LabelOptions, {"aoi"}), (open_scenes, ImageOptions, set())]
)
def test_readers_have_the_same_defaults(function, cls, without):
    found = parameters(function, {"images", "labels", "like"})
    known = {name: entry for name, entry in option_fields(cls).items() if name not in without}
    assert {name: each.default for name, each in found.items()} == {n: e.default for n, e in known.items()}


@pytest.mark.parametrize("name", ["export_training_data", "classify_pixels"])
def test_choices_are_those_of_the_types(name):
    function, classes, _ = FUNCTIONS[name]
    for entry in option_fields(*classes).values():
        choices = info_of(entry).choices
        if choices and entry.type not in {"int", "str"}:
            assert choices == get_args(eval(entry.type, inspect.unwrap(function).__globals__))


def test_numbers_that_stand_twice_are_the_same():
    """Where a heavy module has them, too."""
    known = option_fields(ModelOptions, PSPNetOptions)
    assert MIN_CHIP_SIZE == spec.MIN_TILE
    assert known["pyramid_sizes"].default == spec.PYRAMID_SIZES
    assert info_of(known["decoder_width"]).maximum == MAX_DECODER_WIDTH
    assert info_of(known["decoder_width"]).minimum == MIN_WIDTH
    assert info_of(known["decoder_stride"]).choices == spec.DECODER_STRIDES
    assert info_of(known["output_stride"]).choices == tuple(spec.ATROUS_RATES)
    assert info_of(known["encoder_depth"]).choices == spec.DEPTHS
    assert {"none", *info_of(known["aux"]).choices} == set(spec.AUX_HEADS)
    assert get_args(Background) == get_args(LabelBackground)
    assert tuple(CLASSIFIERS) == NETWORKS
    assert tuple(DEEPLABS) == DEEPLAB_VERSIONS


def test_the_dict_of_polygon_options_has_the_fields():
    assert PolygonSettingsDict.__annotations__.keys() == option_fields(PolygonSettings).keys()
    for entry in fields(PolygonSettings):
        assert PolygonSettingsDict.__annotations__[entry.name].__forward_arg__ == entry.type


@pytest.mark.parametrize("command", COMMANDS)
def test_the_shell_has_every_option(command):
    flags = {each.name: each for each in main.commands[command].params if isinstance(each, ShellOption)}
    for name, entry in option_fields(*COMMANDS[command]).items():
        if flag_names(entry) and name != "overwrite":
            assert "/".join(flag_names(entry)) == "/".join([*flags[name].opts, *flags[name].secondary_opts])


def test_defaults_can_be_built():
    for cls in (
        *CUTTING,
        ExportOptions,
        DataOptions,
        *NETWORK,
        PSPNetOptions,
        DeepLabOptions,
        FitOptions,
        RunConfig,
        MapOptions,
    ):
        made = cls()
        for name, entry in option_fields(cls).items():
            assert entry.default is not MISSING
            assert getattr(made, name) == entry.default


def test_options_come_back_from_json():
    losses = LossSpec(True, True, 0.5, "macro", ignore_classes=("water",))
    assert LossSpec.from_json(json.loads(json.dumps(losses.to_json()))) == losses
    options = FitOptions(3, (1e-4, 1e-3), clip=float("inf"), seed=7)
    saved = json.loads(json.dumps(options.to_json()))
    assert FitOptions(**{**saved, "lr": tuple(saved["lr"])}) == options
    assert FitOptions(lr=0.1).rates == (0.1, 0.1)


def test_an_old_loss_with_numbers_for_switches():
    assert LossSpec.from_json({"focal_loss": 1, "class_balancing": 0}) == LossSpec(
        focal_loss=True, boundary_weight=0, class_weight_power=0
    )


def test_settings_are_the_part_that_decides_pixels():
    options = MapOptions(tile_size=np.int64(64), polygons="a.gpkg", polygon_options={"smooth": 2}, overwrite=True)
    assert options.settings == MapSettings(tile_size=64)
    assert type(options.settings) is MapSettings
    assert options.polygon_settings == PolygonSettings(smooth=2)


@dataclass(frozen=True, slots=True)
class MoreSettings(PolygonSettings):
    wobble: int = option(3, "Wobbles of an outline. None: see `simplify`.", minimum=1, maximum=9, unit="wobbles")

    def __post_init__(self):
        check_fields(self)


def test_a_new_field_is_everywhere():
    """In the shell, the checks, docstrings and the reference page."""

    @click.command()
    @options_of(MoreSettings)
    def command(**options):
        click.echo(take(options, MoreSettings))

    found = {each.name: each for each in command.params}["wobble"]
    assert (found.opts, found.type, found.default) == (["--wobble"], click.INT, 3)
    assert "--simplify" in found.help
    with pytest.raises(OptionError, match=r"`wobble` is 0, but must be a whole number from 1 to 9 \(wobbles\)"):
        MoreSettings(wobble=0)
    assert "| `wobble` | `--wobble` | `int` | `3` | 1 to 9 | wobbles | Wobbles of" in make_options().table(MoreSettings)

    @describes(MoreSettings)
    def function(*, wobble: int = 3) -> None:
        """Do it.

        {options}
        """

    assert "wobble: Wobbles of an outline" in function.__doc__


def make_options():
    path = Path(__file__).parents[1] / "docs" / "make_options.py"
    spec = importlib.util.spec_from_file_location("make_options", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_page_is_up_to_date():
    """Otherwise: `python docs/make_options.py`."""
    module = make_options()
    assert module.PAGE.read_text(encoding="utf-8") == module.page()


def test_every_option_is_on_the_reference_page():
    used = {cls for _, classes, _ in FUNCTIONS.values() for cls in classes}
    assert {cls for _, _, classes in make_options().GROUPS for cls in classes} == used


def test_only_what_changed_is_an_option_of_an_export():
    from geopsp.chips.options import changed_options

    options = {name: entry.default for name, entry in option_fields(*CUTTING).items()}
    assert changed_options(options) == {}
    assert changed_options(options | {"stride": 5, "buffer": 0, "order": None}) == {"stride": 5, "buffer": 0}
    assert ChipSpec(tile_size=np.int32(64)).tile_size.__class__ is int
