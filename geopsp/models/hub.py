"""Published encoder weights for satellites: downloaded once into the cache of the Hugging Face hub, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError

from geopsp.core.documents import file_checksum
from geopsp.core.text import format_error
from geopsp.core.time_limit import server_options
from geopsp.errors import GeopspError, ModelError
from geopsp.models.encoder import require_network
from geopsp.models.weight_sets import WEIGHT_SETS, WeightSet


def find_weight_set(name: str, backbone: str) -> WeightSet | None:
    """Return the set of a name, or of a local file that has the name of its file; None: there is none.

    Raises:
        ModelError: if it is for another backbone.
    """
    found = [row for row in WEIGHT_SETS if name == row.name] or [
        row for row in WEIGHT_SETS if Path(name).name == row.file
    ]
    fitting = [row for row in found if row.backbone == backbone.removeprefix("tu-")]
    if found and not fitting:
        backbones = ", ".join(row.backbone for row in found)
        raise ModelError(
            f"The weights {found[0].name} are for {backbones}, not for {backbone}. Choose "
            f"`backbone={found[0].backbone!r}`, or other weights."
        )
    return fitting[0] if fitting else None


def weight_set_file(row: WeightSet, name: str) -> Path:
    """Return the file of a set: a local one that was named, else that of the cache, downloaded if it is not there.

    Raises:
        ModelError: if it cannot be downloaded, or its checksum differs.
    """
    if name != row.name and Path(name).is_file():
        if not _is_intact(row, Path(name)):
            raise ModelError(
                f"{name} is damaged: its SHA-256 does not begin with {row.sha256}. Download it again from {row.url}, "
                "or rename it if it is another file."
            )
        return Path(name)
    try:
        return _cached_file(row)
    except Exception as error:  # the hub raises what its HTTP library does
        reason = str(error) if isinstance(error, GeopspError) else f"{format_error(error)}."
        raise ModelError(
            f"Cannot download the weights {row.name} for {row.backbone}. {reason} To place them yourself: download "
            f"{row.url} elsewhere and pass the file under its own name, `encoder_weights='FOLDER/{row.file}'`."
        ) from error


def _cached_file(row: WeightSet) -> Path:
    download = partial(hf_hub_download, row.repository, row.file, revision=row.revision)
    damaged = False
    try:
        path = Path(download(local_files_only=True))
        if _is_intact(row, path):
            return path
        damaged = True
    except LocalEntryNotFoundError:
        pass
    require_network(row.name)
    with _time_limit() as seconds:
        path = Path(download(force_download=damaged, etag_timeout=seconds))
    if not _is_intact(row, path):
        raise ModelError(f"The file that {row.url} sent is another one: its checksum differs.")
    return path


def _is_intact(row: WeightSet, path: Path) -> bool:
    return file_checksum(path).startswith(row.sha256)


@contextmanager
def _time_limit() -> Iterator[float]:
    """Let a server be silent in the block for as long as our servers may; return the seconds."""
    seconds = float(server_options()["GDAL_HTTP_LOW_SPEED_TIME"])
    before = constants.HF_HUB_DOWNLOAD_TIMEOUT
    constants.HF_HUB_DOWNLOAD_TIMEOUT = int(seconds)
    try:
        yield seconds
    finally:
        constants.HF_HUB_DOWNLOAD_TIMEOUT = before
