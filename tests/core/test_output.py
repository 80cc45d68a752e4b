import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from geopsp.core.lock import output_lock
from geopsp.core.output import (
    atomic_files,
    atomic_output,
    check_output,
    checks_only,
    partial_path,
    resolve_link,
    resumable_folder,
    write_text_atomic,
)
from geopsp.core.owned_files import FILE_LIST, FolderKind
from geopsp.errors import OutputError, RasterError

KIND = FolderKind("journal", ("new", "old"))


def names(folder):
    """Return the names in a folder, but for the list of files."""
    return sorted(p.name for p in folder.iterdir() if p.name != FILE_LIST)


def make_folder(path):
    """Make a folder as an earlier run did."""
    with atomic_output(path, folder=True) as partial:
        (partial / "old").write_text("old")
        (partial / "journal").write_text("old")


def test_a_file_appears_when_the_block_ends_and_not_before(tmp_path):
    out = tmp_path / "deep" / "er" / "map.tif"
    with atomic_output(out) as partial:
        assert partial.suffix == ".tif"
        partial.write_text("new")
        assert not out.exists()
    assert out.read_text() == "new"
    assert names(out.parent) == ["map.tif"]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_what_was_there(folder, error, tmp_path):
    out = tmp_path / "out"
    make_folder(out) if folder else out.write_text("old")
    with pytest.raises(type(error)), atomic_output(out, overwrite=True, folder=folder) as partial:  # noqa: PT012
        (partial / "new" if folder else partial).write_text("new")
        raise error
    assert names(tmp_path) == ["out"]
    assert (out / "old" if folder else out).read_text() == "old"


def test_nothing_is_overwritten_unasked(tmp_path):
    out = tmp_path / "map.tif"
    out.write_text("old")
    with pytest.raises(OutputError, match=r"map\.tif already exists.*`overwrite=True`"):
        check_output(out)
    with pytest.raises(OutputError, match="already exists"), atomic_output(out):
        pass
    with atomic_output(out, overwrite=True) as partial:
        partial.write_text("new")
    assert out.read_text() == "new"


