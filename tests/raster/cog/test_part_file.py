from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from common import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inference_common import disk_of

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.errors import OutputError
from geopsp.inference.outputs import class_spec, fraction_spec, probability_spec
from geopsp.raster.cog.overviews import downsample, is_blank
from geopsp.raster.cog.part_file import TAIL, PartReader, PartWriter, is_complete, level_sizes

LEGEND = Legend.from_names({0: "background", 3: "boat & car", 7: "water"})
BLOCK = 16


def spec_of(kind, folder):
    if kind == "classes":
        return class_spec(folder / "m.tif", LEGEND)
    if kind == "confidence":
        return fraction_spec("confidence", folder / "c.tif")
    return probability_spec(folder / "p.tif", LEGEND, kind)


def pixels_of(spec, height, width, seed):
    """Noise with a hole of nodata of any size."""
    rng = np.random.default_rng(seed)
    shape = (len(spec.bands), height, width)
    if spec.legend is not None:
        pixels = rng.choice(np.array([0, 3, 7, IGNORE_INDEX], np.uint8), shape)
    else:
        pixels = (rng.integers(0, 255, shape) / (1 if spec.dtype == "uint8" else 255)).astype(spec.dtype)
    top, left = rng.integers(0, height + 1), rng.integers(0, width + 1)
    pixels[:, top : top + rng.integers(0, height + 1), left : left + rng.integers(0, width + 1)] = spec.nodata
    return pixels


def write(path, pixels, spec, *, levels, cuts=(), pool=None):
    height, width = pixels.shape[1:]
    with PartWriter(path, width, height, spec, block=BLOCK, levels=levels, pool=pool) as writer:
        for rows in np.split(pixels, sorted(cuts), axis=1):
            writer.append(rows)
    return path.read_bytes()


