"""The options of the shell's commands: what they are called, and how their text is read."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import click

from geopsp.vector.formats import ENDINGS

Command = Callable[..., Any]


def option_group(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """One decorator that adds all options, in their order."""
    return lambda command: reduce(lambda inner, option: option(inner), reversed(options), command)


def parse_ints(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Whole numbers parted by commas; "none" gives none of them."""
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(",") if part.strip() and value.lower() != "none")
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers such as 1,2,3,6.") from error


def parse_names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Names parted by commas."""
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


def bands(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str | int, ...] | None:
    """Names or numbers parted by commas."""
    found = parse_names(context, option, value)
    return None if found is None else tuple(int(name) if name.isdigit() else name for name in found)


def parse_lr(_: click.Context, __: click.Parameter, value: str | None) -> float | tuple[float, ...] | None:
    """One number, or two parted by a comma."""
    try:
        found = tuple(float(part) for part in value.split(",")) if value else ()
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a learning rate such as 0.001, nor two such as 0.0001,0.001."
        ) from error
    return None if not found else found[0] if len(found) == 1 else found


def parse_extent(_: click.Context, __: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """Left, bottom, right and top, parted by commas."""
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise click.BadParameter(f"{value!r} is not an extent such as 500000,5300000,510000,5310000.")
    return numbers


def parse_metres(_: click.Context, __: click.Parameter, value: str | None) -> float | bool | None:
    """A number, or True where the option stands alone."""
    try:
        return None if value is None else value == "alone" or float(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a number of metres. Write what is no option before it.") from error


overwrite_option = click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")


device_option = click.option("--device", help="cpu, cuda:1 ... Default: the first GPU, else the CPU.")


order_option = click.option(
    "--order",
    default="given",
    show_default=True,
    help="Which image lies on top: given, newest, oldest, or a field (-FIELD: largest first).",
)


cell_size_option = click.option("--cell-size", type=float, help="Resample the images to this pixel size, in CRS units.")


extent_option = click.option(
    "--extent", callback=parse_extent, help="LEFT,BOTTOM,RIGHT,TOP in the CRS of the images. Default: all."
)


aoi_option = click.option(
    "--aoi", help="Polygons outside of which nothing is labelled or mapped (FILE or FILE|layername=LAYER)."
)


cutting_options = option_group(
    click.option("--class-field", help="The attribute that holds the class. Default: all polygons are one class."),
    click.option("--where", help="Only labels for which this holds, as in SQL: kind = 'road' AND width > 3."),
    click.option(
        "--class-mapping",
        type=click.Path(path_type=Path),
        help="A YAML file, {class found: name}; the same name merges, null makes unlabelled.",
    ),
    click.option("--buffer", default=0.0, help="Metres by which lines and points are widened. Default: left out."),
    click.option(
        "--background",
        type=click.Choice(["class", "ignore"]),
        default="class",
        show_default=True,
        help="What lies outside of polygons: a class of its own, or unlabelled.",
    ),
    click.option("--all-touched", is_flag=True, help="Burn each pixel that a polygon touches."),
    click.option(
        "--priority", callback=parse_names, help="Classes that lie on top where polygons overlap, the topmost first."
    ),
    click.option("--priority-field", help="A number of each polygon instead; larger ones lie on top."),
    aoi_option,
    click.option(
        "--aoi-rule",
        type=click.Choice(["mask", "inside"]),
        default="mask",
        show_default=True,
        help="Mask what lies outside the area, or cut only chips that lie wholly inside.",
    ),
    click.option("--bands", callback=bands, help="Names or numbers from 1, parted by commas. Default: all."),
    click.option("--mosaic", is_flag=True, help="All images as one, on the grid of the first. Default: each alone."),
    order_option,
    cell_size_option,
    extent_option,
    click.option("--stride", type=int, help="Pixels from one chip to the next. Default: the size."),
    click.option(
        "--min-labelled", default=0.0, show_default=True, help="Leave out chips with a smaller labelled share."
    ),
    click.option("--min-valid", default=0.0, show_default=True, help="Leave out chips with a smaller valid share."),
    click.option("--skip-empty", is_flag=True, help="Leave out chips that show nothing but background."),
    click.option("--rotation-angle", default=0.0, help="Also turned copies, this many degrees apart. Default: none."),
    click.option(
        "--random-chips", default=0, help="Also this many random chips, in which each class comes up as often."
    ),
    click.option("--no-grid", is_flag=True, help="Random chips only."),
)


CUTTING_DEFAULTS = {
    "class_field": None, "where": None, "class_mapping": None, "buffer": 0.0, "background": "class",
    "all_touched": False, "priority": None, "priority_field": None, "aoi": None, "aoi_rule": "mask", "bands": None,
    "per_image": True, "order": "given", "cell_size": None, "extent": None, "stride": None, "min_labelled": 0.0,
    "min_valid": 0.0, "skip_empty": False, "rotation_angle": 0.0, "grid": True, "random_chips": 0,
}  # fmt: skip
"""What Python calls `cutting_options`."""


def take_chip_options(options: dict[str, Any]) -> dict[str, Any]:
    """Takes what `cutting_options` gave out of the options, under the names that Python knows."""
    turned = {"per_image": not options.pop("mosaic"), "grid": not options.pop("no_grid")}
    return {name: turned[name] if name in turned else options.pop(name) for name in CUTTING_DEFAULTS}


split_options = option_group(
    click.option("--val-split", default=0.2, show_default=True, help="Share of the chips to validate on."),
    click.option(
        "--split",
        type=click.Choice(["blocks", "source", "random"]),
        default="blocks",
        show_default=True,
        help="Validate on blocks of ground, whole images, or chips drawn at random.",
    ),
    click.option("--block-size", type=float, help="Side of the blocks, in CRS units. Default: several are tried."),
    click.option("--gap", type=float, help="Least distance of both parts, in CRS units. Default: a chip."),
    click.option(
        "--valid-path", multiple=True, help="Validate on these chip folders, or on what these polygons touch, instead."
    ),
    click.option("--folds", type=int, help="Parts for cross-validation; --fold says on which to validate."),
    click.option("--fold", default=0, show_default=True, help="From 0."),
)


training_options = option_group(
    click.option("--out", required=True, type=click.Path(path_type=Path), help="The model folder to make."),
    click.option(
        "--network", type=click.Choice(["pspnet", "fcn", "unet", "deeplab"]), default="pspnet", show_default=True
    ),
    click.option("--backbone", default="resnet50", show_default=True, help="Encoder; resnet18 to resnet152 and more."),
    click.option("--epochs", default=10, show_default=True),
    click.option(
        "--lr",
        callback=parse_lr,
        help="Highest learning rate, or LOW,HIGH of first and last layers. Default: a range test.",
    ),
    click.option("--batch-size", type=int, default=8, show_default=True, help="0: the largest that fits into memory."),
    click.option("--accumulate", default=1, show_default=True, help="Batches to add up for one step."),
    click.option("--chip-size", type=int, help="Side of what the network is shown. Default: the exported size."),
    click.option("--no-unet", is_flag=True, help="pspnet: enlarge the result eightfold, without the U-Net decoder."),
    click.option("--pyramid-sizes", callback=parse_ints, help="pspnet: bins, or none. Default: 1,2,3,6."),
    click.option("--pointrend", is_flag=True, help="Decide the least certain points anew, for sharper outlines."),
    click.option(
        "--aux-loss/--no-aux-loss",
        default=None,
        help="An auxiliary loss on the encoder. Default: with the plain decoder only.",
    ),
    click.option(
        "--aux",
        type=click.Choice(["pixel", "presence"]),
        help="What it learns: each pixel's class (default), or which classes a chip holds.",
    ),
    click.option(
        "--weights",
        default="auto",
        show_default=True,
        help="Encoder weights: imagenet, none, auto (imagenet if it can be had) or a local file.",
    ),
    click.option("--pretrained", type=click.Path(path_type=Path), help="A weight file or saved model to start from."),
    click.option("--freeze", is_flag=True, help="Leave the encoder as it is."),
    click.option(
        "--output-stride", type=int, help="8, 16 or 32; larger is faster and coarser. Default: the network's."
    ),
    click.option("--encoder-depth", type=int, default=5, show_default=True, help="Stages of the encoder used, 3 to 5."),
    click.option("--class-balancing", is_flag=True, help="Weight rare classes up in the loss."),
    click.option("--balanced-sampling", is_flag=True, help="Draw chips with rare classes more often."),
    click.option("--focal-loss", is_flag=True, help="Weight hard pixels up."),
    click.option("--dice", default=0.0, show_default=True, help="Share of the Dice loss, 0 to 1."),
    click.option("--lovasz", default=0.0, show_default=True, help="Share of the Lovasz loss, 0 to 1."),
    click.option("--tversky", default=0.0, show_default=True, help="Share of the Tversky loss, 0 to 1."),
    click.option("--label-smoothing", default=0.0, show_default=True),
    click.option("--ohem", default=1.0, show_default=True, help="Share of the pixels, the hardest, that count."),
    click.option("--mixup", is_flag=True, help="Train on mixtures of two chips."),
    click.option("--ignore-classes", callback=parse_names, help="Classes that count as unlabelled, parted by commas."),
    click.option("--early-stopping", is_flag=True, help="Stop when validation gets no better for 5 epochs."),
    click.option("--monitor", default="valid_loss", show_default=True, help="What decides which epoch is best."),
    click.option("--ema", default=0.0, show_default=True, help="Decay of a moving average of the weights, e.g. 0.999."),
    click.option("--compile", "compiled", is_flag=True, help="Compile the network first; for long runs on a GPU."),
    click.option("--devices", default=1, show_default=True, help="GPUs in each machine."),
    click.option("--nodes", default=1, show_default=True, help="Machines, each started by torchrun or Slurm."),
    click.option("--workers", type=int, help="Processes that read chips. Default: as the machine has cores."),
    click.option(
        "--cache", type=click.Path(path_type=Path), help="A folder for decoded chips, for sets read many times."
    ),
    click.option(
        "--run",
        type=click.Path(path_type=Path),
        help="A folder for checkpoints and logs. Default: OUT.run, of which logs alone stay.",
    ),
    click.option("--resume", is_flag=True, help="Go on with a run that was broken off."),
    click.option("--tensorboard", is_flag=True, help="Write a log for TensorBoard into the run's folder."),
    click.option("--seed", default=42, show_default=True),
)


shaping_options = option_group(
    click.option("--connectivity", type=int, help="8: pixels that touch at corners are one polygon too. Default: 4."),
    click.option("--simplify", type=float, help="Tolerance in CRS units; leaves no gaps or overlaps. Default: none."),
    click.option("--smooth", type=int, metavar="ROUNDS", help="Round the outlines; 2 or 3 are enough. Default: none."),
    click.option("--min-area", type=float, help="Smaller polygons join a neighbour; square metres. Default: none."),
    click.option("--fill-holes", type=float, help="Smaller holes are filled; square metres. Default: none."),
    click.option(
        "--keep", callback=parse_names, help="Polygons of these classes only; names or codes, parted by commas."
    ),
    click.option("--drop", callback=parse_names, help="No polygons of these classes."),
    click.option("--dissolve", is_flag=True, default=None, help="One feature for each class."),
    click.option(
        "--regularize",
        callback=parse_metres,
        is_flag=False,
        flag_value="alone",
        metavar="[METRES]",
        help="Right-angled outlines, whose corners move so far at most (two pixels); needs --keep.",
    ),
)


SHAPING = (
    "connectivity", "simplify", "smooth", "min_area", "fill_holes", "keep", "drop", "dissolve", "regularize",
)  # fmt: skip
"""What Python calls `shaping_options`."""


def take_polygon_options(options: dict[str, Any]) -> dict[str, Any]:
    """Takes what `shaping_options` gave out of the options, and leaves out what was not asked for."""
    given = {name: options.pop(name) for name in SHAPING}
    return {name: value for name, value in given.items() if value is not None}


place = click.Path()


output_options = option_group(
    click.option("--out", required=True, type=place, help="The GeoTIFF (COG) to write; with --per-image a folder."),
    click.option("--polygons", type=place, help=f"Also polygons ({ENDINGS})."),
    shaping_options,
    click.option("--probabilities", type=place, help="Also a GeoTIFF with one band a class."),
    click.option(
        "--probability-type",
        type=click.Choice(["uint8", "float16"]),
        default="uint8",
        show_default=True,
        help="uint8: round(254 p), nodata 255; float16: p.",
    ),
    click.option("--confidence", type=place, help="Also a GeoTIFF of the chosen class's probability."),
    click.option("--disagreement", type=place, help="Also a GeoTIFF of how far overlapping tiles differ."),
    click.option("--per-image", is_flag=True, help="A map of each image by itself. Default: all as one mosaic."),
    overwrite_option,
)


map_options = option_group(
    click.option(
        "--bands", callback=bands, help="The model's bands in the image, by name or number. Default: by name."
    ),
    extent_option,
    aoi_option,
    cell_size_option,
    order_option,
    click.option("--tile-size", type=int, help="Side of a tile in pixels. Default: as trained, which is best."),
    click.option("--padding", type=int, help="Pixels by which tiles overlap. Default: a quarter of a tile."),
    click.option("--batch-size", type=int, help="Tiles at a time. Default: what fits."),
    click.option(
        "--tta",
        "--test-time-augmentation",
        "test_time_augmentation",
        is_flag=True,
        help="Show each tile in its eight symmetries: better, and eight times slower.",
    ),
    click.option("--no-background", is_flag=True, help="Never predict the class background, but what comes next."),
    click.option(
        "--sieve", default=0, metavar="N", help="Regions of fewer than N pixels join their largest neighbour."
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        default="auto",
        show_default=True,
        help="auto: bf16 where the hardware has it.",
    ),
    click.option(
        "--compile", "--compiled", "compiled", is_flag=True, help="Compile the network first; for large maps."
    ),
    device_option,
    click.option("--scheduler", help="Map on a Dask cluster: tcp://HOST:PORT, or local (a process a GPU, or core)."),
)
