"""Workers of a Dask cluster, checked before they get tasks: their versions, and what they see."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from geopsp.core.paths import is_local
from geopsp.core.sync import sync_tree, syncs
from geopsp.errors import GeopspError, InputNotFoundError, OptionError, RasterError

logger = logging.getLogger(__name__)

MAX_FILES_CHECKED = 100
"""Files of one kind that a worker looks for; more would take long where there are thousands."""


def check_workers(
    client: Any, open_job: Callable[..., Any], *args: Any, packages: Sequence[str], consequence: str
) -> None:
    """Check that all workers of this moment can take tasks; later ones are checked when they begin.

    Args:
        client: Of a Dask cluster.
        open_job: Called on each worker with `args`; raises the reason why it cannot.
        *args: Small values.
        packages: Those on whose version results may depend.
        consequence: What may differ if a worker has another version of one, in words.

    Raises:
        OptionError: if a worker has another version of geopsp, or none.
        GeopspError: as `open_job`.
    """
    require_versions(client, packages, consequence)
    for error in client.run(_problem, open_job, *args, on_error="ignore").values():
        if error is not None:
            raise error


async def _problem(open_job: Callable[..., Any], *args: Any) -> GeopspError | None:
    """Run on a worker: return the error that keeps it from taking tasks, or None."""
    try:  # in a thread: imports take seconds, in which the worker must answer others
        await asyncio.to_thread(open_job, *args)
    except GeopspError as error:
        return error
    return None


def require_versions(client: Any, packages: Sequence[str], consequence: str) -> None:
    """Check that all workers have this version of geopsp; warn if other packages differ. Args as `check_workers`.

    Raises:
        OptionError: if one has another version of geopsp, or none.
    """
    found = client.get_versions(packages=["geopsp", *packages])
    ours = found["client"]["packages"]
    for address, versions in sorted(found["workers"].items()):
        theirs = versions["packages"]
        if theirs["geopsp"] != ours["geopsp"]:
            raise other_version(f"The worker {address}", theirs["geopsp"], ours["geopsp"])
        others = [f"{name} {theirs[name]} instead of {ours[name]}" for name in packages if theirs[name] != ours[name]]
        if others:
            logger.warning(f"The worker {address} has {', '.join(others)}: {consequence}.")


def sync_on_workers(client: Any, folder: Path) -> None:
    """Return when what the workers and this process wrote into a folder is on the disk."""
    if syncs():
        client.run(_sync, folder, on_error="ignore")
        sync_tree(folder)


async def _sync(folder: Path) -> None:
    """Run on a worker, which answers others meanwhile."""
    await asyncio.to_thread(sync_tree, folder)


def other_version(who: str, theirs: str | None, ours: str | None) -> OptionError:
    """Return the error that says that a worker has another version of geopsp, or none."""
    found = f"geopsp {theirs}" if theirs else "no geopsp"
    return OptionError(f"{who} has {found}, but this process has {ours}. Install geopsp {ours} there.")


def require_visible(kind: str, names: Iterable[str | Path]) -> None:
    """Run on a worker: check that it sees files; of many, a sample.

    Args:
        kind: What they are, in words, e.g. "image".
        names: Local paths, which are looked for, and others, which are not.

    Raises:
        InputNotFoundError: if it does not see one.
    """
    paths = list(dict.fromkeys(str(name) for name in names if is_local(name)))
    for path in paths[:: -(-len(paths) // MAX_FILES_CHECKED) or 1]:
        if not Path(path).exists():
            raise InputNotFoundError(
                f"{worker_name()} does not see the {kind} {path}. Use {kind}s on a disk that all machines share under "
                "the same full path, or URLs."
            )


def require_same(kind: str, found: Iterable[str], expected: Iterable[str]) -> None:
    """Run on a worker: check that its files are those of the process that gives out tasks.

    Args:
        kind: What they are, in words, with an article, e.g. "an image".
        found: What identifies them, one line or more for each, as this worker sees them.
        expected: As the process sees them that gives out tasks.

    Raises:
        RasterError: if one differs.
    """
    if differing := sorted({*found} ^ {*expected}):
        raise RasterError(
            f"{worker_name()} sees {kind} that differs from what is here: {differing[0]}. Use full paths on a disk "
            "that all machines share; if a file has changed, repeat the same command when it is complete."
        )


def worker_name() -> str:
    """Run on a worker: return its name for messages."""
    from distributed import get_worker

    return f"The worker {get_worker().address}"


def worker_number() -> int | None:
    """Run on a worker: return the number in its name; None if it has none.

    Workers are named 0, 1, ... or NAME-0, NAME-1, ... where a cluster or `dask worker` starts several.
    """
    from distributed import get_worker

    number = re.fullmatch(r"(?:.*-)?(\d+)", str(get_worker().name))
    return None if number is None else int(number[1])
