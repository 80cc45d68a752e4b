"""The shell: `geopsp chips`, `train`, `evaluate`, `predict`, `polygonize`, `info`, `weights`, `export` ...

Nothing heavy is imported before a command runs, so that `geopsp --help` is quick.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

import geopsp
from geopsp.chips.options import CUTTING, ChipSpec, ExportOptions
from geopsp.cli.assess import assess
from geopsp.cli.change import change
from geopsp.cli.compare import compare
from geopsp.cli.completion import completion
from geopsp.cli.config_file import config_text
from geopsp.cli.doctor import doctor
from geopsp.cli.export import export
from geopsp.cli.inputs import images_argument, input_files, labels_help, labels_of
from geopsp.cli.options import dry_run_option, options_of, overwrite_option, take
from geopsp.cli.sample import sample
from geopsp.cli.shell_command import ShellCommand, say, say_verbatim
from geopsp.cli.suggest import suggest
from geopsp.core.escape import printable_lines
from geopsp.core.options import option_fields
from geopsp.errors import OptionError
from geopsp.inference.options import MapOptions
from geopsp.models.crf import CRFOptions
from geopsp.models.loss_options import LossSpec
from geopsp.polygons.options import PolygonOptions, PolygonSettings
from geopsp.training.options import NETWORKS, DataOptions, FitOptions, ModelOptions, RunConfig
from geopsp.training.presets import ONLY_OF
from geopsp.vector.formats import ENDINGS


class Commands(click.Group):
    """The commands of the shell."""

    command_class = ShellCommand

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; suggest the one that an unknown name means."""
        name = args[0]
        near = get_close_matches(name, self.commands, 1)
        if name not in self.commands and not name.startswith("-"):
            hint = f"Did you mean {near[0]}?" if near else f"The commands are {', '.join(self.list_commands(ctx))}."
            raise click.UsageError(f"No such command {name!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            text = printable_lines(error.format_message().split("\n"))
            if text == error.format_message():
                raise
            raise click.UsageError(text, error.ctx) from None  # a * in the shell may stand for any name


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(geopsp.__version__)
def main() -> None:
    """Turn satellite and aerial imagery into maps: chips, training, prediction, polygons."""


@main.command(
    strict=True,
    stopped="Chips that are cut are kept: the same command goes on from them.",
    examples=(
        "geopsp chips scene.tif --labels fields.gpkg --class-field crop --out chips",
        "geopsp chips 'images/*.tif' --labels 'masks/*.png' --out chips --size 512 --stride 256",
    ),
)
@images_argument
@click.option("--labels", required=True, multiple=True, help=labels_help)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Chip folder to write.")
@options_of(*CUTTING, ExportOptions)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the report to this file.")
@click.option("--picture", type=click.Path(path_type=Path), help="Also draw the chips over the images (.png).")
@dry_run_option
def chips(
    images: tuple[str, ...],
    labels: tuple[str, ...],
    out: Path,
    json_path: Path | None,
    picture: Path | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Cut georeferenced training chips from IMAGEs and labels.

    An IMAGE is a raster, a URL, a glob, a folder, or a STAC item or item collection.
    """
    from geopsp.chips.export_training_data import export_training_data
    from geopsp.core.output import check_output
    from geopsp.core.owned_files import require_not_inputs
    from geopsp.core.progress import progress_bar
    from geopsp.report.summary import describe_chips, write_chip_report

    options = take(options, *CUTTING, ExportOptions)
    overwrite, reports = options.get("overwrite", False), [path for path in (json_path, picture) if path]
    for path in reports:
        check_output(path, overwrite=overwrite)
    if reports:
        require_not_inputs(reports, input_files(*images, *labels))
    if dry_run:
        say(describe_chips(_chips_to_cut(images, labels, options)))
        say(f"Nothing was written; the chips would go to {out}.")
        return
    with progress_bar("Cutting chips") as progress:
        chip_set = export_training_data(list(images), labels_of(images, labels), out, progress=progress, **options)
    say(describe_chips(chip_set))
    require_not_inputs(reports, [Path(file) for files in chip_set.files.values() for file in files])
    if json_path:
        write_chip_report(chip_set, json_path, overwrite=overwrite)
    if picture:
        from geopsp.report.chip_map import chip_map
        from geopsp.training.plots import save_figure

        save_figure(chip_map(chip_set, images=chip_set.files), picture, overwrite=overwrite)


def _chips_to_cut(images: tuple[str, ...], labels: tuple[str, ...], options: dict[str, Any]) -> Any:
    """Return the chips that `geopsp chips` would write."""
    from geopsp.chips.export_training_data import index_chips
    from geopsp.chips.labelled_scenes import LabelledScenes
    from geopsp.core.progress import progress_bar

    spec = ChipSpec(**{name: options[name] for name in option_fields(ChipSpec) if name in options})
    cutting = {name: options[name] for name in option_fields(*CUTTING) if name in options}
    scenes = LabelledScenes.open(list(images), labels_of(images, labels), **cutting)
    with progress_bar("Cutting chips") as progress:
        return index_chips(scenes, spec, workers=options.get("workers"), progress=progress)


@main.command(
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
@click.option("--network", type=click.Choice(NETWORKS), default=NETWORKS[0], show_default=True, help="Architecture.")
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
    from geopsp.models.manifest import MODEL_FOLDER
    from geopsp.report.summary import describe_scores
    from geopsp.training.estimate_training import estimate_training
    from geopsp.training.fit import RUN_FOLDER
    from geopsp.training.resolve_options import RUN

    check_output(out, overwrite=overwrite, folder=True, kind=MODEL_FOLDER)
    model = _classifier(chips, labels, network, options)
    if freeze:
        model.freeze()
    if is_main_process():
        say(repr(model))
    fit_options = take(options, FitOptions, RunConfig)
    if dry_run:
        for line in estimate_training(model, **fit_options):
            say(line)
        say(f"Nothing was written; the model would go to {out}.")
        return
    keeps_run = "folder" in fit_options
    folder = Path(fit_options.setdefault("folder", out.with_name(f"{out.name}.run")))
    is_new = overwrite and not keeps_run and not fit_options.get("resume")
    if is_new and (folder / RUN).exists() and is_main_process():
        with output_lock(folder):
            remove_owned(folder, RUN_FOLDER)
    model.fit(**fit_options)
    if not is_main_process():
        return
    scores = model.evaluate()
    model.model.metrics = scores.to_json()
    model.model.run_config = config_text(click.get_current_context())
    saved = model.save(out, overwrite=overwrite, compute_metrics=False)
    say(describe_scores(scores))
    say(f"Saved to {saved}")
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


@main.command(
    strict=True,
    stopped="Nothing is kept of the scores.",
    examples=("geopsp evaluate model test-chips --json scores.json",),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("chips", nargs=-1, required=True, metavar="CHIPS...")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the scores to this file.")
@options_of(ModelOptions, only=("device",))
@click.option(
    "--allow-resolution-mismatch",
    is_flag=True,
    help="Score chips whose pixels are more than 4 times larger or smaller than those of the training, too.",
)
@overwrite_option
def evaluate(
    model: Path,
    chips: tuple[str, ...],
    json_path: Path | None,
    device: str | None,
    allow_resolution_mismatch: bool,
    overwrite: bool,
) -> None:
    """Score MODEL on every labelled pixel of CHIPS."""
    from geopsp.chips.chip_set import ChipSet
    from geopsp.core.extras import require_torch
    from geopsp.core.output import check_output
    from geopsp.models.hub_model import local_model
    from geopsp.models.manifest import read_manifest
    from geopsp.report.summary import describe_scores, write_scores

    if json_path:
        check_output(json_path, overwrite=overwrite)
    model = local_model(model)
    read_manifest(model)  # before torch is loaded
    chip_set = ChipSet.open(list(chips))
    require_torch("`geopsp evaluate`")
    from geopsp.training.classifier import PixelClassifier

    scores = PixelClassifier.from_model(model, device=device).evaluate(
        chip_set, allow_resolution_mismatch=allow_resolution_mismatch
    )
    if json_path:
        write_scores(scores, json_path, overwrite=overwrite)
    say(describe_scores(scores))


@main.command(
    strict=True,
    stopped="Parts that are made are kept: the same command goes on from them.",
    examples=(
        "geopsp predict model scene.tif --out map.tif",
        "geopsp predict model 'tiles/*.tif' --out map.tif --polygons map.gpkg --min-area 50 --simplify 0.5",
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@images_argument
@click.option("--out", required=True, type=click.Path(), help="GeoTIFF (COG) to write; with --per-image a folder.")
@options_of(MapOptions)
@options_of(CRFOptions)
@options_of(PolygonSettings, unset=True)
def predict(model: Path, images: tuple[str, ...], out: str, **options: Any) -> None:
    """Classify IMAGEs with MODEL, as one mosaic or each by itself.

    MODEL is the folder of a saved model, its name on the Hugging Face Hub (hf://OWNER/NAME), or an ONNX file of
    `geopsp export`, which needs no PyTorch.
    An interrupted run resumes when the same command is called again. The options from --connectivity to --regularize
    say how --polygons are made.
    """
    from geopsp.inference.classify_pixels import classify_pixels
    from geopsp.inference.map_item import item_path
    from geopsp.inference.outputs import extra_outputs

    polygon_options, crf_options = take(options, PolygonSettings), take(options, CRFOptions)
    options = take(options, MapOptions)
    if crf_options:
        options["crf"] = CRFOptions(**crf_options)
    if polygon_options:
        options["polygon_options"] = polygon_options
    found: Any = classify_pixels(list(images), model, out, **options)
    maps = found if isinstance(found, list) else [found]
    if options.get("dry_run"):
        say("Nothing was written.")
        return
    for path in (
        *maps,
        *(options[name] for name in extra_outputs() if name in options),
        *(item_path(path) for path in maps if options.get("stac")),
    ):
        say(f"Wrote {path}")


@main.command(
    strict=True,
    stopped="Nothing was written.",
    examples=("geopsp polygonize map.tif --out map.gpkg --min-area 50 --simplify 0.5 --drop background",),
)
@click.argument("raster", type=click.Path())
@click.option("--out", required=True, type=click.Path(path_type=Path), help=f"File to write: {ENDINGS}.")
@options_of(PolygonSettings, unset=True)
@options_of(PolygonOptions, only=("confidence", "nodata", "overwrite"))
def polygonize(raster: str, out: Path, **options: Any) -> None:
    """Write the regions of a class RASTER as polygons."""
    from geopsp.polygons.raster_to_polygons import raster_to_polygons

    raster_to_polygons(raster, out, **take(options, PolygonOptions))
    say(f"Wrote {out}")


@main.command(examples=("geopsp info scene.tif", "geopsp info chips model"))
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--json", "as_json", is_flag=True, help="Show the same as JSON.")
def info(paths: tuple[str, ...], as_json: bool) -> None:
    """Describe what a PATH is, and show the command that takes it.

    A PATH is a raster, a container of rasters such as NetCDF, a vector file (FILE or FILE|layername=LAYER), images
    (a folder, a glob or several files), a folder of images and masks, a chip folder or a model.
    """
    import json

    from geopsp.report.describe import describe

    found = describe(paths)
    if as_json:
        say_verbatim(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
    else:
        say(str(found))


@main.command(examples=("geopsp weights --backbone resnet50",))
@click.option("--backbone", help="Only those that fit this encoder.")
@click.option("--json", "as_json", is_flag=True, help="Show the same as JSON, with sources and checksums.")
def weights(backbone: str | None, as_json: bool) -> None:
    """List the published encoder weights for satellites that `geopsp train` takes as --weights NAME."""
    import json
    from dataclasses import asdict

    from geopsp.models.weight_sets import describe_weights, supported_weights

    rows = supported_weights(backbone)
    if as_json:
        say_verbatim(json.dumps([{**asdict(row), "url": row.url, "sha256": row.sha256} for row in rows], indent=1))
    else:
        say_verbatim(describe_weights(rows) if rows else f"There are none for {backbone}.")


@main.command(stopped="Nothing was written.", examples=("geopsp demo --out demo",))
@click.option("--out", default="demo", show_default=True, type=click.Path(path_type=Path), help="Folder for results.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the sample data. Default: geopsp's own.")
@click.option("--epochs", type=int, help="Passes over the training chips. Default: as many as take a few minutes.")
@overwrite_option
def demo(out: Path, data: Path | None, epochs: int | None, overwrite: bool) -> None:
    """Run all steps on the sample data: chips, training, scores, map, polygons, report."""
    from geopsp.cli.demo import run
    from geopsp.core.extras import require_torch

    require_torch("`geopsp demo`")
    run(out, data=data, epochs=epochs, overwrite=overwrite)


main.add_command(change)
main.add_command(compare)
main.add_command(assess)
main.add_command(export)
main.add_command(doctor)
main.add_command(completion)
main.add_command(suggest)
main.add_command(sample)


if __name__ == "__main__":
    main()
