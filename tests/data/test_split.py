from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio.features
import shapely
from common import examples, slow
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from shapely import affinity

from geopsp.chips.chip_set import ChipSet
from geopsp.core.bands import BandStats
from geopsp.core.legend import Legend
from geopsp.data.split import split_chips
from geopsp.data.split_groups import random_folds, random_splits, spatial_blocks
from geopsp.errors import ChipError, OptionError

LEFT, TOP = 601234.0, 5301717.0
LEGEND = Legend.from_names({1: "boat", 2: "car", 3: "water"})


def chips_at(corners, pixels=None, size=32, cell=2.0, angles=0.0, source="a.tif", table=0, folders=("chips",)):
    """Chips by their upper left corners in pixels; `pixels`, (chips, classes), are their labels."""
    corners = np.asarray(corners, float)
    pixels = np.full((len(corners), 3), 10) if pixels is None else np.asarray(pixels)
    left, top = LEFT + corners[:, 0] * cell, TOP - corners[:, 1] * cell
    shapes = shapely.box(left, top - size * cell, left + size * cell, top)
    columns = {"chip": [f"{i:06d}.tif" for i in range(len(corners))], "labelled": pixels.sum(axis=1) / size**2}
    columns |= {f"pixels_{code}": pixels[:, i] for i, code in enumerate(LEGEND.codes)}
    columns |= {"source": source, "table": table, "angle": angles}
    turned = [
        affinity.rotate(s, a) if a else s for s, a in zip(shapes, np.broadcast_to(angles, len(shapes)), strict=True)
    ]
    return chip_set(gpd.GeoDataFrame(columns, geometry=turned, crs="EPSG:32632"), size, cell, folders)


def chip_set(index, size=32, cell=2.0, folders=("chips",)):
    return ChipSet(
        folders=tuple(map(Path, folders)), index=index, legend=LEGEND, bands=("red",), dtype="uint8", tile_size=size,
        cell_size=(cell, cell), units="metre", statistics=BandStats.empty(1), reports=({},), tables=(),
    )  # fmt: skip


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
@settings(max_examples=examples(25), deadline=None)
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


@pytest.mark.parametrize("seed", range(6))
def test_neither_part_takes_all_of_a_rare_class(seed):
    pixels = np.tile([0, 0, 100], (16 * 12, 1))
    pixels[[17, 174], 0] = 1  # too few for the likeness of the parts to matter
    audit = split_chips(chips_at(lattice(16, 12), pixels), share=0.5, seed=seed).audit
    assert audit.missing_in_train == audit.missing_in_valid == ("car",)


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
        "1 training chip and 1 validation chip; no overlap, closest chips 64 m apart; 1 chip between them left out"
        "; split by spatial blocks"
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
    with pytest.raises(ChipError, match="Found 1 labelled among 3 chips"):
        split_chips(chips_at([(0, 0), (99, 0), (500, 0)], [[0, 0, 0], [1, 0, 0], [0, 0, 0]]), share=0.3, seed=0)


@pytest.mark.parametrize("share", [0, 1, -0.1, 20])
def test_shares_out_of_range(share):
    with pytest.raises(OptionError, match=f"`val_split_pct` is {share}"):
        split_chips(chips_at(lattice(9, 9)), share=share, seed=0)


# Several sources that overlap, turned copies, every kind of split


@st.composite
def overlapping(draw):
    """One to four sources on the same ground, each a lattice of its own stride, some chips turned, in two folders."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    corners, source = [], []
    for number in range(draw(st.integers(1, 4))):
        own = np.array(lattice(draw(st.integers(1, 7)), draw(st.integers(1, 7)), draw(st.sampled_from([16, 32, 48]))))
        corners.append(own + rng.integers(0, draw(st.sampled_from([40, 300])), 2))
        source += [f"{number}.tif"] * len(own)
    corners = np.concatenate(corners)
    assume(len(corners) > 2)
    pixels = rng.integers(0, 50, (len(corners), 3)) * (rng.random((len(corners), 3)) > 0.6)
    angles = np.where(rng.random(len(corners)) < 0.3, rng.uniform(0, 90, len(corners)), 0.0)
    table = rng.integers(0, 2, len(corners))
    return chips_at(corners, pixels, angles=angles, source=source, table=table, folders=("one", "two"))


AREA = gpd.GeoDataFrame(geometry=[shapely.Point(LEFT + 90, TOP - 90).buffer(40)], crs="EPSG:32632")
KINDS = {
    "blocks": {},
    "sized": {"block_size": 150.0, "gap": 20.0},
    "touching": {"gap": 0.0},
    "source": {"by": "source"},
    "wide": {"by": "source", "gap": 64.0},
    "folder": {"by": "folder", "folders": "one"},
    "areas": {"by": "areas", "areas": AREA},
}  # fmt: skip


def ground_of(shapes, cell=1.0):
    """(rows, cols) True where a shape lies, on a grid four times as fine as the chips' pixels."""
    transform = from_origin(LEFT - 100, TOP + 100, cell, cell)
    return rasterio.features.rasterize(shapes, (1700, 1700), transform=transform).astype(bool)


