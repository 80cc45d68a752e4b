"""Kernels are compiled wherever they come from, and also where nothing can be kept."""

import numpy as np
import pytest
from numba.core import caching

from geopsp.core.jit import jit


def inverse(x):
    return 1 / x


def written_nowhere():
    """The function, of no file beside which it could be kept."""
    names = {}
    exec("def inverse(x):\n    return 1 / x", names)
    return names["inverse"]


@pytest.fixture
def nowhere(monkeypatch):
    """As of a package that is read only, without a home."""
    for place in caching.CacheImpl._locator_classes:
        monkeypatch.setattr(place, "from_function", classmethod(lambda *_: None))


def check(function):
    """It is machine code, by which division by zero is as numpy has it."""
    assert function(4) == 0.25
    assert np.isinf(function(0.0))
    assert len(function.signatures) == 2
    assert function.targetoptions["nogil"]


def test_what_was_compiled_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    check(jit()(inverse))
    assert len(list(tmp_path.rglob("*.nbc"))) == 2


def test_without_a_place_it_is_compiled_all_the_same(nowhere):
    check(jit()(inverse))


def test_a_function_without_a_file():
    check(jit()(written_nowhere()))


@pytest.mark.parametrize("ending", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize("content", [b"", b"\x80\x05nonsense"])
def test_what_was_kept_may_be_damaged(monkeypatch, tmp_path, ending, content):
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    check(jit()(inverse))
    for path in tmp_path.rglob(ending):
        path.write_bytes(content)
    check(jit()(inverse))
    kept = jit()(inverse)
    check(kept)
    assert sum(kept.stats.cache_hits.values()) == 2, "it was mended"


def test_a_full_disk_is_no_error(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", full)
    check(jit()(inverse))
