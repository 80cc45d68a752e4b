"""Export a model to a format that other programs read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geopsp.core.addresses import OutputPath, local_path
from geopsp.core.file_endings import require_ending
from geopsp.core.options import describes, from_names, only_apply, option_fields, require_choice, require_path
from geopsp.core.output import atomic_output, check_output
from geopsp.errors import OptionError
from geopsp.export.check_tiles import RawTiles
from geopsp.export.export_job import ExportJob
from geopsp.export.formats import FORMATS, ExportFormat
from geopsp.export.options import ExportOptions
from geopsp.models.hub_model import local_model
from geopsp.models.saved_model import TrainedModel, load_model


@describes(ExportOptions)
def export_model(
    model: TrainedModel | str | Path,
    path: str | Path,
    format: str = "onnx",  # noqa: A002 (the word of pandas and matplotlib)
    *,
    precision: str = "fp32",
    pointrend: bool = True,
    calibrated: bool = True,
    tile_size: int | None = None,
    chips: str | Path | Sequence[str | Path] | None = None,
    images: str | Path | Sequence[str | Path] | None = None,
    onnx: bool = False,
    license: str | None = None,  # noqa: A002 (the word of the Hub)
    overwrite: bool = False,
    validation: RawTiles | None = None,
) -> Path:
    """Export a model, and return the path. The file or folder appears when it is complete and has passed its checks.

    Args:
        model: A trained model, or the folder of a saved one.
        path: The file or folder to write.
        format: A key of `FORMATS`.
        {options}
        validation: Validation chips of a classifier, on which the file is checked unless others are given.

    Raises:
        InputNotFoundError, PackageError: if there is no such model, or it is damaged.
        OptionError: if an option is out of range, does not apply to the format, or a package is missing.
        ModelError: if the network cannot take such tiles.
        ExportError: if the network cannot be exported, or the exported file gives other results.
        OutputError: if the output exists and `overwrite` is False, or cannot be written.
    """
    options = from_names(ExportOptions, locals())
    chosen = check_export(path, format, options)
    folder = None if isinstance(model, TrainedModel) else local_model(model)
    write = chosen.write
    with atomic_output(path, overwrite=options.overwrite, folder=not chosen.suffix, kind=chosen.kind) as partial:
        trained = model if isinstance(model, TrainedModel) else load_model(folder or model)
        write(ExportJob(trained, options, folder, local_path(path), validation), partial)
    return OutputPath(path)


def check_export(path: str | Path, format: str, options: ExportOptions) -> ExportFormat:  # noqa: A002
    """Return the format of an export, after the checks that need no model.

    Raises:
        OptionError, OutputError: as `export_model`.
    """
    require_path("path", path)
    require_choice("format", format, FORMATS)
    chosen = FORMATS[format]
    _require_applicable(options, format, chosen)
    if chosen.suffix:
        require_ending(path, chosen.suffix)
    check_output(path, overwrite=options.overwrite, folder=not chosen.suffix, kind=chosen.kind)
    return chosen


def _require_applicable(options: ExportOptions, name: str, chosen: ExportFormat) -> None:
    """Check that all options that are given are those of the format."""
    given = [
        each
        for each, entry in option_fields(ExportOptions).items()
        if getattr(options, each) != entry.default and each not in {*chosen.options, "overwrite"}
    ]
    if given:
        others = [other for other, entry in FORMATS.items() if set(given) <= set(entry.options)]
        where = f" to the {'format' if len(others) == 1 else 'formats'} {', '.join(others)}" if others else ""
        raise OptionError(f"{only_apply(given)}{where}, not to {name}. Leave out what does not apply.")
