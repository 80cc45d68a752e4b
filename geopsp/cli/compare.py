"""The shell's command `geopsp compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geopsp.assessment.comparison.comparison_options import ComparisonOptions
from geopsp.cli.options import dry_run_option, json_option, options_of, overwrite_option, take
from geopsp.cli.plan import Plan, show_plan
from geopsp.cli.results import show, wrote
from geopsp.cli.shell_command import ShellCommand


@click.command(
    cls=ShellCommand,
    strict=True,
    stopped="Nothing is kept of the scores.",
    examples=("geopsp compare model-a model-b test-chips",),
)
@click.argument("model_a", type=click.Path(path_type=Path))
@click.argument("model_b", type=click.Path(path_type=Path))
@click.argument("chips", nargs=-1, required=True, metavar="CHIPS...")
@options_of(ComparisonOptions)
@json_option
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), help="Also write a row per chip as a table (.csv).")
@dry_run_option
@overwrite_option
def compare(
    model_a: Path,
    model_b: Path,
    chips: tuple[str, ...],
    json_path: Path | None,
    csv_path: Path | None,
    dry_run: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Say whether MODEL_B is better than MODEL_A on the labelled CHIPS, or the difference is noise.

    Give CHIPS of ground that neither model was trained on.
    """
    from geopsp.assessment.result_files import check_results
    from geopsp.core.extras import require_torch
    from geopsp.models.hub_model import local_model
    from geopsp.models.manifest import read_manifest
    from geopsp.models.onnx_file import is_onnx

    options = take(options, ComparisonOptions)
    tables = check_results({".json": json_path, ".csv": csv_path}, (), overwrite=overwrite)
    folders = [local_model(model) for model in (model_a, model_b)]
    for folder in folders:
        if not is_onnx(folder):
            read_manifest(folder)  # before torch is loaded
    require_torch("`geopsp compare`")
    from geopsp.assessment.comparison.compare_models import compare_models, comparison_cost

    if dry_run:
        costs = comparison_cost(folders[0], folders[1], list(chips), ComparisonOptions(**options))
        show_plan(
            Plan(
                reads=[*folders, *chips],
                notes=[f"{name}: {cost.text}" for name, cost in zip(("MODEL_A", "MODEL_B"), costs, strict=True)],
                writes=tables,
                seconds=sum(cost.seconds for cost in costs),
            )
        )
        return
    found = compare_models(folders[0], folders[1], list(chips), **options)
    show(found.text(), found.to_json())
    wrote(*(found.save(path, overwrite=overwrite) for path in tables))
