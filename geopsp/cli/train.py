"""The shell's commands `geopsp train` and `geopsp evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geopsp.chips.options import CUTTING
from geopsp.cli.config_file import config_text
from geopsp.cli.inputs import checked_model, labels_help, labels_of
from geopsp.cli.option_values import Choice
from geopsp.cli.options import dry_run_option, json_option, mismatch_option, options_of, overwrite_option, take
from geopsp.cli.plan import Plan, show_plan
from geopsp.cli.results import say, show, wrote
from geopsp.cli.shell_command import TYPED, ShellCommand
from geopsp.core.addresses import local_path, work_path
from geopsp.core.escape import utf8_text
from geopsp.errors import OptionError
from geopsp.models.loss_options import LossSpec
from geopsp.training.options import NETWORKS, DataOptions, FitOptions, ModelOptions, RunConfig
from geopsp.training.presets import ONLY_OF


@click.command(
    cls=ShellCommand,
    strict=True,
    stopped="Finished epochs are kept in the folder of the run (--run, or OUT.run): the same command with --resume "
    "goes on from them.",
    examples=(
        "geopsp train chips --out model --minutes 30",
        "geopsp train chips --out model --preset best --backbone resnet50 --epochs 40",
        "geopsp train --config run.yaml --out model-2",
    ),
)
@click.argument("chips", nargs=-1, required=True, metavar="CHIPS...")
@click.option("--labels", multiple=True, help=f"Train straight from images, given instead of CHIPS. {labels_help}")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Model folder to write.")
@click.option("--network", type=Choice(NETWORKS), default=NETWORKS[0], show_default=True, help="Architecture.")
@options_of(ModelOptions, *ONLY_OF.values(), LossSpec, FitOptions, RunConfig)
@click.option("--freeze", is_flag=True, help="Keep the encoder's weights as they are.")
@options_of(DataOptions)
@options_of(*CUTTING, without=("tile_size", "seed"))
@dry_run_option
@overwrite_option
def train(
    chips: tuple[str, ...],
    labels: tuple[str, ...],
    out: Path,
    network: str,
    freeze: bool,
    dry_run: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Train a network on one or several folders of CHIPS, or with --labels straight from images, and save it."""
    from geopsp.core.extras import require_torch

    require_torch("`geopsp train`")
    from geopsp.core.lock import output_lock
    from geopsp.core.log import is_main_process
    from geopsp.core.output import check_output
    from geopsp.core.owned_files import remove_owned
    from geopsp.models.manifest import MODEL_FOLDER, REPORT
    from geopsp.report.summary import describe_scores, model_report
    from geopsp.training.estimate_training import estimate_training
    from geopsp.training.fit import RUN_FOLDER
    from geopsp.training.report_classifier import write_report
    from geopsp.training.resolve_options import RUN
    from geopsp.training.score_classifier import score_validation

    check_output(out, overwrite=overwrite, folder=True, kind=MODEL_FOLDER)
    model = _classifier(chips, labels, network, options)
    if freeze:
        model.freeze()
    if is_main_process():
        say(repr(model))
    fit_options = take(options, FitOptions, RunConfig)
    if dry_run:
        cost = estimate_training(model, **fit_options)
        inputs = [chips, *labels] if labels else chips
        show_plan(Plan(reads=inputs, notes=cost.lines, writes=[out], max_bytes=cost.num_bytes, seconds=cost.seconds))
        return
    keeps_run = "folder" in fit_options
    folder = Path(fit_options.setdefault("folder", work_path(out, f"{out.name}.run")))
    is_new = overwrite and not keeps_run and not fit_options.get("resume")
    if is_new and (folder / RUN).exists() and is_main_process():
        with output_lock(folder):
            remove_owned(folder, RUN_FOLDER)
    model.fit(**fit_options)
    if not is_main_process():
        return
    scores, context = score_validation(model), click.get_current_context()
    model.model.run_config = config_text(context)
    model.model.record = model.model.record.model_copy(update={"command": utf8_text(context.meta[TYPED])})
    saved = local_path(model.save(out, overwrite=overwrite, compute_metrics=False))
    page = write_report(saved, saved / REPORT, overwrite=True)
    show(describe_scores(scores), {"scores": scores.to_json(), "model": model_report(saved)})
    wrote(saved, page)
    if not keeps_run:
        _clear_run(folder, keep_logs=fit_options.get("tensorboard", False))


