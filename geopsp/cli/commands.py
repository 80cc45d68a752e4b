"""The shell's way through: `geopsp chips`, `train`, `evaluate`, `predict`, `polygonize`, `info`, `demo`.

Nothing heavy is imported before a command runs, so that `geopsp --help` is quick.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click

import geopsp
from geopsp.cli.options import (
    CUTTING_DEFAULTS,
    cutting_options,
    device_option,
    map_options,
    output_options,
    overwrite_option,
    shaping_options,
    split_options,
    take_chip_options,
    take_polygon_options,
    training_options,
)
from geopsp.errors import GeopspError, OptionError
from geopsp.vector.formats import ENDINGS


class Commands(click.Group):
    """Shows errors of ours in one line and exits with 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GeopspError as error:
            click.echo(f"Error: {' '.join(str(error).split())}", err=True)
            sys.exit(2)


images_argument = click.argument("images", nargs=-1, required=True, metavar="IMAGE...")


ALSO = ("polygons", "probabilities", "confidence", "disagreement")


labels_help = "Polygons (FILE or FILE|layername=LAYER), lines, points, or a raster of class codes."


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(geopsp.__version__)
def main() -> None:
    """Turn satellite and aerial imagery into maps: chips, training, prediction, polygons."""


@main.command()
@images_argument
@click.option("--labels", required=True, help=labels_help)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to make.")
@click.option("--size", default=256, show_default=True, help="Side of a chip in pixels.")
@cutting_options
@click.option("--seed", default=42, show_default=True, help="Of the random chips.")
@click.option("--format", "chip_format", type=click.Choice(["tif", "png", "jpg"]), default="tif", show_default=True)
@click.option("--append", is_flag=True, help="Add to a folder that exists.")
@click.option("--workers", type=int, help="Threads. Default: as many as there are cores.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the report to this file.")
@click.option("--picture", type=click.Path(path_type=Path), help="Also a picture of the chips over the images (.png).")
@overwrite_option
def chips(images: tuple[str, ...], labels: str, out: Path, **options: Any) -> None:
    """Cut georeferenced training chips from IMAGEs and labels.

    An IMAGE is a raster, a URL, a glob, a folder, or a STAC item or item collection.
    """
    from geopsp.chips.export_training_data import export_training_data
    from geopsp.core.progress import progress_bar
    from geopsp.report.summary import describe_chips, write_chip_report

    cut, json_path, picture = take_chip_options(options), options.pop("json_path"), options.pop("picture")
    size = options.pop("size")
    with progress_bar("Cutting chips") as progress:
        found = export_training_data(list(images), labels, out, tile_size=size, progress=progress, **cut, **options)
    click.echo(describe_chips(found))
    if json_path:
        write_chip_report(found, json_path, overwrite=True)
    if picture:
        from geopsp.report.chip_map import chip_map
        from geopsp.training.plots import save_figure

        save_figure(chip_map(found), picture)


@main.command()
@click.argument("chips", nargs=-1, required=True, metavar="CHIPS...")
@click.option("--labels", help=f"Train straight from rasters, which are given for CHIPS. {labels_help}")
@cutting_options
@training_options
@split_options
@device_option
@overwrite_option
def train(chips: tuple[str, ...], out: Path, **o: Any) -> None:
    """Train a network on one folder of CHIPS or several, or with --labels straight from images, and save it."""
    from geopsp.core.log import is_main_process
    from geopsp.core.output import check_output
    from geopsp.models.saved_model import MANIFEST
    from geopsp.report.summary import describe_scores
    from geopsp.training.fit import RUN

    check_output(out, overwrite=o["overwrite"], folder=True, marker=MANIFEST)
    model = _classifier(chips, o)
    if o["freeze"]:
        model.freeze()
    if is_main_process():
        click.echo(repr(model))
    folder = o["run"] or out.with_name(f"{out.name}.run")
    if o["overwrite"] and not o["run"] and not o["resume"] and (folder / RUN).exists() and is_main_process():
        shutil.rmtree(folder)
    model.fit(
        o["epochs"],
        o["lr"],
        folder=folder,
        **{name: o[name] for name in ("early_stopping", "monitor", "accumulate", "ema", "compiled", "devices", "nodes",
                                      "resume", "tensorboard")},
    )  # fmt: skip
    if not is_main_process():
        return
    saved = model.save(out, overwrite=o["overwrite"])
    click.echo(describe_scores(model.evaluate()))
    click.echo(f"Saved to {saved}")
    if not o["run"]:
        _clear(folder, keep=o["tensorboard"])


def _clear(folder: Path, *, keep: bool) -> None:
    """Of a run that is over, only its logs stay, if at all."""
    if not keep:
        shutil.rmtree(folder)
        return
    for path in (*folder.glob("*.ckpt"), *folder.glob("run.json")):
        path.unlink()


