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
from geopsp.errors import GeopspError, OptionError


class Commands(click.Group):
    """Shows errors of ours in one line and exits with 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GeopspError as error:
            click.echo(f"Error: {' '.join(str(error).split())}", err=True)
            sys.exit(2)


def _numbers(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Whole numbers parted by commas; "none" gives none of them."""
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(",") if part.strip() and value.lower() != "none")
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers such as 1,2,3,6.") from error


def _names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Names parted by commas."""
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


def _bands(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str | int, ...] | None:
    """Names or numbers parted by commas."""
    names = _names(context, option, value)
    return None if names is None else tuple(int(name) if name.isdigit() else name for name in names)


def _rates(_: click.Context, __: click.Parameter, value: str | None) -> float | tuple[float, ...] | None:
    """One number, or two parted by a comma."""
    try:
        numbers = tuple(float(part) for part in value.split(",")) if value else ()
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a learning rate such as 0.001, nor two such as 0.0001,0.001."
        ) from error
    return None if not numbers else numbers[0] if len(numbers) == 1 else numbers


images_argument = click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
device_option = click.option("--device", help="cpu, cuda:1 ... Default: the first GPU, else the CPU.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(geopsp.__version__)
def main() -> None:
    """Turn satellite and aerial imagery into maps: chips, training, prediction, polygons."""


@main.command()
@images_argument
@click.option("--labels", required=True, help="Polygons (FILE or FILE|layername=LAYER) or a raster of class codes.")
@click.option("--class-field", help="The attribute that holds the class. Default: all polygons are one class.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to make.")
@click.option("--size", default=256, show_default=True, help="Side of a chip in pixels.")
@click.option("--stride", type=int, help="Pixels from one chip to the next. Default: the size.")
@click.option("--background", type=click.Choice(["class", "ignore"]), default="class", show_default=True,
              help="What lies outside of polygons: a class of its own, or unlabelled.")  # fmt: skip
@click.option("--aoi", help="Polygons outside of which nothing is labelled (FILE or FILE|layername=LAYER).")
@click.option("--all-touched", is_flag=True, help="Burn each pixel that a polygon touches.")
@click.option("--min-labelled", default=0.0, show_default=True, help="Leave out chips with a smaller labelled share.")
@click.option("--bands", callback=_bands, help="Names or numbers from 1, parted by commas. Default: all.")
@click.option("--priority", callback=_names, help="Classes that lie on top where polygons overlap, the topmost first.")
@overwrite_option
def chips(images: tuple[str, ...], labels: str, out: Path, size: int, **options: Any) -> None:
    """Cut georeferenced training chips from IMAGEs and labels."""
    from geopsp.chips import export_training_data
    from geopsp.progress import shown
    from geopsp.report import describe_chips

    with shown("Cutting chips") as progress:
        found = export_training_data(list(images), labels, out, tile_size=size, progress=progress, **options)
    click.echo(describe_chips(found))


@main.command()
@click.argument("chips", nargs=-1, required=True, metavar="CHIPS...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The model folder to make.")
@click.option("--network", type=click.Choice(["pspnet", "fcn", "unet", "deeplab"]), default="pspnet", show_default=True)
@click.option("--backbone", default="resnet50", show_default=True, help="Encoder; resnet18 to resnet152 and more.")
@click.option("--epochs", default=10, show_default=True)
@click.option("--lr", callback=_rates,
              help="Highest learning rate, or LOW,HIGH of first and last layers. Default: a range test.")  # fmt: skip
@click.option("--batch-size", type=int, default=8, show_default=True, help="0: the largest that fits into memory.")
@click.option("--accumulate", default=1, show_default=True, help="Batches to add up for one step.")
@click.option("--chip-size", type=int, help="Side of what the network is shown. Default: the exported size.")
@click.option("--val-split", default=0.2, show_default=True, help="Share of the chips to validate on.")
@click.option("--no-unet", is_flag=True, help="pspnet: enlarge the result eightfold, without the U-Net decoder.")
@click.option("--pyramid-sizes", callback=_numbers, help="pspnet: bins, or none. Default: 1,2,3,6.")
@click.option("--pointrend", is_flag=True, help="Decide the least certain points anew, for sharper outlines.")
@click.option("--aux-loss/--no-aux-loss", default=None,
              help="An auxiliary loss on the encoder. Default: with the plain decoder only.")  # fmt: skip
@click.option("--aux", type=click.Choice(["pixel", "presence"]),
              help="What it learns: each pixel's class (default), or which classes a chip holds.")  # fmt: skip
@click.option("--weights", default="auto", show_default=True,
              help="Encoder weights: imagenet, none, auto (imagenet if it can be had) or a local file.")  # fmt: skip
@click.option("--pretrained", type=click.Path(path_type=Path), help="A weight file or saved model to start from.")
@click.option("--freeze", is_flag=True, help="Leave the encoder as it is.")
@click.option("--output-stride", type=int, help="8, 16 or 32; larger is faster and coarser. Default: the network's.")
@click.option("--encoder-depth", type=int, default=5, show_default=True, help="Stages of the encoder used, 3 to 5.")
@click.option("--class-balancing", is_flag=True, help="Weight rare classes up in the loss.")
@click.option("--balanced-sampling", is_flag=True, help="Draw chips with rare classes more often.")
@click.option("--focal-loss", is_flag=True, help="Weight hard pixels up.")
@click.option("--dice", default=0.0, show_default=True, help="Share of the Dice loss, 0 to 1.")
@click.option("--lovasz", default=0.0, show_default=True, help="Share of the Lovasz loss, 0 to 1.")
@click.option("--tversky", default=0.0, show_default=True, help="Share of the Tversky loss, 0 to 1.")
@click.option("--label-smoothing", default=0.0, show_default=True)
@click.option("--ohem", default=1.0, show_default=True, help="Share of the pixels, the hardest, that count.")
@click.option("--mixup", is_flag=True, help="Train on mixtures of two chips.")
@click.option("--ignore-classes", callback=_names, help="Classes that count as unlabelled, parted by commas.")
@click.option("--early-stopping", is_flag=True, help="Stop when validation gets no better for 5 epochs.")
@click.option("--monitor", default="valid_loss", show_default=True, help="What decides which epoch is best.")
@click.option("--ema", default=0.0, show_default=True, help="Decay of a moving average of the weights, e.g. 0.999.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the network first; for long runs on a GPU.")
@click.option("--devices", default=1, show_default=True, help="GPUs in each machine.")
@click.option("--nodes", default=1, show_default=True, help="Machines, each started by torchrun or Slurm.")
@click.option("--workers", type=int, help="Processes that read chips. Default: as the machine has cores.")
@click.option("--cache", type=click.Path(path_type=Path), help="A folder for decoded chips, for sets read many times.")
@click.option("--run", type=click.Path(path_type=Path),
              help="A folder for checkpoints and logs. Default: OUT.run, of which logs alone stay.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with a run that was broken off.")
@click.option("--tensorboard", is_flag=True, help="Write a log for TensorBoard into the run's folder.")
@click.option("--seed", default=42, show_default=True)
@device_option
@overwrite_option
def train(chips: tuple[str, ...], out: Path, **o: Any) -> None:
    """Train a network on one folder of CHIPS or several, and save it."""
    from geopsp.outputs import check_output
    from geopsp.package import MANIFEST
    from geopsp.progress import leads
    from geopsp.report import describe_scores
    from geopsp.training import RUN

    check_output(out, overwrite=o["overwrite"], folder=True, mark=MANIFEST)
    model = _classifier(chips, o)
    if o["freeze"]:
        model.freeze()
    if leads():
        click.echo(repr(model))
    folder = o["run"] or out.with_name(f"{out.name}.run")
    if o["overwrite"] and not o["run"] and not o["resume"] and (folder / RUN).exists() and leads():
        shutil.rmtree(folder)
    model.fit(
        o["epochs"],
        o["lr"],
        folder=folder,
        **{name: o[name] for name in ("early_stopping", "monitor", "accumulate", "ema", "compiled", "devices", "nodes",
                                      "resume", "tensorboard")},
    )  # fmt: skip
    if not leads():
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

    data = prepare_data(
        list(chips),
        o["chip_size"],
        o["val_split"],
        o["batch_size"] or None,
        **{name: o[name] for name in ("seed", "workers", "balanced_sampling", "cache")},
    )
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
    from geopsp.classifier import PixelClassifier
    from geopsp.outputs import check_output
    from geopsp.report import describe_scores, write_scores

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
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The GeoTIFF to write.")
@click.option("--polygons", type=click.Path(path_type=Path), help="Also polygons (.gpkg, .parquet, .fgb, .geojson).")
@click.option("--probabilities", type=click.Path(path_type=Path), help="Also a GeoTIFF with one band a class.")
@click.option("--batch-size", type=int, help="Tiles at a time. Default: 4.")
@click.option("--bands", callback=_bands, help="The model's bands in the image, by name or number. Default: by name.")
@click.option("--padding", type=int, help="Pixels by which tiles overlap. Default: a quarter of a tile.")
@device_option
@overwrite_option
def predict(model: Path, images: tuple[str, ...], out: Path, **options: Any) -> None:
    """Map IMAGEs, as one mosaic, with MODEL."""
    from geopsp.mapping import classify_pixels

    classify_pixels(list(images), model, out, **options)
    for path in (out, options["polygons"], options["probabilities"]):
        if path:
            click.echo(f"Wrote {path}")


@main.command()
@click.argument("raster", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help=".gpkg, .parquet, .fgb or .geojson")
@click.option("--simplify", default=0.0, show_default=True, help="Tolerance in CRS units; leaves no gaps or overlaps.")
@click.option("--min-area", default=0.0, show_default=True, help="Smaller polygons join a neighbour; square metres.")
@overwrite_option
def polygonize(raster: Path, out: Path, simplify: float, min_area: float, overwrite: bool) -> None:
    """Make polygons of a class RASTER."""
    from geopsp.polygons import raster_to_polygons

    raster_to_polygons(raster, out, simplify=simplify, min_area=min_area, overwrite=overwrite)
    click.echo(f"Wrote {out}")


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
def info(path: Path) -> None:
    """Tell what PATH is: a raster, a chip folder or a model."""
    from geopsp.report import describe

    click.echo(describe(path))


@main.command()
@click.option("--out", default="demo", show_default=True, type=click.Path(path_type=Path), help="Where results go.")
@click.option("--data", type=click.Path(path_type=Path), help="The sample data. Default: those that come with geopsp.")
@click.option("--epochs", type=int, help="Default: as many as a few minutes on two cores allow.")
@overwrite_option
def demo(out: Path, data: Path | None, epochs: int | None, overwrite: bool) -> None:
    """Run the whole job on the sample data: chips, training, scores, map, polygons, report."""
    from geopsp.demo import run

    run(out, data=data, epochs=epochs, overwrite=overwrite)


if __name__ == "__main__":
    main()
