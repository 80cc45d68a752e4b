"""A cache gives what the files give, bit by bit, and is made again when it cannot."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from chips_common import chipset
from common import slow
from hypothesis import given, settings
from hypothesis import strategies as st

import geopsp.data.cache
from geopsp import prepare_data
from geopsp.chips.chip_set import ChipSet
from geopsp.data.cache import CACHE_INFO, ChipCache, open_cache
from geopsp.data.dataset import ChipFiles, RawChip
from geopsp.errors import ChipError, OutputError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture
def chips(small_world, tmp_path):
    """A few, that may be changed; among them some at the scene's edge."""
    shutil.copytree(small_world["chips"], tmp_path / "chips")
    chips = ChipSet.open(tmp_path / "chips")
    some = chips.index.sort_values("valid").index[[*range(4), -2, -1]]
    return replace(chips, index=chips.index.loc[some].reset_index(drop=True))


@pytest.fixture
def place(chips, tmp_path):
    return open_cache(chips, tmp_path / "cache").folder


def equal(chips, cache) -> bool:
    files = ChipFiles(chips)
    side = chips.tile_size
    places = [(row, *part) for row in range(len(chips)) for part in ((0, 0, side), (1, 3, side - 4))]
    pairs = [pair for place in places for pair in zip(cache.read(*place), files.read(*place), strict=True)]
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def touch(path) -> None:
    """The time of a file moves on by a moment."""
    about = Path(path).stat()
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))


def test_a_cache_equals_the_files(chips, tmp_path):
    cache = open_cache(chips, tmp_path / "cache")
    assert equal(chips, cache)
    assert not cache.read(0, 0, 0, 32).valid.all()


@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_any_pixels_come_back(data, tmp_path_factory):
    kind = data.draw(st.sampled_from(["uint8", "uint16", "int16", "float32", "float64"]))
    bands, size, count = data.draw(st.tuples(st.integers(1, 5), st.integers(8, 20), st.integers(1, 4)))
    rng = np.random.default_rng(size)
    images = [(rng.normal(size=(bands, size, size)) * 100).astype(kind) for _ in range(count)]
    labels = rng.integers(0, 256, (count, size, size)).astype(np.uint8)
    folder = tmp_path_factory.mktemp("chips")
    chips = chipset(folder, images, labels, masks=rng.random((count, size, size)) > 0.3, photometric="minisblack")
    assert equal(chips, open_cache(chips, folder / "cache"))


def test_training_sees_the_same_with_and_without(small_world, tmp_path):
    plain, kept = (
        replace(data, train_rows=data.train_rows[:13], valid_rows=data.valid_rows[:7])
        for data in (prepare_data(small_world["chips"], workers=0, cache=cache) for cache in (None, tmp_path))
    )
    assert np.array_equal(plain.statistics.mean, kept.statistics.mean)
    assert isinstance(kept.train_ds.reader, ChipCache)
    assert isinstance(kept.valid_ds.reader, ChipCache)
    for name in ("train_dl", "valid_dl"):
        for one, other in zip(getattr(plain, name), getattr(replace(kept, workers=2), name), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_cache_is_used_again_without_reading_a_chip(chips, place, tmp_path, monkeypatch, capfd):
    def fail(*_):
        raise AssertionError("a chip was read")

    capfd.readouterr()
    monkeypatch.setattr(ChipFiles, "read", fail)
    assert open_cache(chips, tmp_path / "cache").folder == place
    assert capfd.readouterr().err == ""


def test_what_is_written_is_said_first(chips, tmp_path, capfd):
    place = open_cache(chips, tmp_path / "cache").folder
    said = capfd.readouterr().err
    assert f"Decoding {len(chips)} chips into {place}: " in said
    written = sum(path.stat().st_size for path in place.glob("*.npy"))
    assert f": {written / 1e6:,.0f} MB" in said


def test_another_process_maps_the_same_files(chips, place):
    text = pickle.dumps(ChipCache(place))
    assert len(text) < 500
    assert equal(chips, pickle.loads(text))


@pytest.mark.parametrize("part", ["image", "label"])
def test_chips_that_changed_are_decoded_again(part, chips, place, tmp_path, capfd):
    path = chips.index[part][3]
    with rasterio.open(path, "r+") as dataset:
        dataset.write(np.full((dataset.count, 32, 32), 1, dataset.dtypes[0]))
    touch(path)
    again = open_cache(chips, tmp_path / "cache")
    assert again.folder == place
    assert "The chips have changed since the cache" in capfd.readouterr().err
    assert equal(chips, again)


@pytest.mark.parametrize("name", ["image.npy", "valid.npy", "codes.npy", CACHE_INFO])
@pytest.mark.parametrize("how", ["gone", "cut", *map(slow, ("empty", "other"))])
def test_a_damaged_cache_is_made_again(name, how, chips, place, tmp_path, capfd):
    path = place / name
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "other": b"[1, 2, 3]"}[how])
    again = open_cache(chips, tmp_path / "cache")
    assert "is damaged: decoding the chips again" in capfd.readouterr().err
    assert equal(chips, again)


