"""Models on the Hugging Face Hub, named hf://OWNER/NAME or hf://OWNER/NAME@REVISION: downloaded, never executed.

Only files that geopsp writes are downloaded; `load_model` compares the checksums of what they hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from geopsp.core.remote_input import input_path
from geopsp.core.text import format_error
from geopsp.core.time_limit import server_options
from geopsp.errors import GeopspError, InputNotFoundError, ModelError, OptionError, PackageError
from geopsp.models.manifest import HISTORY, MANIFEST, MODEL_ITEM, WEIGHTS

HUB_NAME = re.compile(r"hf:/{1,2}(?P<repository>[^@]*)(@(?P<revision>.*))?", re.DOTALL)
"""A name as the user writes it; `Path` leaves one slash of two."""

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)

MODEL_FILES = (MANIFEST, WEIGHTS, HISTORY, MODEL_ITEM)
"""The files that are downloaded."""

SITE = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class HubName:
    """The name of a model on the Hub."""

    repository: str
    """OWNER/NAME."""

    revision: str | None = None
    """A branch, tag or commit; None: the main branch."""

    def __str__(self) -> str:
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")


def hub_name(model: str | Path) -> HubName | None:
    """Return the name of a model on the Hub; None if it is no such name.

    Raises:
        ModelError: if it begins like one, but is none.
    """
    match = HUB_NAME.fullmatch(str(model))
    if match is None or Path(str(model)).exists():
        return None
    repository, revision = match["repository"], match["revision"]
    if not REPOSITORY.fullmatch(repository) or revision == "":
        raise ModelError(f"{model} is no model on the Hugging Face Hub. Write hf://OWNER/NAME or hf://OWNER/NAME@TAG.")
    return HubName(repository, revision)


def local_model(model: str | Path) -> Path:
    """Return the path of a model: as it is, or the folder that one on the Hub or in an object store was copied to.

    Raises:
        ModelError: if the Hub cannot be reached, and the model was not downloaded before.
        InputNotFoundError: if the Hub has no such model, or does not show it to this user.
        PackageError: if the repository holds no model of geopsp.
    """
    name = hub_name(model)
    if name is None:
        return input_path(model)
    if find_spec("huggingface_hub") is None:
        raise OptionError(f"{name} needs huggingface_hub, which is not installed. Run: pip install huggingface_hub")
    from huggingface_hub import snapshot_download

    seconds = float(server_options()["GDAL_HTTP_LOW_SPEED_TIME"])
    with hub_errors(str(name)):
        folder = Path(
            snapshot_download(
                name.repository,
                revision=name.revision,
                allow_patterns=list(MODEL_FILES),
                etag_timeout=seconds,
                library_name="geopsp",
            )
        )
    if not (folder / MANIFEST).is_file():
        raise PackageError(f"{name} has no {MANIFEST}, so it is not a model of geopsp. Check the name.")
    return folder


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn what the Hub's library raises in the block into one line that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except GeopspError:
        raise
    except errors.GatedRepoError as error:
        raise InputNotFoundError(
            f"{name} is gated: accept its conditions on {SITE} and log in, `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputNotFoundError(
            f"The Hugging Face Hub has no {name}, or does not show it to you. Check the name; for a private one log "
            "in, `hf auth login`, or set HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputNotFoundError(f"{name}: there is no such branch, tag or commit. Check the part after @.") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise ModelError(
            f"Cannot reach the Hugging Face Hub, and {name} was not downloaded before. Check the network, HF_ENDPOINT "
            "and HF_HUB_OFFLINE; or copy the folder here and name that."
        ) from error
    except Exception as error:  # it raises what its HTTP library does
        raise ModelError(f"The Hugging Face Hub refused {name}: {format_error(error)}.") from error


def hub_address(folder: Path) -> str | None:
    """Return the address on the Hub of a folder that was downloaded from there; None of any other."""
    cache, commit = folder.parent.parent.name, folder.name
    kind, *parts = cache.split("--")
    if (
        kind != "models"
        or len(parts) < 2
        or folder.parent.name != "snapshots"
        or not re.fullmatch(r"[0-9a-f]+", commit)
    ):
        return None
    return f"{SITE}/{parts[0]}/{'--'.join(parts[1:])}/resolve/{commit}"