def _clear_run(folder: Path, *, keep_logs: bool) -> None:
    """Delete our files in the folder of a finished run, or all of them but the logs."""
    from geopsp.core.owned_files import remove_matching
    from geopsp.training.fit import RUN_FOLDER, RUN_LOGS

    remove_matching(folder, RUN_FOLDER, keep=RUN_LOGS if keep_logs else ())


def _classifier(chips: tuple[str, ...], labels: tuple[str, ...], network: str, options: dict[str, Any]) -> Any:
    """Return the network that the options describe, with these chips as its data."""
    from geopsp.training.networks import CLASSIFIERS
    from geopsp.training.training_data import prepare_data

    own: dict[str, Any] = {}
    for name, cls in ONLY_OF.items():
        given = take(options, cls)
        if given and name != network:
            raise OptionError(_not_for(network, name, given))
        own |= given
    source = {"images": list(chips), "labels": labels_of(chips, labels)} if labels else {"path": list(chips)}
    data = prepare_data(**source, **take(options, *CUTTING, DataOptions))
    return CLASSIFIERS[network](data, **own, **take(options, ModelOptions, LossSpec))


def _not_for(network: str, other: str, given: dict[str, Any]) -> str:
    """Say that options are those of another network."""
    names = ", ".join(f"`{name}={value!r}`" for name, value in given.items())
    applies, them = ("applies", "it") if len(given) == 1 else ("apply", "them")
    return f"{names} only {applies} to the network {other}, not to {network}. Leave {them} out."


@click.command(
    cls=ShellCommand,
    strict=True,
    stopped="Nothing is kept of the scores.",
    examples=(
        "geopsp evaluate model test-chips --json scores.json",
        "geopsp evaluate model test-chips --report report.html",
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("chips", nargs=-1, required=True, metavar="CHIPS...")
@json_option
@click.option(
    "--report", "report_path", type=click.Path(path_type=Path), help="Also write an HTML report to this file."
)
@options_of(ModelOptions, only=("device",))
@mismatch_option("Score")
@dry_run_option
@overwrite_option
def evaluate(
    model: Path,
    chips: tuple[str, ...],
    json_path: Path | None,
    report_path: Path | None,
    device: str | None,
    allow_resolution_mismatch: bool,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Score MODEL on every labelled pixel of CHIPS."""
    from geopsp.chips.chip_set import ChipSet
    from geopsp.core.output import check_output
    from geopsp.report.summary import describe_scores, write_scores
    from geopsp.training.report_classifier import check_report_path, score_test_chips, write_score_report

    if json_path:
        check_output(json_path, overwrite=overwrite)
    if report_path:
        check_report_path(report_path, overwrite=overwrite)
    model = checked_model(model, "evaluate")
    chip_set = ChipSet.open(list(chips))
    from geopsp.training.classifier import PixelClassifier

    classifier = PixelClassifier.from_model(model, device=device)
    if dry_run:
        from geopsp.training.estimate_scoring import estimate_scoring
        from geopsp.training.evaluate import chip_loader

        chip_loader(classifier.model, chip_set, allow_resolution_mismatch=allow_resolution_mismatch)  # its checks
        cost = estimate_scoring(classifier.model, chip_set, device)
        writes = [path for path in (json_path, report_path) if path]
        show_plan(Plan(reads=[model, *chips], notes=[cost.text], writes=writes, seconds=cost.seconds))
        return
    if report_path:
        scores, found = score_test_chips(
            classifier, chip_set, device, allow_resolution_mismatch=allow_resolution_mismatch
        )
        write_score_report(model, report_path, found, overwrite=overwrite)
        wrote(report_path)
    else:
        scores = classifier.evaluate(chip_set, allow_resolution_mismatch=allow_resolution_mismatch)
    show(describe_scores(scores), scores.to_json())
    if json_path:
        write_scores(scores, json_path, overwrite=overwrite)
        wrote(json_path)