@pytest.mark.parametrize("part", ["image", "valid", "codes"])
def test_arrays_of_another_shape_or_type_are_made_again(part, chips, place, tmp_path, capfd):
    path = place / f"{part}.npy"
    array = np.load(path)
    for other in (array[:3], array.astype("float32"), array[..., :16]):
        np.save(path, other)
        assert equal(chips, open_cache(chips, tmp_path / "cache"))
        assert "is damaged: decoding the chips again" in capfd.readouterr().err


def test_other_chips_have_a_cache_of_their_own(chips, place, tmp_path):
    some = replace(chips, index=chips.index.iloc[::-1].reset_index(drop=True))
    other = open_cache(some, tmp_path / "cache")
    assert other.folder != place
    assert equal(some, other)
    assert equal(chips, ChipCache(place))


def test_a_cache_that_may_only_be_read_serves(chips, place, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OutputError("read-only")

    monkeypatch.setattr(geopsp.data.cache, "check_output", fail)
    monkeypatch.setattr(geopsp.data.cache, "FileLock", fail)
    assert equal(chips, open_cache(chips, tmp_path / "cache"))


def test_no_room_is_said_before_a_chip_is_decoded(chips, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5000))
    monkeypatch.setattr(ChipFiles, "read", None)
    with pytest.raises(OutputError, match=r"needs \d+ MB, but only 0 MB are free.*`cache`"):
        open_cache(chips, tmp_path / "cache")


def test_a_disk_that_fills_up_is_an_output_error_and_leaves_nothing(chips, tmp_path, monkeypatch):
    class Full(np.ndarray):
        def tobytes(self, *_):
            raise OSError(errno.ENOSPC, "No space left on device")

    read = ChipFiles.read
    monkeypatch.setattr(ChipFiles, "read", lambda *place: RawChip(*(a.view(Full) for a in read(*place))))
    with pytest.raises(OutputError, match=r"No space left.*Is the disk full"):
        open_cache(chips, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_pixels_of_another_type_than_the_folder_says(chips, tmp_path):
    with pytest.raises(ChipError, match="uint16 pixels, but its folder says float32"):
        open_cache(replace(chips, dtype="float32"), tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_a_chip_that_cannot_be_read(chips, tmp_path):
    Path(chips.index["image"][2]).write_bytes(b"")
    with pytest.raises(ChipError, match="Export the chips again"):
        open_cache(chips, tmp_path / "cache")


def test_a_chip_that_is_gone(chips, tmp_path):
    Path(chips.index["image"][2]).unlink()
    with pytest.raises(ChipError, match="Export the chips again"):
        open_cache(chips, tmp_path / "cache")


def test_a_folder_that_cannot_be_made(chips, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        open_cache(chips, tmp_path / "file")
