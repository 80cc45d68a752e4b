"""The shell's command `geopsp export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geopsp.cli.inputs import checked_model
from geopsp.cli.option_values import Choice
from geopsp.cli.options import dry_run_option, options_of, take
from geopsp.cli.plan import Plan, file_bytes, show_plan
from geopsp.cli.results import record, wrote
from geopsp.cli.shell_command import ShellCommand
from geopsp.export.formats import FORMATS
from geopsp.export.options import ExportOptions

FORMATS_HELP = "; ".join(f"{name}: {chosen.words}" for name, chosen in FORMATS.items())


START_SECONDS, BYTES_PER_SECOND = 8, 10e6
"""About how long an export takes: to start, and for the weights."""


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
@dry_run_option
def export(model: Path, format_name: str, out: Path, dry_run: bool, **options: Any) -> None:
    """Write MODEL as a file that other programs read, checked beside the model itself."""
    model = checked_model(model, "export")
    options = take(options, ExportOptions)
    from geopsp.export.export_model import check_export, export_model

    if dry_run:
        check_export(out, format_name, ExportOptions(**options))
        size = file_bytes(model)
        inputs = [*options.get("chips", ()), *options.get("images", ())]
        show_plan(
            Plan(reads=[model, *inputs], writes=[out], max_bytes=size, seconds=START_SECONDS + size / BYTES_PER_SECOND)
        )
        return
    export_model(model, out, format_name, **options)
    record({"format": format_name})
    wrote(out)
