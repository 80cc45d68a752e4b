"""Names of local files that pyogrio and GDAL take as they are.

pyogrio takes what stands before a `!` for an archive, and drops what follows a `;` and the first folder after `//`; to
GDAL a backslash is a separator. What would be parsed is opened by a link of a plain name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geopsp.core.paths import is_url_or_vsi
from geopsp.core.temporary_folder import scratch_folder

SPECIAL = r"[!;?\t\r\n]" if os.name == "nt" else r"[!;?\\\t\r\n]"
"""Characters that are parsed."""


@contextmanager
def path_to_read(path: str) -> Iterator[str]:
    """Yield an absolute path of a vector file, by links if its own would be parsed; a URL or /vsi path as it is.

    Files beside it that begin with the same stem are linked too, as they may belong to it.
    """
    if is_url_or_vsi(path):
        yield path
        return
    file = Path(absolute(path))
    with plain_folder(file.parent) as folder:
        if plain_name(file.name) == file.name:
            yield str(folder / file.name)
            return
        with _plain_scratch_folder() as scratch:
            for found in file.parent.iterdir():
                if found.name.startswith(file.stem):
                    (scratch / plain_name(found.name)).symlink_to(found)
            yield str(scratch / plain_name(file.name))


@contextmanager
def plain_folder(folder: Path) -> Iterator[Path]:
    """Yield the absolute path of a folder, or one of a link to it if its own would be parsed."""
    path = absolute(folder)
    if plain_name(path) == path and not path.startswith("//"):
        yield Path(path)
        return
    with _plain_scratch_folder() as scratch:
        link = scratch / "folder"
        link.symlink_to(path, target_is_directory=True)
        yield link


def absolute(path: str | Path) -> str:
    """Return an absolute path: the beginning of a relative one may look like the scheme of a URL."""
    return str(Path(path).absolute())


def plain_name(name: str) -> str:
    """Return a name with an underscore for each character that is parsed."""
    return re.sub(SPECIAL, "_", name)


@contextmanager
def _plain_scratch_folder() -> Iterator[Path]:
    with scratch_folder() as scratch:
        if plain_name(str(scratch)) != str(scratch):
            raise OSError(f"the name of the folder for temporary files, {scratch}, is parsed by GDAL. Set TMPDIR")
        yield scratch
