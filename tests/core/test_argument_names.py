"""A name that does not exist is an error that suggests the one that was meant."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pandas as pd
import pytest

import geopsp
from geopsp.assessment.accuracy.assessed_points import require_field
from geopsp.assessment.accuracy.reference_classes import match_classes
from geopsp.assessment.sampling.reference_values import as_class_names
from geopsp.core.argument_names import (
    SYNONYMS,
    checks_names,
    did_you_mean,
    did_you_mean_one,
    near_name,
    require_known,
    suggest_names,
)
from geopsp.core.bands import match_bands
from geopsp.core.file_endings import require_ending
from geopsp.core.legend import Legend
from geopsp.core.options import option_fields, require_choice
from geopsp.errors import GeopspError, OptionError
from geopsp.labels.class_mapping import ClassTarget
from geopsp.labels.class_table import _targets
from geopsp.models.encoder import encoder_family
from geopsp.models.loss_options import LossSpec
from geopsp.models.weights import read_weights
from geopsp.polygons.options import PolygonSettings
from geopsp.vector.formats import format_of


def test_an_unknown_name_suggests_the_nearest():
    known = ["batch_size", "tile_size", "aoi"]
    require_known(["aoi", "tile_size"], iter(known), "prepare_data()")
    with pytest.raises(OptionError) as caught:
        require_known(["aoi", "batchsize"], known, "prepare_data()")
    assert str(caught.value) == "prepare_data() has no option `batchsize`. Did you mean `batch_size`?"
    with pytest.raises(OptionError) as caught:
        require_known(["x"], known, "`polygon_options`")
    assert str(caught.value) == ("`polygon_options` has no option `x`. The options are batch_size, tile_size, aoi.")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: geopsp.prepare_data("chips", batchsize=8),
            r"prepare_data\(\) has no option `batchsize`.*`batch_size`",
        ),
        (lambda: geopsp.classify_pixels("a", "b", "c", tta=True), r"`tta`. Did you mean `test_time_augmentation`"),
        (lambda: geopsp.export_training_data("a", "b", "c", class_value_field="x"), "Did you mean `class_field`"),
        (lambda: geopsp.raster_to_polygons("a", "b", tolerance=1), "Did you mean `simplify`"),
        (lambda: geopsp.PSPNetClassifier(None, encoder="resnet18"), r"PSPNetClassifier\(\).*Did you mean `backbone`"),
        (lambda: geopsp.UnetClassifier(None, bacbone="x"), r"^UnetClassifier\(\).*Did you mean `backbone`"),
        (lambda: geopsp.prepare_data("chips", learning_rate=8), "no option `learning_rate`. The options are path,"),
    ],
)
def test_public_functions_suggest_a_name(call, says):
    with pytest.raises(OptionError, match=says):
        call()


def test_a_synonym_leads_to_an_option_and_is_none_itself():
    from geopsp.chips.options import CUTTING, ExportOptions
    from geopsp.inference.options import MapOptions
    from geopsp.models.loss_options import LossSpec
    from geopsp.polygons.options import PolygonOptions, PolygonSettings
    from geopsp.training.options import DataOptions, FitOptions, ModelOptions, RunConfig
    from geopsp.training.presets import DeepLabOptions, PSPNetOptions

    classes = (*CUTTING, ExportOptions, MapOptions, LossSpec, PolygonOptions, PolygonSettings, DataOptions, FitOptions,
               ModelOptions, PSPNetOptions, DeepLabOptions, RunConfig)  # fmt: skip
    known = option_fields(*classes)
    assert not {name for name in SYNONYMS if name in known}
    assert not {name for names in SYNONYMS.values() for name in names.split()} - set(known)
    assert suggest_names("overlap", ["stride", "seed"]) == ["stride"]


def test_a_checked_function_stays_what_it_was():
    def bake(tile: int, *, quick: bool = False) -> int:
        """Bake."""
        return tile * (1 + quick)

    checked = checks_names(bake)
    assert (checked(2, quick=True), checked.__doc__, checked.__name__) == (4, "Bake.", "bake")
    assert inspect.signature(checked) == inspect.signature(bake)


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("bilding", ["building", "water"], "building"),
        ("WATER", ["building", "Water"], "Water"),
        ("Stra\u00dfen", ["Stra\u00dfe", "Wald"], "Stra\u00dfe"),
        ("best", ["given", "newest"], None),
        ("x", [], None),
        (3, [1, 2], None),
        (2021, [2020, 1999], "2020"),
    ],
)
def test_a_name_that_is_near(name, known, near):
    assert near_name(name, known) == near
    assert did_you_mean(name, known) == (f" Did you mean {near!r}?" if near else "")
    assert did_you_mean_one([name], known) == did_you_mean(name, known)


def test_of_several_unknown_names_the_one_with_a_near_name_is_said():
    assert did_you_mean_one(["zzz", "watr"], ["water"]) == " For 'watr', did you mean 'water'?"
    assert did_you_mean_one(["zzz", "qqq"], ["water"]) == ""
    assert did_you_mean_one([], ["water"]) == ""


def test_a_large_layer_is_not_searched_to_its_end():
    assert near_name("watr", (f"name {number}" if number else "water" for number in range(10**9))) == "water"


LEGEND = Legend.from_names({0: "background", 1: "building", 2: "water"})


@pytest.mark.parametrize(
    ("refuse", "near"),
    [
        (lambda: LossSpec(ignore_classes=("watr",)).for_legend(LEGEND), "water"),
        (lambda: LEGEND.code_of("bilding"), "building"),
        (lambda: require_choice("design", "simpl", ["stratified", "simple"]), "simple"),
        (lambda: format_of("a.gpgk"), ".gpkg"),
        (lambda: require_ending("a.jsno", ".json", ".csv"), ".json"),
        (lambda: read_weights(Path("seco-s2-rbg")), "seco-s2-rgb"),
        (lambda: encoder_family("resnt50"), "resnet50"),
        (lambda: match_bands(("nir",), ("red", "nir1"), where="x"), "nir1"),
        (lambda: require_field(["class", "id"], "clas", "x"), "class"),
        (lambda: match_classes(["Watr", "water"], LEGEND.classes, "x"), "water"),
        (lambda: match_classes(["Watr"], LEGEND.classes, "x"), "water"),
        (lambda: as_class_names(pd.Series(["watr"]), LEGEND.classes, "x"), "water"),
        (lambda: _targets(["a", "water"], {"watr": ClassTarget("w")}, "x"), "water"),
        (lambda: PolygonSettings(keep=["bilding"]).selected_codes(LEGEND), "building"),
    ],
)
def test_wherever_a_name_of_a_known_set_is_refused_the_near_one_is_said(refuse, near):
    with pytest.raises(GeopspError, match=rf"[Dd]id you mean '{re.escape(near)}'\?"):
        refuse()
