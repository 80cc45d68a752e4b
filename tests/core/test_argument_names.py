"""A name that does not exist is an error that suggests the one that was meant."""

from __future__ import annotations

import inspect

import pytest

import geopsp
from geopsp.core.argument_names import SYNONYMS, checks_names, require_known, suggest_names
from geopsp.core.options import option_fields
from geopsp.errors import OptionError


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