def require_whole(chips, split, gap):
    """Nothing lost, nothing twice, the gap kept, no ground shared; as counted anew."""
    labelled = np.flatnonzero(chips.index["labelled"] > 0)
    assert sorted([*split.train, *split.valid, *split.dropped]) == labelled.tolist()
    assert len(split.train)
    assert len(split.valid)
    shapes = chips.index.geometry.to_numpy()
    apart = distances(chips, split)
    assert apart.min() >= gap - 64e-5
    assert split.audit.gap == pytest.approx(apart.min(), abs=1e-3)
    assert split.audit.shared_pixels == 0
    assert not (ground_of(shapes[split.train]) & ground_of(shapes[split.valid])).any()
    if len(split.dropped):  # none is left out without need
        near = shapely.distance(shapes[split.dropped][:, None], shapes[split.valid][None]).min(axis=1)
        assert (near < max(gap, 1e-9)).all()


@pytest.mark.parametrize("kind", KINDS)
@given(chips=overlapping(), share=st.floats(0.05, 0.6), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_whatever_the_layout_no_pixel_is_shared(kind, chips, share, seed):
    try:
        split = split_chips(chips, share=share, seed=seed, **KINDS[kind])
    except ChipError:
        return
    gap = KINDS[kind].get("gap", 0.0 if kind in {"source", "folder"} else 64.0)
    require_whole(chips, split, gap)
    again = split_chips(chips, share=share, seed=seed, **KINDS[kind])
    assert split.valid.tolist() == again.valid.tolist()
    index = chips.index
    if KINDS[kind].get("by") == "source":
        assert not set(index["source"][split.train]) & set(index["source"][split.valid])
    if kind == "folder":
        assert set(index["table"][split.valid]) == {0}
        assert set(index["table"][split.train]) == {1}
    if kind == "areas":
        touched = index.geometry.intersection(KINDS[kind]["areas"].geometry[0]).area > 1e-3
        assert (
            set(np.flatnonzero(touched)) >= set(split.valid) >= set(np.flatnonzero(touched & (index["labelled"] > 0)))
        )


@pytest.mark.parametrize("kind", ["blocks", "source", *map(slow, ("touching", "random"))])
@given(chips=overlapping(), folds=st.integers(2, 4), seed=st.integers(0, 99))
@settings(max_examples=5, deadline=None)
def test_each_labelled_chip_validates_in_one_fold(kind, chips, folds, seed):
    options = KINDS.get(kind, {"by": kind}) | {"share": 0.2, "seed": seed, "folds": folds}
    try:
        splits = [split_chips(chips, fold=fold, **options) for fold in range(folds)]
    except ChipError:
        return
    labelled = np.flatnonzero(chips.index["labelled"] > 0)
    assert sorted(np.concatenate([split.valid for split in splits])) == labelled.tolist()
    for number, split in enumerate(splits, start=1):
        assert split.audit.by == f"{options.get('by', 'blocks')} (fold {number} of {folds})"
        if kind != "random":
            require_whole(chips, split, {"blocks": 64.0}.get(kind, 0.0))


@given(chips=overlapping(), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_a_random_split_counts_honestly_what_it_shares(chips, seed):
    try:
        split = split_chips(chips, share=0.3, seed=seed, by="random")
    except ChipError:
        return
    shapes = chips.index.geometry.to_numpy()
    train, valid = (shapely.union_all(shapes[part]) for part in (split.train, split.valid))
    assert split.audit.shared_pixels == pytest.approx(train.intersection(valid).area / 4, abs=1)
    assert len(split.dropped) == 0


def test_a_random_split_warns(capsys):
    audit = split_chips(chips_at(lattice(9, 7, 16)), share=0.2, seed=0, by="random").audit
    assert "neighbouring chips in both" in capsys.readouterr().err
    assert audit.shared_pixels > 500
    assert (audit.valid, audit.train) == (13, 50)


@given(chips=overlapping(), share=st.floats(0.1, 0.5), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_no_layout_tried_has_more_classes_in_both_parts(chips, share, seed):
    """The layouts again, each looked at in full."""
    labelled = np.flatnonzero(chips.index["labelled"] > 0)
    assume(len(labelled) > 1)
    shapes, pixels = chips.index.geometry.to_numpy()[labelled], chips.index.filter(like="pixels_").to_numpy()[labelled]
    rng = np.random.default_rng(seed)
    tried = random_splits(
        (next(groups) for groups in [spatial_blocks(shapes, share, None, rng)] * 48), pixels, share, rng
    )
    least = np.inf
    for layout in tried:
        valid = layout == 1
        if not valid.any():
            continue
        train = ~valid & (shapely.distance(shapes[:, None], shapes[valid][None]).min(axis=1) >= 64 - 64e-6)
        if train.any():
            missing = sum((~(pixels[part] > 0).any(axis=0) & (pixels > 0).any(axis=0)).sum() for part in (train, valid))
            least = min(least, missing)
    try:
        audit = split_chips(chips, share=share, seed=seed).audit
    except ChipError:
        assert least == np.inf
        return
    nowhere = sum((pixels == 0).all(axis=0))
    assert len(audit.missing_in_train) + len(audit.missing_in_valid) - 2 * nowhere == least


def test_sources_are_chosen_for_share_and_classes():
    """Of three images the small one would meet the share, but only the middle one holds boats as well."""
    sizes = {"big": (8, 8), "middle": (5, 4), "small": (4, 4)}
    corners = np.concatenate(
        [np.array(lattice(*size)) + np.array([i * 1000, 0]) for i, size in enumerate(sizes.values())]
    )
    source = np.repeat(list(sizes), [64, 20, 16])
    pixels = np.column_stack([(source != "small") * 5, np.full(100, 5), np.full(100, 5)])
    split = split_chips(chips_at(corners, pixels, source=source), share=0.16, seed=0, by="source")
    assert set(source[split.valid]) == {"middle"}
    assert len(split.dropped) == 0
    with pytest.raises(ChipError, match=r"too few images.*Split by blocks"):
        split_chips(chips_at(lattice(9, 9)), share=0.2, seed=0, by="source")
    with pytest.raises(ChipError, match=r"too few images.*4 folds"):
        split_chips(chips_at(corners, pixels, source=source), share=0.2, seed=0, by="source", folds=4)


def test_a_block_size_is_kept():
    chips = chips_at(lattice(20, 20))
    split = split_chips(chips, share=0.25, seed=1, block_size=320.0)
    validating = np.zeros((20, 20), bool)
    validating.ravel()[split.valid] = True
    edges = np.flatnonzero(np.diff(validating.astype(int), axis=1).any(axis=0))
    assert {int(edge) for edge in np.diff(edges) % 5} <= {0}
    assert len(split.valid) == pytest.approx(100, abs=30)


def test_dealing_leaves_no_fold_empty_and_folds_alike():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 40, 1000)
    for dealt in random_folds(iter([group] * 20), 5, rng):
        sizes = np.bincount(dealt, minlength=5)
        assert sizes.min() > 100
        assert all(len(set(dealt[group == one])) == 1 for one in range(40))


def test_every_other_layout_takes_rare_classes_first():
    """Of 60 groups two hold boats: by chance alone few layouts would validate on one and train on the other."""
    pixels = np.tile([0, 0, 9], (60, 1))
    pixels[[7, 41], 0] = 3
    layouts = list(random_splits(iter([np.arange(60)] * 40), pixels, 0.1, np.random.default_rng(0)))
    assert all(layout[[7, 41]].sum() == 1 for layout in layouts[1::2] if layout.sum() == 6)
    assert sum(layout[[7, 41]].sum() == 1 for layout in layouts[::2]) < 10
    assert {layout.sum() for layout in layouts} == {6}


def test_areas_of_any_make(caplog):
    """Overlapping parts, a part in a part, and a vertex at infinity."""
    chips = chips_at(lattice(8, 8))
    box, endless = shapely.box(LEFT + 70, TOP - 70, LEFT + 120, TOP - 10), shapely.box(LEFT, TOP - 50, LEFT + 50, TOP)
    endless = shapely.transform(endless, lambda xy: np.where(xy == LEFT + 50, np.inf, xy))
    for shape in (
        shapely.MultiPolygon([box, affinity.translate(box, 3, 3)]),
        shapely.MultiPolygon([box, box.buffer(-20)]),
        shapely.GeometryCollection([box, shapely.MultiPolygon([box, box.buffer(-5)])]),
    ):
        areas = gpd.GeoDataFrame(geometry=[shape, endless], crs="EPSG:32632")
        assert split_chips(chips, share=0.2, seed=0, by="areas", areas=areas).valid.tolist() == [1, 9]
    assert "the GeoDataFrame has features with infinite or NaN coordinates" in caplog.text
    box = affinity.translate(box, 0.0001, 0)
    hole = gpd.GeoDataFrame(geometry=[shapely.MultiPolygon([box, box.buffer(-1)])], crs="EPSG:32632")
    inner = chips_at([(41, 11)], size=10)
    both = chip_set(gpd.GeoDataFrame(pd.concat([chips.index, inner.index], ignore_index=True), crs="EPSG:32632"))
    assert 64 in split_chips(both, share=0.2, seed=0, by="areas", areas=hole, gap=0).valid


@pytest.mark.parametrize("turn", [-360, 0, 360])
def test_areas_in_another_convention_of_longitudes(turn):
    shapes = shapely.box(178 + np.arange(8) * 0.5, 0, 178.5 + np.arange(8) * 0.5, 0.5)
    index = gpd.GeoDataFrame(chips_at(lattice(8, 1)).index.drop(columns="geometry"), geometry=shapes, crs="EPSG:4326")
    areas = gpd.GeoDataFrame(geometry=[shapely.box(179.6 + turn, 0.1, 180.4 + turn, 0.2)], crs="EPSG:4326")
    split = split_chips(chip_set(index, cell=0.5 / 32), share=0.2, seed=0, by="areas", areas=areas)
    assert split.valid.tolist() == [3, 4]


def test_areas_in_another_crs_from_a_file(tmp_path):
    chips = chips_at(lattice(8, 8))
    area = gpd.GeoDataFrame(geometry=[shapely.box(LEFT + 70, TOP - 70, LEFT + 120, TOP - 10), None], crs="EPSG:32632")
    area.to_crs("EPSG:4326").to_file(tmp_path / "areas.gpkg")
    split = split_chips(chips, share=0.2, seed=0, by="areas", areas=tmp_path / "areas.gpkg")
    assert split.valid.tolist() == [1, 9]
    assert split.dropped.tolist() == [0, 2, 8, 10, 16, 17, 18]
    with pytest.raises(ChipError, match="No labelled chip touches"):
        split_chips(chips, share=0.2, seed=0, by="areas", areas=area.translate(9999).to_frame())
    with pytest.raises(ChipError, match=r"none is left for training.*Choose other areas"):
        split_chips(chips, share=0.2, seed=0, by="areas", areas=area.buffer(9999).to_frame())


def test_folders_compare_resolved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corners = [(0, 0), (32, 0), (16, 16), (900, 0), (932, 0)]
    chips = chips_at(corners, table=[0, 0, 1, 1, 0], folders=("a", "x/../b"))
    split = split_chips(chips, share=0.2, seed=0, by="folder", folders=[tmp_path / "b"])
    assert (split.valid.tolist(), split.train.tolist(), split.dropped.tolist()) == ([2, 3], [4], [0, 1])
    with pytest.raises(OptionError, match="c is not among the chip folders a"):
        split_chips(chips, share=0.2, seed=0, by="folder", folders=["b", "c"])


@pytest.mark.parametrize("by", ["random", "source", "folder"])
def test_chips_without_georeference(by):
    chips = chips_at(lattice(6, 6), source=["a", "b"] * 18, table=[0, 1] * 18, folders=("a", "b"))
    for nothing in (None, shapely.Polygon()):
        lost = chip_set(chips.index.set_geometry([nothing] * 36), folders=("a", "b"))
        split = split_chips(lost, share=0.5, seed=0, by=by, folders="a" if by == "folder" else None)
        assert split.audit.shared_pixels is None
        assert "overlap unknown" in str(split.audit)
        assert (len(split.valid), len(split.train)) == (18, 18)
        with pytest.raises(ChipError, match=r"36 of 36 labelled chips have no georeference.*at random"):
            split_chips(lost, share=0.5, seed=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "luck"}, "`split` is 'luck', but must be one of 'blocks', 'source'"),
        ({"by": "source", "block_size": 3.0}, "only applies to a split by blocks, not by source"),
        ({"block_size": 0.0}, "`block_size` is 0.0"),
        ({"by": "random", "gap": 3.0}, "not apply to a random split"),
        ({"gap": -1.0}, "`gap` is -1.0"),
        ({"by": "areas"}, "areas is not given"),
        ({"folders": "x"}, "folders is given"),
        ({"folds": 1}, "`folds` is 1"),
        ({"folds": 3, "by": "folder", "folders": "chips"}, "`folds` is 3"),
        ({"folds": 3, "fold": 3}, "`fold` is 3, but must be a whole number from 0 to 2"),
        ({"fold": 1}, "`fold` is 1, but needs `folds`"),
        ({"share": "0.2"}, "`val_split_pct` is '0.2', but must be a number"),
        ({"share": None}, "`val_split_pct` is None"),
        ({"seed": 1.5}, "`seed` is 1.5, but must be a whole number"),
        ({"seed": -1}, "`seed` is -1"),
        ({"folds": "3"}, "`folds` is '3', but must be a whole number"),
        ({"folds": 3, "fold": True}, "`fold` is True, but must"),
        ({"folds": 3, "fold": "1"}, "`fold` is '1'"),
        ({"gap": "5"}, "`gap` is '5', but must be a number"),
        ({"block_size": [5]}, r"`block_size` is \[5\], but must be a number"),
    ],
)
def test_options_that_are_wrong_or_would_do_nothing(options, words):
    with pytest.raises(OptionError, match=words):
        split_chips(chips_at(lattice(9, 9)), **{"share": 0.2, "seed": 0} | options)


