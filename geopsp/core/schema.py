"""Schemas of what geopsp writes into manifests and states, and reads again from folders that anybody may have made."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from geopsp.core.documents import DocumentError
from geopsp.core.legend import IGNORE_INDEX

MAX_BANDS = 4096

MAX_TILE = 2**14
"""Side of chips and tiles, in pixels."""

MAX_NAME = 1000
"""Characters of a name."""

MAX_VALUE = 3.4e38
"""Largest pixel value: networks compute in float32."""

Count = Annotated[int, Field(ge=0, lt=2**63)]

Text = Annotated[str, Field(max_length=100_000)]

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

PixelValue = Annotated[float, Field(ge=-MAX_VALUE, le=MAX_VALUE)]

BandNames = Annotated[list[Name], Field(min_length=1, max_length=MAX_BANDS)]

Dtype = Literal[
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64"
]

CellSize = Annotated[list[Positive], Field(min_length=2, max_length=2)]

Color = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]

TimeText = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")]
"""A time in UTC, as `stac.time_text` writes it."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Schema(BaseModel):
    """A dict with known entries; others are left alone, as later versions may add some."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class ClassEntry(Schema):
    """A class of a legend."""

    code: Annotated[int, Field(ge=0, lt=IGNORE_INDEX)]
    name: Name
    color: Color


def _require_distinct(classes: list[ClassEntry]) -> list[ClassEntry]:
    codes = [entry.code for entry in classes]
    if codes != sorted(set(codes)):
        raise ValueError(f"must have distinct codes in ascending order, not {codes}")
    names = [entry.name for entry in classes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"must not give one name to two classes: {twice[0]!r}")
    return classes


ClassEntries = Annotated[
    list[ClassEntry], Field(min_length=1, max_length=IGNORE_INDEX), AfterValidator(_require_distinct)
]


class StatisticsEntry(Schema):
    """Statistics of bands; of no pixels, only their number of bands."""

    count: Count
    bands: Annotated[int, Field(ge=1, le=MAX_BANDS)] | None = None
    mean: Annotated[list[PixelValue], Field(max_length=MAX_BANDS)] = []
    m2: Annotated[list[Annotated[float, Field(ge=0)]], Field(max_length=MAX_BANDS)] = []
    low: Annotated[list[PixelValue], Field(max_length=MAX_BANDS)] = []
    high: Annotated[list[PixelValue], Field(max_length=MAX_BANDS)] = []

    @property
    def num_bands(self) -> int:
        return len(self.mean) if self.count else self.bands or 0

    @model_validator(mode="after")
    def _require_possible(self) -> Self:
        lengths = {len(each) for each in (self.mean, self.m2, self.low, self.high)}
        if self.count and (len(lengths) > 1 or self.bands not in {None, *lengths}):
            raise ValueError("must have one mean, m2, low and high for each band")
        for mean, m2, low, high in zip(self.mean, self.m2, self.low, self.high, strict=False):
            slack = 1e-6 * max(abs(low), abs(high))  # rounding
            if not low - slack <= mean <= high + slack:
                raise ValueError(f"must have means between low and high, not {mean:g} between {low:g} and {high:g}")
            if m2 > self.count * MAX_VALUE**2 / 4:
                raise ValueError(f"must have a possible m2, not {m2:g}")
        return self


class PixelValuesEntry(Schema):
    """What pixel values mean."""

    scaled: bool
    scales: Annotated[
        list[Annotated[list[float], Field(min_length=2, max_length=2)] | None], Field(max_length=MAX_BANDS)
    ]


def require_same_length(what: str, counts: Mapping[str, int]) -> None:
    """Check in a validator that two entries have the same number of something."""
    if len(set(counts.values())) > 1:
        found = " and ".join(f"{count:,} in {entry}" for entry, count in counts.items())
        raise ValueError(f"must have as many {what} everywhere, not {found}")


ALLOWED = {"model_type": "must be a dict"}
"""What is allowed, by the type of an error, where pydantic's words do not say it to users."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def require_fit(content: Any, schema: type[BaseModel]) -> None:
    """Check parsed JSON against a schema.

    Raises:
        DocumentError: that names the first entry that is wrong, its value and what is allowed.
    """
    try:
        schema.model_validate(content)
    except ValidationError as error:
        raise DocumentError(_describe(error.errors(include_url=False)[0])) from None


def _describe(error: ErrorDetails) -> str:
    entry = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    entry = f"`{entry}`" if entry else "the document"
    if error["type"] == "missing":
        return f"{entry} is missing"
    allowed = ALLOWED.get(error["type"]) or re.sub(r"^(\w+ )?should|^Value error,", "must", error["msg"])
    return f"{entry} is {_SHORT.repr(error['input'])}, but {allowed.replace('must must', 'must')}"
