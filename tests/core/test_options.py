"""Options are checked, named, described and picked by what their fields say."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geopsp.core.options import (
    OptionInfo,
    check_fields,
    describes,
    from_names,
    help_text,
    info_of,
    option,
    option_fields,
    require_bool,
    require_choice,
    require_int,
    require_number,
    require_path,
    require_text,
)
from geopsp.errors import OptionError


@dataclass(frozen=True, slots=True)
class Baking:
    oven: Path = field(default=Path("oven"))
    tile: int | None = option(None, "Side of a tile. None: as in training.", minimum=32, maximum=1024, unit="pixels")
    overlap: int = option(8, "Overlap.", minimum=0)
    fraction: float = option(0.5, "Weight of the first loss, from 0 to 1.", minimum=0, maximum=1)
    rate: float | None = option(None, "Learning rate.", above=0, below=1)
    quick: bool = option(False, "Be quick.", flag="--fast")
    precision: Literal["auto", "fp32"] = option("auto", "Precision.", choices=("auto", "fp32"))
    order: str | None = option(None, "Order of images.", choices=("given", "newest"))
    connectivity: int = option(4, "4 or 8 neighbours.", choices=(4, 8))
    title: str = option("map", "Title.")
    out: str | Path | None = option(None, "File.")
    bands: Sequence[str] = option((), "Bands.")

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("bounds", "whole", "words"),
    [
        ({}, True, "a whole number"),
        ({}, False, "a number"),
        ({"minimum": 1, "maximum": 8}, True, "a whole number from 1 to 8"),
        ({"minimum": 0}, True, "a whole number of at least 0"),
        ({"maximum": 5}, False, "a number of at most 5"),
        ({"above": 0}, False, "a number above 0"),
        ({"below": 0.5}, False, "a number below 0.5"),
        ({"above": 0, "maximum": 1}, False, "a number above 0 and at most 1"),
        ({"minimum": 0, "below": 1}, False, "a number of at least 0 and below 1"),
        ({"above": -1, "below": 1}, False, "a number above -1 and below 1"),
        ({"minimum": 32, "maximum": 2**20 + 1}, True, "a whole number from 32 to 1048577"),
    ],
)
def test_ranges_in_words(bounds, whole, words):
    assert OptionInfo(help="", **bounds).allowed(whole=whole) == words


@given(
    value=st.floats(),
    low=st.sampled_from([None, "minimum", "above"]),
    high=st.sampled_from([None, "maximum", "below"]),
    infinite=st.booleans(),
)
def test_a_range_holds_what_its_bounds_say(value, low, high, infinite):
    bounds = ({low: -2.5} if low else {}) | ({high: 7} if high else {})
    inside = not np.isnan(value) and (infinite or abs(value) != float("inf"))
    inside &= {None: value != float("-inf"), "minimum": value >= -2.5, "above": value > -2.5}[low]
    inside &= {None: True, "maximum": value <= 7, "below": value < 7}[high]
    assert OptionInfo(help="", infinite=infinite, **bounds).holds(value) == inside


GOOD = [
    {},
    {"tile": None},
    {"tile": 32},
    {"tile": np.int64(1024)},
    {"fraction": 1},
    {"fraction": np.float32(0.25)},
    {"rate": None},
    {"rate": 0.5},
    {"quick": True},
    {"precision": "fp32"},
    {"order": None},
    {"connectivity": np.uint8(8)},
    {"out": "a.tif"},
    {"out": Path("a.tif")},
    {"bands": ["red"]},
]


@pytest.mark.parametrize("options", GOOD, ids=str)
def test_what_is_allowed(options):
    made = Baking(**options)
    for name, value in options.items():
        found = getattr(made, name)
        assert found == value
        assert not isinstance(found, np.generic), "numbers can be written as JSON"


BAD = [
    ({"tile": 31}, "`tile` is 31, but must be a whole number from 32 to 1024 (pixels), or None."),
    ({"tile": 64.0}, "`tile` is 64.0, but must be a whole number from 32 to 1024 (pixels), or None."),
    ({"tile": True}, "`tile` is True, but must be a whole number from 32 to 1024 (pixels), or None."),
    ({"tile": "64"}, "`tile` is '64', but must be a whole number from 32 to 1024 (pixels), or None."),
    ({"overlap": None}, "`overlap` is None, but must be a whole number of at least 0."),
    ({"overlap": -1}, "`overlap` is -1, but must be a whole number of at least 0."),
    ({"fraction": 1.5}, "`fraction` is 1.5, but must be a number from 0 to 1."),
    ({"fraction": float("nan")}, "`fraction` is nan, but must be a number from 0 to 1."),
    ({"fraction": False}, "`fraction` is False, but must be a number from 0 to 1."),
    ({"fraction": 0.5j}, "`fraction` is 0.5j, but must be a number from 0 to 1."),
    ({"rate": 0}, "`rate` is 0, but must be a number above 0 and below 1, or None."),
    ({"rate": 1.0}, "`rate` is 1.0, but must be a number above 0 and below 1, or None."),
    ({"quick": 1}, "`quick` is 1, but must be True or False."),
    ({"quick": None}, "`quick` is None, but must be True or False."),
    ({"precision": "fp16"}, "`precision` is 'fp16', but must be one of 'auto', 'fp32'."),
    ({"precision": None}, "`precision` is None, but must be one of 'auto', 'fp32'."),
    ({"precision": ["auto"]}, "`precision` is ['auto'], but must be one of 'auto', 'fp32'."),
    ({"order": "best"}, "`order` is 'best', but must be one of 'given', 'newest', or None."),
    ({"connectivity": 5}, "`connectivity` is 5, but must be one of 4, 8."),
    ({"connectivity": True}, "`connectivity` is True, but must be one of 4, 8."),
    ({"title": ""}, "`title` is '', but must be a text that is not empty."),
    ({"title": 5}, "`title` is 5, but must be a text that is not empty."),
    ({"out": 5}, "`out` is 5, but must be the path of a file or folder, or None."),
    ({"out": ""}, "`out` is '', but must be the path of a file or folder, or None."),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=str)
def test_what_is_not_allowed(options, message):
    with pytest.raises(OptionError) as caught:
        Baking(**options)
    assert str(caught.value) == message


def test_an_array_is_no_choice():
    """Whose comparison is no truth value."""
    with pytest.raises(OptionError, match="must be one of"):
        Baking(precision=np.array(["auto", "auto"]))


def test_types_may_be_evaluated():
    """As in a module without `from __future__ import annotations`."""
    evaluated = make_dataclass(
        "Evaluated", [("n", int | None, option(1, "n", minimum=1)), ("b", bool, option(True, ""))]
    )
    check_fields(evaluated())
    for wrong in ({"n": 0}, {"n": "1"}, {"b": 1}):
        with pytest.raises(OptionError):
            check_fields(evaluated(**wrong))


def test_single_values():
    require_int("n", 3, minimum=3)
    require_number("x", np.float64(0.5), above=0)
    require_bool("b", False)
    require_text("t", "a")
    require_path("p", Path("a"))
    require_choice("c", "a", iter("ab"))
    for optional in (require_text, require_path):
        optional("o", None, optional=True)
    require_choice("c", None, "ab", optional=True)
    for check, value, options, words in (
        (
            require_int,
            2,
            {"minimum": 3, "unit": "px"},
            "`v` is 2, but must be a whole number of at least 3 (px).",
        ),
        (require_number, np.inf, {}, "`v` is inf, but must be a number."),
        (require_bool, 0, {}, "`v` is 0, but must be True or False."),
        (require_choice, "c", {"choices": iter("ab")}, "`v` is 'c', but must be one of 'a', 'b'."),
    ):
        with pytest.raises(OptionError) as caught:
            check("v", value, **options)
        assert str(caught.value) == words


def test_fields_that_are_no_options_are_left_out():
    assert list(option_fields(Baking)) == [name for name in Baking.__dataclass_fields__ if name != "oven"]
    info = info_of(option_fields(Baking)["tile"])
    assert (info.minimum, info.maximum, info.unit) == (32, 1024, "pixels")
    assert info_of(Baking.__dataclass_fields__["oven"]) is None


def test_options_are_picked_by_name():
    def bake(image, tile=None, fraction=0.5):
        return from_names(Baking, locals())

    assert bake("a.tif", tile=64) == Baking(tile=64)
    assert from_names(Baking, json.loads('{"quick": true, "oven": "x", "else": 1}')) == Baking(quick=True)


def test_a_docstring_is_filled():
    @describes(Baking, endings=".tif or .png")
    def bake(image: str, *, tile: int | None = None, precision: str = "auto", quick: bool = False) -> None:
        """Bake an image.

        Args:
            image: The image, {endings}.
            {options}

        Raises:
            OptionError: if an option is out of range.
        """

    assert inspect.getdoc(bake).splitlines()[2:8] == [
        "Args:",
        "    image: The image, .tif or .png.",
        "    tile: Side of a tile (pixels). None: as in training.",
        "    precision: Precision. One of 'auto', 'fp32'.",
        "    quick: Be quick.",
        "",
    ]


def test_long_help_is_wrapped():
    options = make_dataclass("Options", [("tile", int, option(1, "word " * 60))])

    @describes(options)
    def bake(tile: int) -> None:
        """Bake.

        {options}
        """

    first, *others = inspect.getdoc(bake).splitlines()[2:]
    assert first.startswith("tile: word")
    assert all(line.startswith("    word") for line in others)
    assert 100 < max(map(len, bake.__doc__.splitlines())) <= 120


def test_a_function_without_a_docstring_stays_without():
    @describes(Baking)
    def bake(tile: int) -> int:
        return tile

    assert not bake.__doc__
    assert bake(3) == 3


@pytest.mark.parametrize(
    ("info", "text"),
    [
        ({"help": "Side in pixels.", "unit": "pixels"}, "Side in pixels."),
        ({"help": "Side.", "unit": "pixels"}, "Side (pixels)."),
        ({"help": "Rounds of smoothing.", "unit": "rounds"}, "Rounds of smoothing."),
        ({"help": "a or b.", "choices": ("a", "b")}, "a or b."),
        ({"help": "Way.", "choices": ("given", "newest")}, "Way. One of 'given', 'newest'."),
    ],
)
def test_help_names_unit_and_choices_once(info, text):
    assert help_text(OptionInfo(**info)) == text
