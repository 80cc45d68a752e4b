"""The shell's command `geopsp export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geopsp.cli.inputs import checked_model
from geopsp.cli.options import Choice, options_of, take
from geopsp.cli.shell_command import ShellCommand, say
from geopsp.export.formats import FORMATS
from geopsp.export.options import ExportOptions

FORMATS_HELP = "; ".join(f"{name}: {chosen.words}" for name, chosen in FORMATS.items())


@click.command(
    cls=ShellCommand,
    strict=True,
    stopped="Nothing was written.",
    examples=("geopsp export model --to onnx --out model.onnx", "geopsp export model --to dlpk --out model.dlpk"),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--to", "format_name", required=True, type=Choice(list(FORMATS)), help=f"{FORMATS_HELP}.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File or folder to write.")
@options_of(ExportOptions)
def export(model: Path, format_name: str, out: Path, **options: Any) -> None:
    """Write MODEL as a file that other programs read, checked beside the model itself."""
    model = checked_model(model, "export")
    from geopsp.export.export_model import export_model

    say(f"Wrote {export_model(model, out, format_name, **take(options, ExportOptions))}")