KILLED = """
import os, signal
from pathlib import Path
from geopsp.core.output import atomic_output
with atomic_output("chips", folder=True) as partial:
    (partial / "new").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_remains_of_a_killed_run_are_removed(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, check=False)
    assert len(names(tmp_path)) == 1
    with atomic_output(tmp_path / "chips", folder=True) as partial:
        assert names(partial) == []
        with atomic_output(tmp_path / "chips", folder=True) as other:  # a second writer keeps off the first one's
            assert partial.exists()
            assert other != partial
        shutil.rmtree(tmp_path / "chips")
    assert names(tmp_path) == ["chips"]


def test_a_folder_that_only_looks_like_remains_stays(tmp_path):
    folder = tmp_path / ".partial-chips-12345678"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    (tmp_path / ".partial-chips-abcdefgh").symlink_to(folder)
    with atomic_output(tmp_path / "chips", folder=True):
        pass
    assert names(tmp_path) == [".partial-chips-12345678", ".partial-chips-abcdefgh", "chips"]
    assert (folder / "thesis.txt").read_text() == "mine"


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot create"):
        check_output(tmp_path / "file" / "map.tif")


def test_a_file_never_replaces_a_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("")
    with pytest.raises(OutputError, match="is a folder"), atomic_output(tmp_path / "photos", overwrite=True):
        pass
    assert names(tmp_path / "photos") == ["cat.jpg"]


def test_only_a_folder_of_ours_is_replaced(tmp_path):
    out = tmp_path / "photos"
    out.mkdir()
    (out / "cat.jpg").write_text("")
    options = {"overwrite": True, "folder": True, "kind": KIND}
    for added in ("journal", "new"):  # of an earlier version, beside a file of others
        with pytest.raises(OutputError, match=r"geopsp did not write.*cat\.jpg"), atomic_output(out, **options):
            pass
        (out / added).write_text("")
    (out / "cat.jpg").unlink()
    with atomic_output(out, **options) as partial:
        (partial / "new").write_text("new")
        (partial / "journal").write_text("")
    assert names(out) == ["journal", "new"]
    (out / "new").write_text("my own words")
    with pytest.raises(OutputError, match=r"were changed since \(new\)"), atomic_output(out, **options):
        pass
    (out / "new").write_text("new")
    (out / "here").symlink_to(tmp_path)
    with pytest.raises(OutputError, match=r"\(here\)"), atomic_output(out, **options):
        pass
    (out / "here").unlink()
    with atomic_output(out, **options):
        pass


def test_a_full_disk_is_an_output_error_and_a_broken_input_is_not(tmp_path):
    with pytest.raises(OutputError, match="No space left"), atomic_output(tmp_path / "map.tif"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(RasterError, match="truncated"), atomic_output(tmp_path / "map.tif"):
        raise RasterError("truncated")


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_what_a_link_points_to_is_replaced_and_the_link_stays(folder, there, tmp_path):
    """Also through two links; what is written lies beside the target meanwhile, as names change within a disk only."""
    far, near = tmp_path / "far", tmp_path / "near"
    far.mkdir()
    near.mkdir()
    real, link = far / "real.tif", near / "map.tif"
    if there:
        make_folder(real) if folder else real.write_text("old")
    (near / "middle").symlink_to(real)
    link.symlink_to("middle")
    with atomic_output(link, overwrite=there, folder=folder) as partial:
        assert partial.is_relative_to(far)
        assert partial_path(link) == far / ".partial-real.tif"
        (partial / "new" if folder else partial).write_text("new")
    assert link.readlink().name == "middle"
    assert not real.is_symlink()
    assert (link / "new" if folder else link).read_text() == "new"
    assert (names(near), names(far)) == (["map.tif", "middle"], ["real.tif"])
    with pytest.raises(OutputError, match=r"near/map\.tif already exists"):
        check_output(link, folder=folder)


def test_a_run_that_goes_on_follows_links_too(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    make_folder(real)
    link.symlink_to(real)
    with resumable_folder(link, state_file="journal", overwrite=True, kind=KIND) as partial:
        (partial / "journal").write_text("")
    assert link.is_symlink()
    assert names(real) == ["journal"]


def test_a_link_to_nowhere_is_told(tmp_path):
    """Nobody wants a folder made where a disk is not mounted."""
    lost, circle = tmp_path / "lost.tif", tmp_path / "circle.tif"
    lost.symlink_to(tmp_path / "no disk" / "map.tif")
    circle.symlink_to(circle)
    for link, says in (
        (lost, "a link to .*mount its disk, or remove the link"),
        (circle, "a link that leads to itself"),
    ):
        with pytest.raises(OutputError, match=f"{link.name} is {says}"):
            check_output(link, overwrite=True)
    assert names(tmp_path) == ["circle.tif", "lost.tif"]


def test_two_runs_meet_by_whatever_name(tmp_path):
    link = tmp_path / "link.tif"
    link.symlink_to(tmp_path / "real.tif")
    assert resolve_link(link) == tmp_path / "real.tif" == resolve_link(tmp_path / "real.tif")
    with output_lock(link), pytest.raises(OutputError, match="Another run"), output_lock(tmp_path / "real.tif"):
        pass
    assert names(tmp_path) == ["link.tif"]


def test_a_name_that_is_too_long_is_told(tmp_path):
    with pytest.raises(OutputError, match="shorter name"):
        check_output(tmp_path / ("x" * 300))
    (tmp_path / "link.tif").symlink_to("y" * 250 + "/" + "z" * 255)
    with pytest.raises(OutputError, match="is a link to"):
        check_output(tmp_path / "link.tif")


def test_files_of_a_group_appear_together(tmp_path):
    old = [tmp_path / name for name in ("a.dbf", "a.qix")]
    for path in (*old, tmp_path / "a.SHP"):
        path.write_text("old")
    with pytest.raises(OutputError, match=r"already exists"), atomic_files(tmp_path / "a.SHP", companions=old):
        pass
    with atomic_files(tmp_path / "a.SHP", companions=old, overwrite=True) as partial:
        assert partial.name == "a.shp"
        for ending in (".shp", ".dbf", ".shx"):
            partial.with_suffix(ending).write_text("new")
        assert {path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {"old"}
    assert names(tmp_path) == ["a.SHP", "a.dbf", "a.shx"]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"new"}


def test_a_group_that_fails_leaves_what_was_there(tmp_path):
    companion = tmp_path / "a.dbf"
    companion.write_text("precious")
    with pytest.raises(OutputError, match=r"already exist beside it \(a\.dbf\)"):
        check_output(tmp_path / "a.shp", companions=[companion, tmp_path / "a.shx"])
    for error, expected in ((RuntimeError("stop"), RuntimeError), (OSError(28, "No space left"), OutputError)):
        group = atomic_files(tmp_path / "a.shp", companions=[companion], overwrite=True)
        with pytest.raises(expected), group as partial:  # noqa: PT012
            partial.write_text("new")
            raise error
    assert names(tmp_path) == ["a.dbf"]
    assert companion.read_text() == "precious"


def test_a_group_s_first_file_is_removed_first_and_comes_last(tmp_path, monkeypatch):
    """A kill in between leaves no old file beside new companions."""
    out, seen = tmp_path / "a.shp", []
    for name in ("a.shp", "a.dbf"):
        (tmp_path / name).write_text("old")

    def replace(self, target, move=Path.replace):
        if target.parent == tmp_path:  # not where the old ones are set aside
            seen.append((target.name, out.exists()))
        return move(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with atomic_files(out, companions=[tmp_path / "a.dbf"], overwrite=True) as partial:
        partial.write_text("new")
        partial.with_suffix(".dbf").write_text("new")
    assert seen == [("a.dbf", False), ("a.shp", False)]


def test_a_small_text_is_replaced_whole(tmp_path):
    path = tmp_path / "job.json"
    write_text_atomic(path, "ä")
    write_text_atomic(path, "ö")
    assert path.read_text(encoding="utf-8") == "ö"
    assert names(tmp_path) == ["job.json"]


def test_a_path_without_end_is_one_clear_line(tmp_path):
    with pytest.raises(OutputError, match=r"Cannot create .* shorter name") as caught:
        check_output(tmp_path / ("a/" * 2000) / "x")
    assert len(str(caught.value)) < 600


def test_inside_checks_only_no_folder_is_made(tmp_path):
    out = tmp_path / "new" / "deep" / "map.tif"
    with checks_only():
        assert check_output(out) == out
        (tmp_path / "file").write_text("mine")
        with pytest.raises(OutputError, match=r"file is no folder"):
            check_output(tmp_path / "file" / "map.tif")
    assert not (tmp_path / "new").exists()
    check_output(out)
    assert out.parent.is_dir()
