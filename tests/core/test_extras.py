"""Packages are imported without the garbage collector."""

import gc
import sys
from importlib import import_module

import pytest

from geopsp.core.extras import quick_imports, require_torch


def test_nothing_is_collected_meanwhile(tmp_path, monkeypatch):
    (tmp_path / "module_of_lists.py").write_text("lists = [[] for _ in range(10 ** 5)]")
    monkeypatch.syspath_prepend(tmp_path)
    before = gc.get_stats()[0]["collections"]
    with quick_imports():
        import_module("module_of_lists")
        assert gc.get_stats()[0]["collections"] == before
    assert gc.isenabled()


def test_the_collector_is_as_before():
    with pytest.raises(ImportError), quick_imports():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    with quick_imports():
        pass
    enabled = gc.isenabled()
    gc.enable()
    assert not enabled


def test_what_networks_are_made_of_is_imported():
    require_torch("A test")
    assert {"torch", "timm"} <= sys.modules.keys()
