"""Every mistake a user can make, as one tree of errors.

    GeopspError
    ├── InputNotFoundError  (FileNotFoundError)  no such file, folder or layer
    ├── RasterError         (OSError)            not a raster, or one whose pixels cannot be read
    ├── GridError           (ValueError)         no CRS, no georeference, grids that do not fit together
    ├── BandError           (ValueError)         bands missing, or of other names than needed
    ├── LabelError          (ValueError)         no polygons, no such field, labels that miss the image
    ├── ChipError           (ValueError)         an empty, half-written or inconsistent chip folder
    ├── ModelError          (ValueError)         an unknown backbone, sizes that a network cannot take
    ├── PackageError        (ValueError)         a saved model with a part missing or changed
    ├── OptionError         (ValueError)         an argument outside its range
    ├── TrainingError       (RuntimeError)       training that cannot start or go on
    ├── ExportError         (RuntimeError)       a model that cannot be exported, or gives other results then
    ├── OutputError         (OSError)            an output that already exists or cannot be written
    └── StrictError         (RuntimeError)       a warning, inside warnings_as_errors()

Each message says what was found, what was needed and what to do.
"""

from __future__ import annotations

from geopsp.core.escape import printable
from geopsp.core.staging import name_addresses


class GeopspError(Exception):
    """Base of every error that input or options can cause; as text it is one line, whatever the names in it hold.

    Of what lies in an object store it names the address, not the local copy.
    """

    def __str__(self) -> str:
        return printable(name_addresses(super().__str__()))


class InputNotFoundError(GeopspError, FileNotFoundError):
    """A file, folder or layer does not exist."""


class RasterError(GeopspError, OSError):
    """A file is not a raster, or its pixels cannot be read."""


class GridError(GeopspError, ValueError):
    """A raster has no usable georeference, or two grids do not fit together."""


class BandError(GeopspError, ValueError):
    """A raster lacks bands that are needed, or names them otherwise."""


class LabelError(GeopspError, ValueError):
    """Labels cannot be used: no polygons, no such field, nothing on the image."""


class ChipError(GeopspError, ValueError):
    """A chip folder is empty, half-written or inconsistent."""


class ModelError(GeopspError, ValueError):
    """A network cannot be built or cannot take such input."""


class PackageError(GeopspError, ValueError):
    """A saved model lacks a part, or a part was changed."""


class OptionError(GeopspError, ValueError):
    """An argument is outside its range."""


class TrainingError(GeopspError, RuntimeError):
    """Training cannot start or go on."""


class ExportError(GeopspError, RuntimeError):
    """A model cannot be exported, or the exported file gives other results."""


class OutputError(GeopspError, OSError):
    """An output already exists, or cannot be written."""


class StrictError(GeopspError, RuntimeError):
    """A warning, where warnings are errors (`warnings_as_errors`, --strict)."""
