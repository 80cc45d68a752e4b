"""Options of exported models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geopsp.core.options import check_fields, describes_itself, option, require_path
from geopsp.errors import OptionError

LICENSE = r"[A-Za-z0-9][A-Za-z0-9.+-]{0,60}"
"""Words for licences, as the Hub and SPDX have them."""

PRECISIONS = ("fp32", "fp16")


@describes_itself
@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a model is exported.

    Attributes:
        {options}

    Raises:
        OptionError: if one is out of range, or two contradict each other.
    """

    precision: str = option(
        "fp32",
        "fp32, or fp16: half as large, meant for GPUs. Input and output are float32 in both.",
        choices=PRECISIONS,
    )
    pointrend: bool = option(
        True,
        "False leaves PointRend out, for programs that cannot run it: outlines become less sharp.",
        flag="--no-pointrend",
        shell_help="Leave PointRend out, for programs that cannot run it: outlines become less sharp.",
    )
    calibrated: bool = option(
        True,
        "Give calibrated probabilities, if the model is calibrated; classes do not change. False: those of the network "
        "itself. A package for ArcGIS gives classes only, so it has these.",
        flag="--no-calibrated",
        shell_help="Give the network's own probabilities, as if the model was not calibrated.",
    )
    tile_size: int | None = option(
        None,
        "Side of the tiles that the file takes, a multiple of 32. None: that of the training, which suits the model "
        "best.",
        unit="pixels",
        minimum=32,
    )
    chips: str | Path | Sequence[str | Path] | None = option(
        None,
        "Chip folder whose pixels the exported file is checked on. None: the validation chips, if the model was loaded "
        "with data; else tiles drawn from the statistics of the training pixels.",
        shell_help="Chip folder whose pixels the exported file is checked on. Default: tiles drawn from the statistics "
        "of the training pixels.",
    )
    images: str | Path | Sequence[str | Path] | None = option(
        None,
        "Images that the exported file is checked on, instead of `chips`.",
    )
    onnx: bool = option(False, "Also write the network as an ONNX file, checked beside the model.")
    license: str | None = option(
        None,
        "Licence of the model as the Hugging Face Hub writes it, e.g. apache-2.0 or cc-by-4.0. None: unknown, and the "
        "model card says so.",
        metavar="ID",
    )
    overwrite: bool = option(False, "Replace an output that exists.")

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("chips", "images"):
            given = getattr(self, name)
            for path in given if isinstance(given, list | tuple) else [given]:
                require_path(name, path, optional=True)
        if self.license is not None and not re.fullmatch(LICENSE, self.license):
            raise OptionError(f"`license` is {self.license!r}, but must be a word such as 'apache-2.0' or 'cc-by-4.0'.")
        if self.chips and self.images:
            raise OptionError("`chips` and `images` are both given, but a file is checked on one. Leave one out.")
