from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from geopsp.chipset import ChipSet
from geopsp.errors import ChipError, OptionError
from geopsp.legend import Legend
from geopsp.split import split_chips
from geopsp.stats import BandStats

LEFT, TOP = 601234.0, 5301717.0
LEGEND = Legend.from_names({1: "boat", 2: "car", 3: "water"})


def chips_at(corners, pixels=None, size=32, cell=2.0):
    """Chips by their upper left corners in pixels; `pixels`, (chips, classes), are their labels."""
    corners = np.asarray(corners, float)
    pixels = np.full((len(corners), 3), 10) if pixels is None else np.asarray(pixels)
    left, top = LEFT + corners[:, 0] * cell, TOP - corners[:, 1] * cell
    shapes = shapely.box(left, top - size * cell, left + size * cell, top)
    columns = {"chip": [f"{i:06d}.tif" for i in range(len(corners))], "labelled": pixels.sum(axis=1) / size**2}
    columns |= {f"pixels_{code}": pixels[:, i] for i, code in enumerate(LEGEND.codes)}
    index = gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:32632")
    return ChipSet(
        (Path("chips"),), index, LEGEND, ("red",), "uint8", size, (cell, cell), "metre", BandStats.none(1), ({},), ()
    )


def lattice(cols, rows, step=32):
    return [(col * step, row * step) for row in range(rows) for col in range(cols)]


def distances(chips, split):
    shapes = chips.index.geometry.to_numpy()
    return shapely.distance(shapes[split.train][:, None], shapes[split.valid][None])


@st.composite
def layouts(draw):
    """A lattice with holes, with or without overlap, or chips anywhere."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    if draw(st.booleans()):
        corners = np.array(
            lattice(draw(st.integers(3, 12)), draw(st.integers(1, 12)), draw(st.sampled_from([16, 32, 40])))
        )
        corners = corners[rng.random(len(corners)) > draw(st.floats(0, 0.5))]
    else:
        corners = rng.integers(0, draw(st.integers(200, 2000)), (draw(st.integers(2, 90)), 2))
    assume(len(corners) >= 2)
    pixels = rng.integers(0, 50, (len(corners), 3)) * (rng.random((len(corners), 3)) > 0.5)
    return chips_at(corners, pixels)


@given(chips=layouts(), share=st.floats(0.05, 0.6), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_no_ground_is_shared_and_a_chip_lies_between(chips, share, seed):
    try:
        split = split_chips(chips, share=share, seed=seed)
    except ChipError:
        return
    labelled = np.flatnonzero(chips.index["labelled"] > 0)
    parts = np.concatenate([split.train, split.valid, split.dropped])
    assert sorted(parts) == labelled.tolist()
    assert len(split.train)
    assert len(split.valid)
    gaps = distances(chips, split)
    assert gaps.min() >= 64 * (1 - 1e-5)
    audit = split.audit
    assert (audit.train, audit.valid, audit.dropped) == (len(split.train), len(split.valid), len(split.dropped))
    assert audit.unlabelled == len(chips) - len(labelled)
    assert audit.shared_pixels == 0
    assert audit.gap == pytest.approx(gaps.min())
    pixels = chips.index[["pixels_1", "pixels_2", "pixels_3"]].to_numpy()
    for part, missing in ((split.train, audit.missing_in_train), (split.valid, audit.missing_in_valid)):
        assert missing == tuple(np.array(LEGEND.names)[pixels[part].sum(axis=0) == 0])


@pytest.mark.parametrize("share", [0.1, 0.2, 0.4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_a_large_grid_the_share_is_met_and_little_is_lost(share, seed):
    split = split_chips(chips_at(lattice(30, 24)), share=share, seed=seed)
    assert len(split.valid) / 720 == pytest.approx(share, abs=0.05)
    assert len(split.dropped) / 720 < 0.25


def test_chips_that_overlap_are_kept_apart_as_well():
    chips = chips_at(lattice(40, 30, step=16))
    split = split_chips(chips, share=0.2, seed=3)
    assert distances(chips, split).min() >= 64 * (1 - 1e-5)
    assert len(split.valid) / 1200 == pytest.approx(0.2, abs=0.06)


def test_a_seed_repeats_itself_and_others_differ():
    chips = chips_at(lattice(14, 11))
    first, again, other = (split_chips(chips, share=0.2, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.valid, again.valid)
    np.testing.assert_array_equal(first.train, again.train)
    assert set(first.valid) != set(other.valid)


def test_classes_lie_in_both_parts_where_that_is_possible():
    pixels = np.zeros((20 * 15, 3), int)
    pixels[:, 2] = 100
    pixels[np.random.default_rng(0).choice(300, 14, replace=False), 0] = 5
    pixels[[3, 290], 1] = 5
    audit = split_chips(chips_at(lattice(20, 15), pixels), share=0.2, seed=0).audit
    assert audit.missing_in_train == ()
    assert audit.missing_in_valid == ()


def test_a_class_that_nobody_has_is_no_reason_to_worry():
    pixels = np.tile([10, 0, 10], (100, 1))
    audit = split_chips(chips_at(lattice(10, 10), pixels), share=0.2, seed=0).audit
    assert audit.missing_in_train == audit.missing_in_valid == ("car",)
    assert "not in training: car" in str(audit)


def test_by_hand_three_in_a_row():
    split = split_chips(chips_at([(0, 0), (32, 0), (64, 0)]), share=0.3, seed=0)
    assert sorted([*split.train, *split.valid]) == [0, 2]
    assert split.dropped.tolist() == [1]
    assert str(split.audit) == (
        "1 training and 1 validation chips, 0 pixels shared, nearest pair 64 apart; 1 chips between them are left out"
    )


def test_places_far_apart_lose_nothing():
    corners = [*lattice(4, 4), *(np.array(lattice(4, 4)) + 100_000).tolist()]
    split = split_chips(chips_at(corners), share=0.5, seed=0)
    assert len(split.dropped) == 0
    assert (len(split.train), len(split.valid)) == (16, 16)


@pytest.mark.parametrize(
    "corners", [[(0, 0), (32, 0)], [(0, 0), (16, 0), (40, 0)], lattice(2, 2)], ids=["pair", "overlapping", "square"]
)
def test_chips_too_close_together_to_split(corners):
    with pytest.raises(ChipError, match=f"{len(corners)} labelled chips lie too close together.*smaller chips"):
        split_chips(chips_at(corners), share=0.3, seed=0)


def test_too_few_chips_with_labels():
    with pytest.raises(ChipError, match="Only 1 of 3 chips hold labels"):
        split_chips(chips_at([(0, 0), (99, 0), (500, 0)], [[0, 0, 0], [1, 0, 0], [0, 0, 0]]), share=0.3, seed=0)


@pytest.mark.parametrize("share", [0, 1, -0.1, 20])
def test_shares_out_of_range(share):
    with pytest.raises(OptionError, match=f"val_split_pct is {share}"):
        split_chips(chips_at(lattice(9, 9)), share=share, seed=0)