def read(path, shape, spec, *, levels):
    """All levels."""
    found = []
    with PartReader(path, shape[2], shape[1], spec, block=BLOCK, levels=levels) as reader:
        for level, (_, height) in enumerate(level_sizes(shape[2], shape[1], levels)):
            found.append(np.concatenate([reader.rows(level, row) for row in range(-(-height // BLOCK))], axis=1))
    return found


@given(
    kind=st.sampled_from(["classes", "confidence", "uint8", "float16"]),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    levels=st.integers(0, 4),
    cuts=st.lists(st.integers(0, 70), max_size=4),
    seed=st.integers(0, 99),
)
@settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pixels_come_back_in_slabs_of_any_height_and_so_do_their_coarser_levels(
    kind, height, width, levels, cuts, seed, tmp_path
):
    spec = spec_of(kind, tmp_path)
    pixels = pixels_of(spec, height, width, seed)
    content = write(tmp_path / "part", pixels, spec, levels=levels, cuts=[cut for cut in cuts if cut < height])
    expected = [pixels]
    for _ in range(levels):
        expected.append(downsample(expected[-1], spec))
    for found, level in zip(read(tmp_path / "part", pixels.shape, spec, levels=levels), expected, strict=True):
        np.testing.assert_array_equal(found, level)
    assert write(tmp_path / "part", pixels, spec, levels=levels) == content


def test_threads_give_the_same_bytes(tmp_path):
    spec = spec_of("uint8", tmp_path)
    pixels = pixels_of(spec, 61, 83, 1)
    alone = write(tmp_path / "a", pixels, spec, levels=2)
    with ThreadPoolExecutor(3) as pool:
        assert write(tmp_path / "b", pixels, spec, levels=2, pool=pool) == alone


@pytest.mark.parametrize("kind", ["classes", "float16"])
def test_nothing_is_stored_as_nothing_however_it_comes(kind, tmp_path):
    spec = spec_of(kind, tmp_path)
    nothing = spec.blank(50, 40)
    content = write(tmp_path / "a", nothing, spec, levels=1)
    assert write(tmp_path / "b", nothing.copy(), spec, levels=1) == content
    with PartReader(tmp_path / "a", 40, 50, spec, block=BLOCK, levels=1) as reader:
        assert not reader.block_sizes(0).any()
        assert reader.block_bytes(0, 0, 1, 1) == b""
        assert is_blank(reader.rows(1, 0), spec)
    mixed = np.concatenate([nothing[:, :30], np.zeros_like(nothing[:, :20])], axis=1)
    content = write(tmp_path / "a", mixed, spec, levels=1)
    with PartWriter(tmp_path / "b", 40, 50, spec, block=BLOCK, levels=1) as writer:
        writer.append(nothing[:, :30])
        writer.append(mixed[:, 30:])
    assert (tmp_path / "b").read_bytes() == content


def test_a_part_of_nothing_takes_no_time_and_no_room(tmp_path):
    spec = spec_of("classes", tmp_path)
    with PartWriter(tmp_path / "part", 100_000, 100_000, spec, block=512, levels=4) as writer:
        writer.append(spec.blank(100_000, 100_000))
    assert (tmp_path / "part").stat().st_size < 1e6


def test_blocks_are_on_the_disk_before_the_part_has_its_name(tmp_path, monkeypatch):
    names = []
    monkeypatch.setenv("GEOPSP_SYNC", "1")
    monkeypatch.setattr("os.fsync", lambda _: names.append([path.name for path in tmp_path.iterdir()]))
    with PartWriter(tmp_path / "part", 16, 16, spec_of("classes", tmp_path), block=16, levels=0) as writer:
        writer.append(np.ones((1, 16, 16), np.uint8))
    assert len(names) == 1
    assert "part" not in names[0]
    assert (tmp_path / "part").exists()


def test_an_error_leaves_nothing(tmp_path):
    spec = spec_of("classes", tmp_path)
    out = PartWriter(tmp_path / "part", 40, 50, spec, block=16, levels=1)
    with pytest.raises(KeyboardInterrupt), out as writer:  # noqa: PT012
        writer.append(np.zeros((1, 20, 40), np.uint8))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("rows", "says"), [(49, "fewer rows"), (51, "more rows")])
def test_rows_too_few_or_too_many_are_our_own_fault(rows, says, tmp_path):
    spec = spec_of("classes", tmp_path)
    with (
        pytest.raises(AssertionError, match=says),
        PartWriter(tmp_path / "part", 40, 50, spec, block=16, levels=1) as writer,
    ):
        writer.append(np.zeros((1, rows, 40), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_a_part_is_whole_only_if_it_is_what_it_should_be(tmp_path):
    spec, path = spec_of("classes", tmp_path), tmp_path / "part"
    form = {"width": 40, "height": 50, "spec": spec, "block": BLOCK, "levels": 1}
    assert not is_complete(path, **form)
    content = write(path, pixels_of(spec, 50, 40, 2), spec, levels=1)
    assert is_complete(path, **form)
    others = ({"width": 50, "height": 40}, {"levels": 2}, {"block": 32}, {"spec": spec_of("uint8", tmp_path)})
    for other in others:
        assert not is_complete(path, **(form | other)), other
    for size in (*range(0, len(content), 37), len(content) - 1):
        path.write_bytes(content[:size])
        assert not is_complete(path, **form)
    path.write_bytes(content[1:])
    assert not is_complete(path, **form)
    path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    assert not is_complete(path, **form)
    with pytest.raises(OutputError, match=r"damaged or belongs to another map.*same command again"):
        PartReader(path, **form)


def test_a_damaged_block_is_an_error(tmp_path):
    spec, path = spec_of("classes", tmp_path), tmp_path / "part"
    content = write(path, pixels_of(spec, 16, 16, 2), spec, levels=0)
    path.write_bytes(bytes(20) + content[20:])
    with (
        PartReader(path, 16, 16, spec, block=BLOCK, levels=0) as reader,
        pytest.raises(OutputError, match="is damaged"),
    ):
        reader.rows(0, 0)


def test_any_changed_byte_of_a_block_is_an_error(tmp_path):
    spec, path = spec_of("classes", tmp_path), tmp_path / "part"
    content = write(path, pixels_of(spec, 16, 16, 2), spec, levels=0)
    with PartReader(path, 16, 16, spec, block=BLOCK, levels=0) as reader:
        size = int(reader.block_sizes(0)[0, 0, 0])
    for position in range(size):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with PartReader(path, 16, 16, spec, block=BLOCK, levels=0) as reader:
            assert reader.block_sizes(0)[0, 0, 0] == size
            with pytest.raises(OutputError, match="is damaged"):
                reader.block_bytes(0, 0, 0, 0)


def test_a_part_of_earlier_versions_has_no_checksums_of_blocks(tmp_path, monkeypatch):
    spec, path = spec_of("classes", tmp_path), tmp_path / "part"
    pixels = pixels_of(spec, 16, 16, 2)
    write(path, pixels, spec, levels=0)
    with PartReader(path, 16, 16, spec, block=BLOCK, levels=0) as reader:
        tables = [table.copy() for table in reader._table]
    for table in tables:
        table[..., 1] &= np.uint64(2**32 - 1)
    layout = reader._layout
    old = b"".join(table.tobytes() for table in tables)
    end = sum(int(table[..., 1].sum()) for table in tables)
    path.write_bytes(path.read_bytes()[:end] + old + TAIL.pack(end, layout.checksum(old)))
    np.testing.assert_array_equal(read(path, pixels.shape, spec, levels=0)[0], pixels)


def test_a_part_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(OutputError, match=r"Cannot read \S*gone: .*same command again"):
        PartReader(tmp_path / "gone", 16, 16, spec_of("classes", tmp_path), block=BLOCK, levels=0)


@pytest.mark.parametrize("size", [0, 20_000, 140_000])
def test_a_full_disk_is_an_error_and_leaves_nothing(size, tmp_path):
    spec = spec_of("confidence", tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (1, 400, 300)).astype(np.uint8)
    assert len(write(tmp_path / "part", pixels, spec, levels=1)) > 140_000
    (tmp_path / "part").unlink()
    with disk_of(size), pytest.raises(OutputError, match=r"Cannot write \S*part: .*Is the disk full"):
        write(tmp_path / "part", pixels, spec, levels=1, cuts=[100, 200])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(OutputError, match="Cannot write"):
        PartWriter(tmp_path / "gone" / "part", 16, 16, spec_of("classes", tmp_path), block=BLOCK, levels=0)
