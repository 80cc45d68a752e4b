"""Nothing that geopsp did not write is removed, replaced or written through a link."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geopsp.chips.chip_folder import CHIP_FOLDER
from geopsp.core.lock import output_lock
from geopsp.core.output import atomic_files, atomic_output, resumable_folder
from geopsp.core.owned_files import (
    FILE_LIST,
    FolderKind,
    add_to_file_list,
    foreign_files,
    remove_matching,
    remove_owned,
    require_no_links,
    require_not_inputs,
    write_file_list,
)
from geopsp.errors import GeopspError, OutputError

KIND = FolderKind("marker.json", ("data/[0-9]*", "history.csv"))


def contents(folder):
    """Return what is in a folder, links not followed."""
    return {
        path.relative_to(folder).as_posix(): f"-> {path.readlink()}" if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def make_ours(path):
    with atomic_output(path, folder=True, kind=KIND, overwrite=True) as folder:
        (folder / "marker.json").write_text("{}")
        (folder / "data").mkdir()
        (folder / "data" / "000001.tif").write_text("pixels")


@pytest.mark.parametrize("has_list", [False, True])
def test_a_folder_of_ours_is_removed_and_any_other_stays(has_list, tmp_path):
    ours = tmp_path / "ours"
    make_ours(ours)
    if not has_list:
        (ours / FILE_LIST).unlink()
    for name in ("thesis.txt", "data/field.tif", ".hidden"):
        (ours / name).write_text("mine")
        before = contents(ours)
        with pytest.raises(OutputError, match=rf"{Path(name).name}.*Move them elsewhere"):
            remove_owned(ours, KIND)
        assert contents(ours) == before
        (ours / name).unlink()
    remove_owned(ours, KIND)
    assert not ours.exists()


def test_a_list_that_names_files_elsewhere_removes_none(tmp_path):
    victim = tmp_path / "thesis.txt"
    victim.write_text("mine")
    make_ours(tmp_path / "ours")
    (tmp_path / "ours" / FILE_LIST).write_text(f"2 marker.json\n6 data/000001.tif\n4 ../thesis.txt\n4 {victim}\n")
    remove_owned(tmp_path / "ours", KIND)
    assert victim.read_text() == "mine"


def test_another_kind_of_folder_is_not_replaced(tmp_path):
    """A folder of chips is no model, although geopsp wrote both."""
    make_ours(tmp_path / "ours")
    with pytest.raises(OutputError, match="did not write"):
        remove_owned(tmp_path / "ours", FolderKind("model.json", ()))


def test_files_that_belong_are_removed_and_others_stay(tmp_path):
    make_ours(tmp_path / "ours")
    (tmp_path / "ours" / "data" / "mine.txt").write_text("mine")
    remove_matching(tmp_path / "ours", KIND)
    assert contents(tmp_path / "ours") == {"data/mine.txt": b"mine"}
    (tmp_path / "ours" / "data" / "mine.txt").unlink()
    remove_matching(tmp_path / "ours", KIND)
    assert not (tmp_path / "ours").exists()


def test_links_are_found(tmp_path):
    make_ours(tmp_path / "ours")
    require_no_links(tmp_path / "ours")
    for link, target in (("data/000002.tif", "victim"), ("images", ".")):
        (tmp_path / "ours" / link).symlink_to(tmp_path / target)
        with pytest.raises(OutputError, match=f"{link} is a link"):
            require_no_links(tmp_path / "ours")
        (tmp_path / "ours" / link).unlink()


def test_an_input_is_no_output(tmp_path):
    image = tmp_path / "in" / "image.tif"
    image.parent.mkdir()
    image.write_text("pixels")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for output in (image, tmp_path / "link" / "image.tif", tmp_path / "in" / ".." / "in" / "image.tif"):
        with pytest.raises(OutputError, match="is also an input"):
            require_not_inputs([output], [image])
    for output in (tmp_path, tmp_path / "in", tmp_path / "link"):
        with pytest.raises(OutputError, match=r"contains the input .*image\.tif"):
            require_not_inputs([output], [image])
    require_not_inputs([tmp_path / "in" / "other.tif", tmp_path / "inn"], [image])


def test_a_folder_set_aside_by_a_killed_run_comes_back(tmp_path):
    make_ours(tmp_path / "ours")
    before = contents(tmp_path / "ours")
    (tmp_path / "ours").rename(tmp_path / ".old-ours")  # a kill between the two renames
    with pytest.raises(OutputError, match="already exists"), atomic_output(tmp_path / "ours", folder=True, kind=KIND):
        pass
    assert contents(tmp_path / "ours") == before
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_one_of_two_models_is_there_at_any_moment(tmp_path, monkeypatch):
    """Whatever rename fails, as if the process were killed there."""
    make_ours(tmp_path / "ours")
    before, replace, calls = contents(tmp_path / "ours"), Path.replace, []

    for number in (1, 2):
        calls.clear()

        def fail(self, target, number=number):
            calls.append(self)
            if len(calls) == number:
                raise KeyboardInterrupt
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", fail)
            with pytest.raises(KeyboardInterrupt):
                make_ours(tmp_path / "ours")
        with (
            pytest.raises(OutputError, match="already exists"),
            atomic_output(tmp_path / "ours", folder=True, kind=KIND),
        ):
            pass
        assert contents(tmp_path / "ours") == before


NAMES = st.sampled_from(
    ["out", ".partial-out", ".old-out", ".out.lock", "out.tif", ".partial-out.tif", "marker.json", "data", "thesis.txt"]
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TREES = st.dictionaries(PATHS, st.sampled_from(["text", "folder", "link to a file", "link to a folder"]), max_size=6)
WRITERS = st.sampled_from(["file", "files", "folder", "resumable"])


def plant(root, tree):
    """Make files, folders and links, as far as the names allow."""
    (root / "elsewhere").mkdir()
    (root / "elsewhere" / "thesis.txt").write_text("mine")
    place = root / "place"
    place.mkdir()
    for path, kind in tree.items():
        target = place / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if kind == "text":
                target.write_text("mine")
            elif kind == "folder":
                target.mkdir()
            else:
                target.symlink_to(root / "elsewhere" / ("thesis.txt" if kind == "link to a file" else ""))
        except OSError:
            continue
    return place


def write(writer, out, *, overwrite, fails):
    """Write one output, or fail on the way."""
    managers = {
        "file": lambda: atomic_output(out, overwrite=overwrite),
        "files": lambda: atomic_files(out, overwrite=overwrite),
        "folder": lambda: atomic_output(out, overwrite=overwrite, folder=True, kind=KIND),
        "resumable": lambda: resumable_folder(out, state_file="marker.json", overwrite=overwrite, kind=KIND),
    }
    with output_lock(out), managers[writer]() as partial:
        file = partial / "marker.json" if writer in {"folder", "resumable"} else partial
        file.write_text("ours")
        if fails:
            raise KeyboardInterrupt


@given(TREES, WRITERS, st.booleans(), st.booleans(), st.sampled_from(["out", "out.tif"]))
def test_no_byte_of_the_user_changes_but_in_the_named_output(tree, writer, overwrite, fails, name):
    """Whatever lies around, files and links with our own temporary names among it."""
    root = Path(tempfile.mkdtemp())
    try:
        place = plant(root, tree)
        before = contents(root)
        out = place / name
        named = {out.relative_to(root).as_posix()} if overwrite and out.is_file() and not fails else set()
        if out.is_symlink():
            named.add("elsewhere/thesis.txt") if overwrite and not fails else None
        try:
            write(writer, out, overwrite=overwrite, fails=fails)
        except (GeopspError, KeyboardInterrupt):
            named = set()
        after = contents(root)
        changed = {path for path, content in before.items() if after.get(path) != content}
        assert changed <= named
    finally:
        shutil.rmtree(root)


def test_a_journal_that_a_kill_left_is_ours(tmp_path):
    """It is not on the list, as it grows while the list is written."""
    folder = tmp_path / "chips"
    folder.mkdir()
    (folder / "chips.json").write_text("{}")
    (folder / "ledger.jsonl").write_text("{}\n")
    write_file_list(folder, CHIP_FOLDER)
    assert "ledger" not in (folder / ".geopsp-files").read_text()
    assert foreign_files(folder, CHIP_FOLDER) == []
    (folder / "chips.json").write_text("{ }")
    assert foreign_files(folder, CHIP_FOLDER) == ["chips.json"]
    assert foreign_files(folder, CHIP_FOLDER, use_list=False) == []


def test_a_file_that_is_added_to_a_list_is_ours_and_no_other(tmp_path):
    (tmp_path / "chips.json").write_text("{}")
    write_file_list(tmp_path, CHIP_FOLDER)
    (tmp_path / "chips.yaml").write_text("command: chips")
    (tmp_path / "notes.txt").write_text("mine")
    add_to_file_list(tmp_path, "chips.yaml")
    assert foreign_files(tmp_path, CHIP_FOLDER) == ["notes.txt"]
    (tmp_path / "chips.yaml").write_text("longer than before")
    add_to_file_list(tmp_path, "chips.yaml")
    assert foreign_files(tmp_path, CHIP_FOLDER) == ["notes.txt"]