def test_numbers_of_numpy_are_numbers():
    options = {"share": np.float32(0.25), "seed": np.int64(1), "folds": np.int64(2), "fold": np.int64(1)}
    assert len(split_chips(chips_at(lattice(9, 9)), **options).valid)


def test_areas_of_several_layers_validate_together(tmp_path):
    chips = chips_at(lattice(12, 3))
    west, east = (gpd.GeoDataFrame(geometry=[chips.index.geometry[row]], crs="EPSG:32632") for row in (12, 23))
    west.to_crs("EPSG:4326").to_file(tmp_path / "west.gpkg")
    split = split_chips(chips, share=0.2, seed=0, by="areas", areas=[tmp_path / "west.gpkg", east], gap=0.0)
    assert {12, 23} <= set(split.valid.tolist())
    alone = split_chips(chips, share=0.2, seed=0, by="areas", areas=[tmp_path / "west.gpkg"], gap=0.0)
    again = split_chips(chips, share=0.2, seed=0, by="areas", areas=tmp_path / "west.gpkg", gap=0.0)
    assert alone.valid.tolist() == again.valid.tolist()
    assert not set(alone.valid.tolist()) & {11, 23, 35}
    with pytest.raises(ChipError, match="No labelled chip touches"):
        split_chips(chips, share=0.2, seed=0, by="areas", areas=[east, east.translate(99999).to_frame()])


def test_lengths_in_metres_are_told_for_what_they_are_in_degrees():
    chips = replace(chips_at(lattice(9, 9)), units="degree")
    words = r"`block_size` is 5e\+03 degrees \(about .* km\) and `gap` is 1e\+03 degrees .* in the unit of the CRS"
    with pytest.raises(ChipError, match=words):
        split_chips(chips, share=0.2, seed=0, block_size=5000, gap=1000)
