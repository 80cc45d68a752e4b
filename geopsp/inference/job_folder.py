"""What the folder of a map's job holds, on a disk or in an object store."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from geopsp.core.owned_files import FolderKind
from geopsp.core.schema import Schema, Sha256

MAX_BATCH = 2**20

PartSide = Annotated[int, Field(ge=1, lt=2**31)]


class JobState(Schema):
    """What job.json holds."""

    key: Sha256
    part: Annotated[list[PartSide], Field(min_length=2, max_length=2)]
    batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH)]


_OF_A_KEY = "[0-9a-f]*-[0-9]*x[0-9]*"

WORK_FOLDER = FolderKind(
    None, ("job.json", "publish", "order-*", *(_OF_A_KEY + "/*" * depth for depth in (1, 2, 3, 4)))
)
"""The folder `.partial-NAME`."""
