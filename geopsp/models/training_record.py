"""What a saved model tells of its training, for reports: data, split, options, scores. `training.json`, without torch.

It names files of the user and shows parts of chips, so that it is never uploaded with a model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from geopsp.core.documents import MAX_SETTINGS_BYTES, DocumentError, read_bytes, read_json
from geopsp.core.schema import MAX_BANDS, Count, Name, Schema, Sha256, Text, TimeText, require_fit
from geopsp.core.text import format_error
from geopsp.errors import PackageError
from geopsp.models.manifest import MAX_CLASSES, RECORD, RUN_CONFIG

MAX_FOOTPRINTS = 3000
"""Chips whose outlines are kept; of more, a sample."""

MAX_PICTURES = 24

Short = Annotated[str, Field(max_length=1000)]

Number = Annotated[float, Field(allow_inf_nan=False)]

Share = Annotated[float, Field(ge=0, le=1)]

Counts = Annotated[list[Count], Field(max_length=1000)]

Corners = Annotated[list[Number], Field(min_length=8, max_length=8)]
"""x and y of the four corners of a chip, in ring order."""

Outlines = Annotated[list[Corners], Field(max_length=MAX_FOOTPRINTS)]

ImageData = Annotated[str, Field(pattern=r"^data:image/(png|jpeg);base64,[A-Za-z0-9+/]+={0,2}$", max_length=2**21)]
"""A picture as an address that needs no network."""


class InputEntry(Schema):
    """A folder or file that the training read."""

    path: Text
    files: Count
    size: Count
    """In bytes."""

    sha256: Sha256
    """Of a folder: the names and sizes of its files, and its manifest. Of a file: its size, first and last megabyte."""


class SplitEntry(Schema):
    """The audit of a split, see `data.split_audit.Audit`."""

    train: Count
    valid: Count
    dropped: Count
    unlabelled: Count
    shared_pixels: Count | None
    gap: Number | None
    missing_in_train: list[Name]
    missing_in_valid: list[Name]
    by: Short
    units: Short
    words: Text
    """All of it in one sentence."""


class ClassCounts(Schema):
    """Labelled pixels of a class, and the chips that have some."""

    name: Name
    train_pixels: Count
    valid_pixels: Count
    train_chips: Count
    valid_chips: Count


class Footprints(Schema):
    """Where chips lie."""

    crs: Text
    """As pyproj reads it."""

    train: Outlines = Field(default=[])
    valid: Outlines = Field(default=[])
    dropped: Outlines = Field(default=[])
    """Left out between both parts."""

    shown: Count
    total: Count


class Histogram(Schema):
    """Pixels of a band by value, in bins of equal width."""

    band: Name
    low: Number
    """Of the first bin; values below are in it."""

    high: Number
    """Of the last bin; values above are in it."""

    counts: Counts


class ReliabilityBin(Schema):
    """Pixels whose confidence is alike."""

    low: Share
    high: Share
    pixels: Count
    confidence: Number
    accuracy: Number


class ReliabilityEntry(Schema):
    """How far confidence is accuracy, see `training.reliability.Reliability`."""

    name: Literal["uncalibrated", "calibrated"]
    mean_confidence: Number
    ece: Number
    mce: Number
    nll: Number
    brier: Number
    bins: Annotated[list[ReliabilityBin], Field(max_length=1000)]


class ChipPicture(Schema):
    """A chip that the model has much or little of wrong."""

    kind: Literal["worst", "best"]
    name: Text
    place: Text
    """Where it lies, in words."""

    longitude: Number | None = None
    latitude: Number | None = None
    miou: Number
    accuracy: Share
    image: ImageData
    truth: ImageData
    found: ImageData
    errors: ImageData


class ChipScores(Schema):
    """Scores of the model on chips, with intervals."""

    name: Text
    """Which chips, in words."""

    chips: Count
    confusion: Annotated[list[Annotated[list[Count], Field(max_length=MAX_CLASSES)]], Field(max_length=MAX_CLASSES)]
    """(classes, classes) pixels; row: true class."""

    boundary: list[Annotated[list[Count], Field(min_length=2, max_length=2)]] | None = None
    """(classes, 2) boundary pixels in both, in either."""

    blocks: Count
    """Blocks of ground that were resampled."""

    block_words: Short
    intervals: list[Annotated[list[Number], Field(min_length=2, max_length=2)] | None]
    """Lower and upper end for mean IoU, accuracy, and IoU, precision and recall of each class; None: not defined."""

    confidence_level: Share
    notes: list[Text] = Field(default=[])
    reliability: Annotated[list[ReliabilityEntry], Field(max_length=2)] = Field(default=[])
    pictures: Annotated[list[ChipPicture], Field(max_length=MAX_PICTURES)] = Field(default=[])
    bands: Annotated[list[Counts], Field(max_length=MAX_BANDS)] = Field(default=[])
    """Counts in the bins of the training's histograms."""

    footprints: Footprints | None = None
    """Of chips that are not those of the split."""


class TrainingRecord(Schema):
    """All of it. Times are in UTC."""

    format: Literal["geopsp-training"] = "geopsp-training"
    version: Literal[1] = 1
    created: TimeText
    """When training ended."""

    seconds: Number
    """Of training, without preparing the data."""

    device: Short
    platform: Short
    versions: dict[Name, Short]
    working_folder: Text
    """Where relative paths begin."""

    command: Text = ""
    """As it was typed in the shell; "" from Python."""

    code: Annotated[list[Text], Field(max_length=10_000)] = Field(default=[])
    """The calls that repeat it in Python."""

    inputs: Annotated[list[InputEntry], Field(max_length=10_000)] = Field(default=[])
    chip_size: Count
    split: SplitEntry
    classes: Annotated[list[ClassCounts], Field(max_length=MAX_CLASSES)]
    footprints: Footprints | None = None
    bands: Annotated[list[Histogram], Field(max_length=MAX_BANDS)] = Field(default=[])
    scores: ChipScores | None = None
    """On the validation chips; None: not scored since."""


def record_text(record: TrainingRecord) -> str:
    """Return the text of the file."""
    return record.model_dump_json(indent=None)


def read_record(folder: Path) -> TrainingRecord | None:
    """Read the record of a model folder; None if it has none, as models of earlier versions.

    Raises:
        PackageError: if it is damaged.
    """
    try:
        content = read_json(folder / RECORD)
        require_fit(content, TrainingRecord)
        return TrainingRecord.model_validate(content)
    except FileNotFoundError:
        return None
    except (DocumentError, OSError, ValidationError) as error:
        raise PackageError(
            f"{folder / RECORD} cannot be read: {format_error(error)}. Remove it: predictions need none, and reports "
            "are then shorter."
        ) from None


def read_run_config(folder: Path) -> str:
    """Return the options of the command that trained a model, as YAML; "" if they are not known."""
    try:
        return read_bytes(folder / RUN_CONFIG, max_bytes=MAX_SETTINGS_BYTES).decode()
    except (OSError, DocumentError, UnicodeDecodeError):
        return ""
