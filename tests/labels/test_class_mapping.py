from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.errors import InputNotFoundError, LabelError, OptionError
from geopsp.labels.class_mapping import normalize_value, read_mapping
from geopsp.labels.class_table import class_table


def table(found, mapping=None, background="class", **options):
    made = class_table(found, "the field", background=background, mapping=read_mapping(mapping), **options)
    return {info.code: info.name for info in made.legend}, dict(made.codes)


@pytest.mark.parametrize(
    ("found", "mapping", "names", "codes"),
    [
        (["a", "b", "c"], {"a": "x", "b": "x"}, {0: "background", 1: "c", 2: "x"}, {"a": 2, "b": 2, "c": 1}),
        (["a", "b"], {"a": None}, {0: "background", 1: "b"}, {"a": IGNORE_INDEX, "b": 1}),
        (["a", "b"], {"a": "w", "*": None}, {0: "background", 1: "w"}, {"a": 1, "b": IGNORE_INDEX}),
        (["a", "b"], {"a": "Background"}, {0: "background", 1: "b"}, {"a": 0, "b": 1}),
        ([1, 2, 7], {1: "w"}, {0: "background", 1: "w", 2: "class 2", 7: "class 7"}, {1: 1, 2: 2, 7: 7}),
        ([1, 2, 7], {7: "w"}, {0: "background", 1: "class 1", 2: "class 2", 7: "w"}, {1: 1, 2: 2, 7: 7}),
        ([1, 300], {"300": "w"}, {0: "background", 1: "class 1", 2: "w"}, {1: 1, 300: 2}),
        (["1", "2"], {1.0: "w", 2: "v"}, {0: "background", 1: "v", 2: "w"}, {"1": 2, "2": 1}),
        (["a", "b"], {"a": {"name": "w", "code": 9}}, {0: "background", 1: "b", 9: "w"}, {"a": 9, "b": 1}),
        ([1, 2], {1: {"name": "w", "code": 1}}, {0: "background", 1: "w", 2: "class 2"}, {1: 1, 2: 2}),
    ],
)
def test_a_mapping_renames_merges_drops_and_fixes(found, mapping, names, codes):
    assert table(found, mapping) == (names, codes)


def test_colours_are_taken():
    made = class_table(["a"], "it", background="ignore", mapping=read_mapping({"a": {"name": "w", "color": "#00FF10"}}))
    assert made.legend.classes[0].color == "#00ff10"
    assert made.legend.codes == [1]


def test_names_of_a_known_legend():
    known = Legend.from_names({2: "boat", 5: "car"}, {2: "#010203"})
    made = class_table([2, 5, 9], "it", background="ignore", known=known)
    assert made.legend.names == ["boat", "car", "class 9"]
    assert made.legend.classes[0].color == "#010203"


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"z": "x"}, "the field has the values a, b, but `class_mapping` maps other values only: z"),
        ({"*": None}, "makes all values unlabelled"),
        ({"a": {"name": "x", "code": 3}, "b": {"name": "y", "code": 3}}, "gives the code 3 to 'x' and to 'y'"),
        ({"a": {"name": "x", "code": 3}, "b": {"name": "x", "code": 4}}, "the codes 3 and 4"),
        ({"a": {"name": "x", "code": 0}}, "gives the code 0 to 'background' and to 'x'"),
    ],
)
def test_mappings_that_do_not_fit(mapping, words):
    with pytest.raises(LabelError, match=words):
        table(["a", "b"], mapping)


