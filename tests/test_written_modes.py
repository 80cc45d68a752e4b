"""Everything that is written has the permissions that the umask leaves, weights and folders too."""

from __future__ import annotations

import os
import shutil
import stat

import pytest
import steps
from common import slow

QUICK = ("export", "append", "train", "predict", "polygonize gpkg", "polygonize shp", "polygonize parquet")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modes") / "inputs"
    steps.prepare(folder)
    return folder


@pytest.mark.parametrize("umask", [0o027, *map(slow, (0o022, 0o077, 0o002))])
@pytest.mark.parametrize("name", [name if name in QUICK else slow(name) for name in steps.STEPS])
def test_files_follow_the_umask(inputs, tmp_path, monkeypatch, name, umask):
    place, step = tmp_path / "place", steps.STEPS[name]
    shutil.copytree(inputs, place)
    before = set(place.rglob("*"))
    monkeypatch.chdir(place)
    old = os.umask(umask)
    try:
        (place / "new").mkdir()
        code, said = steps.run(step, "--run new/run" if name == "train" else "")
    finally:
        os.umask(old)
    assert code == 0, said
    written = set(place.rglob("*")) - before
    assert len(written) > 1
    for path in written:
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