def _classifier(chips: tuple[str, ...], o: dict[str, Any]) -> Any:
    """The network that the options describe, for these chips."""
    from geopsp import DeepLab, FCNClassifier, PSPNetClassifier, UnetClassifier, prepare_data

    cut = take_chip_options(o)
    source = {"images": list(chips), "labels": o["labels"], **cut} if o["labels"] else {"path": list(chips)}
    if not o["labels"] and (given := [name for name, value in cut.items() if value != CUTTING_DEFAULTS[name]]):
        raise OptionError(f"{', '.join(given)}: these say how chips are cut, and need --labels. Leave them out.")
    data = prepare_data(
        **source,
        chip_size=o["chip_size"],
        val_split_pct=o["val_split"],
        batch_size=o["batch_size"] or None,
        valid_path=list(o["valid_path"]) or None,
        **{name: o[name] for name in ("seed", "workers", "balanced_sampling", "cache", "split", "block_size", "gap",
                                      "folds", "fold")},
    )  # fmt: skip
    same = (
        "pointrend",
        "encoder_depth",
        "class_balancing",
        "focal_loss",
        "label_smoothing",
        "ohem",
        "mixup",
        "device",
    )
    options = {name: o[name] for name in same}
    options |= {f"{name}_fraction": o[name] for name in ("lovasz", "tversky")} | {"dice_loss_fraction": o["dice"]}
    weights = {"none": None}.get(o["weights"].lower(), o["weights"])
    options |= {"ignore_classes": o["ignore_classes"], "pretrained_path": o["pretrained"]}
    options |= {} if o["pretrained"] and weights == "auto" else {"encoder_weights": weights}
    options |= {name: o[name] for name in ("output_stride", "aux", "aux_loss") if o[name] is not None}
    shape = {} if o["pyramid_sizes"] is None else {"pyramid_sizes": o["pyramid_sizes"]}
    shape |= {"use_unet": False} if o["no_unet"] else {}
    if shape and o["network"] != "pspnet":
        raise OptionError(f"--pyramid-sizes and --no-unet are pspnet's; the network is {o['network']}. Leave them out.")
    kinds = {"pspnet": PSPNetClassifier, "fcn": FCNClassifier, "unet": UnetClassifier, "deeplab": DeepLab}
    return kinds[o["network"]](data, o["backbone"], **shape, **options)


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("chips", nargs=-1, required=True, metavar="CHIPS...")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the scores to this file.")
@device_option
@overwrite_option
def evaluate(model: Path, chips: tuple[str, ...], json_path: Path | None, device: str | None, overwrite: bool) -> None:
    """Score MODEL on every labelled pixel of CHIPS."""
    from geopsp.core.output import check_output
    from geopsp.report.summary import describe_scores, write_scores
    from geopsp.training.classifier import PixelClassifier

    if json_path:
        check_output(json_path, overwrite=overwrite)
    classifier = PixelClassifier.from_model(model, device=device)
    scores = classifier.evaluate(list(chips))
    if json_path:
        write_scores(scores, json_path, overwrite=overwrite)
    click.echo(describe_scores(scores))


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@images_argument
@output_options
@map_options
def predict(model: Path, images: tuple[str, ...], out: str, no_background: bool, **o: Any) -> None:
    """Map IMAGEs, as one mosaic or each by itself, with MODEL.

    A run that was broken off goes on where it was when it is called again. From --connectivity to --regularize
    options say how --polygons are made.
    """
    from geopsp.inference.classify_pixels import classify_pixels

    o |= {"polygon_options": take_polygon_options(o), "predict_background": not no_background}
    found: Any = classify_pixels(list(images), model, out, **o)
    for path in (*(found if isinstance(found, list) else [found]), *(o[name] for name in ALSO if o[name])):
        click.echo(f"Wrote {path}")


@main.command()
@click.argument("raster", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help=ENDINGS)
@shaping_options
@click.option("--confidence", type=click.Path(path_type=Path), help="A raster of how sure the map is of each pixel.")
@overwrite_option
def polygonize(raster: Path, out: Path, confidence: Path | None, overwrite: bool, **o: Any) -> None:
    """Make polygons of a class RASTER."""
    from geopsp.polygons.raster_to_polygons import raster_to_polygons

    raster_to_polygons(raster, out, confidence=confidence, overwrite=overwrite, **take_polygon_options(o))
    click.echo(f"Wrote {out}")


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
def info(path: Path) -> None:
    """Tell what PATH is: a raster, a chip folder or a model."""
    from geopsp.report.summary import describe_path

    click.echo(describe_path(path))


@main.command()
@click.option("--out", default="demo", show_default=True, type=click.Path(path_type=Path), help="Where results go.")
@click.option("--data", type=click.Path(path_type=Path), help="The sample data. Default: those that come with geopsp.")
@click.option("--epochs", type=int, help="Default: as many as a few minutes on two cores allow.")
@overwrite_option
def demo(out: Path, data: Path | None, epochs: int | None, overwrite: bool) -> None:
    """Run the whole job on the sample data: chips, training, scores, map, polygons, report."""
    from geopsp.cli.demo import run

    run(out, data=data, epochs=epochs, overwrite=overwrite)


if __name__ == "__main__":
    main()