def test_a_code_that_stays_may_not_be_taken():
    with pytest.raises(LabelError, match=r"uses the code 2 for 'class 2', but `class_mapping` gives it to 'x'\. Map 2"):
        table([1, 2], {1: {"name": "x", "code": 2}})


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({}, "is {}, but must map values to classes"),
        ([1], r"is \[1\], but must map values to classes"),
        ({"a": ["x"]}, r"`class_mapping` maps 'a' to \['x'\], but a class is a name"),
        ({" ": "x"}, "has the key ' '"),
        ({"a": {"code": 3}}, "but a class has a name"),
        ({"a": {"name": "x", "colour": "#000000"}}, "at most, a code and a color"),
        ({"a": {"name": "x", "code": 255}}, "from 0 to 254"),
        ({"a": {"name": "x", "code": True}}, "to the code True"),
        ({"a": {"name": "x", "color": "red"}}, "#rrggbb"),
    ],
)
def test_mappings_that_are_none(mapping, words):
    with pytest.raises(OptionError, match=words):
        read_mapping(mapping)


def test_a_mapping_from_a_file(tmp_path):
    path = tmp_path / "classes.yaml"
    path.write_text("pond: water\n3: {name: boat, code: 4, color: '#ff0000'}\n'*':\n")
    found = read_mapping(path)
    assert [found[key].name for key in ("pond", 3, "*")] == ["water", "boat", None]
    path.write_text("a: [")
    with pytest.raises(OptionError, match=r"Cannot read .* as YAML"):
        read_mapping(path)
    with pytest.raises(InputNotFoundError, match="No such file"):
        read_mapping(tmp_path / "none.yaml")
    with pytest.raises(OptionError, match=r"Cannot read .* as YAML"):
        read_mapping(tmp_path)


def test_what_a_mapping_names_in_vain_is_noted():
    for mapping in ({"a": "x", "z": "y"}, {"z": "y", "*": "x"}):
        made = class_table(["a", "b"], "It", background="class", mapping=read_mapping(mapping))
        assert made.notes == ("It does not contain z, but `class_mapping` does",)
        assert "y" not in made.legend.names
    assert class_table(["a"], "It", background="class", mapping=read_mapping({"a": "x"})).notes == ()


def test_too_many_classes():
    with pytest.raises(LabelError, match="has 255 classes, but at most 254 are possible"):
        table([f"k{i}" for i in range(255)])
    assert len(table([f"k{i}" for i in range(255)], {"k0": "k1"})[0]) == 255


values = st.one_of(st.integers(-500, 500), st.text(max_size=4), st.floats(allow_nan=True, allow_infinity=False))


@given(st.lists(values, min_size=1, max_size=20))
def test_each_value_has_one_code_and_each_class_one_name(found):
    known = {value for value in map(normalize_value, found) if value is not None}
    if not known:
        return
    made = class_table(known, "it", background="class")
    codes, given_ = made.codes_of(pd.Series(found, dtype=object))
    assert given_.tolist() == [normalize_value(value) is not None for value in found]
    assert set(codes[given_].tolist()) <= set(made.legend.codes)
    assert np.all(codes[~given_] == IGNORE_INDEX)
    assert len(set(made.legend.names)) == len(made.legend)


def test_codes_that_are_merely_named_stay():
    names, codes = table([1, 2, 3], {1: "water", 2: "road", 3: "road"})
    assert names == {0: "background", 1: "water", 2: "road"}
    assert codes == {1: 1, 2: 2, 3: 2}
    names, _ = table([1, 2, 5], {1: "water", 2: "land", 5: "building"})
    assert names == {0: "background", 1: "water", 2: "land", 5: "building"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal(100000000000000000001), 100000000000000000001),
        (Decimal("1.5"), 1.5),
        (Decimal("NaN"), None),
        (1e18, 10**18),
        (np.float32(3), 3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (1e300, 1e300),
        (float("inf"), float("inf")),
        (np.datetime64("2024-05-31"), "2024-05-31"),
        (pd.Timestamp("2024-05-31 12:30"), "2024-05-31T12:30:00"),
        (np.datetime64("NaT"), None),
        (np.timedelta64(2, "D"), "2 days 00:00:00"),
        (" a\u00a0 b\n", "a b"),
        ("e\u0301\u200b\x07", "\u00e9"),
        ("\u200b", None),
    ],
)
def test_values_as_class_tables_hold_them(value, expected):
    found = normalize_value(value)
    assert found == expected
    assert type(found) is type(expected)
