"""Names that do not exist, of arguments, classes, fields, bands ...: which one was meant."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import wraps
from itertools import islice
from typing import Any, TypeVar, cast

from geopsp.errors import OptionError

Function = TypeVar("Function", bound=Callable[..., Any])

SYNONYMS: dict[str, str] = {
    "amp": "precision", "bs": "batch_size", "buffer_radius": "buffer", "class_value_field": "class_field",
    "crop_size": "chip_size tile_size", "cuda": "device", "encoder": "backbone", "encoder_name": "backbone",
    "epoch": "epochs", "fp16": "precision", "gpu": "device", "gpus": "devices", "grad_clip": "clip",
    "gradient_clip": "clip", "image_chip_format": "chip_format", "in_mask_polygons": "aoi", "learning_rate": "lr",
    "mask": "aoi", "max_epochs": "epochs", "max_lr": "lr", "n_epochs": "epochs", "n_workers": "workers",
    "num_epochs": "epochs", "num_workers": "workers", "output_nofeature_tiles": "skip_empty",
    "overlap": "padding stride", "patch_size": "tile_size chip_size", "pixel_size": "cell_size",
    "pretrained": "encoder_weights", "random_seed": "seed", "random_state": "seed", "res": "cell_size",
    "resolution": "cell_size", "roi": "aoi", "size": "tile_size chip_size", "stride_x": "stride",
    "tile_size_x": "tile_size", "tolerance": "simplify", "tta": "test_time_augmentation",
    "val_pct": "val_split_pct", "val_split": "val_split_pct", "validation_split": "val_split_pct",
    "weights": "encoder_weights",
}  # fmt: skip
"""What arcgis.learn, ArcGIS's export tool and other libraries call our options; of several, a function has one."""


LIKENESS = 0.65
"""Similarity of two names, from 0 to 1, from which one may be meant by the other."""


MOST_COMPARED = 2000
"""Known names that an unknown one is compared with, so that a message about a large layer takes no minutes."""


def suggest_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that an unknown one most likely means: by synonym, else the nearest in letters."""
    known = tuple(known)
    near = near_name(name, known)
    return [each for each in SYNONYMS.get(name, "").split() if each in known][:1] or ([near] if near else [])


def near_name(name: object, known: Iterable[object], *, likeness: float = LIKENESS) -> str | None:
    """Return the known name that is nearest to an unknown one in letters, whatever their case; None if none is near."""
    by_letters = {str(each).lower(): str(each) for each in islice(known, MOST_COMPARED)}
    near = get_close_matches(str(name).lower(), by_letters, 1, likeness)
    return by_letters[near[0]] if near else None


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return " Did you mean 'x'?" with the known name that is nearest to an unknown one; "" if none is near."""
    near = near_name(name, known)
    return f" Did you mean {near!r}?" if near else ""


def did_you_mean_one(names: Iterable[object], known: Iterable[object]) -> str:
    """Return as `did_you_mean` what the first of several unknown names means that is near a known one."""
    names, known = tuple(names), tuple(known)
    if len(names) == 1:
        return did_you_mean(names[0], known)
    found = ((name, near) for name in names if (near := near_name(name, known)))
    return next((f" For {str(name)!r}, did you mean {near!r}?" for name, near in found), "")


def require_known(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Check the names of options; `where` says what takes them: "`polygon_options`", "prepare_data()".

    Raises:
        OptionError: if one is unknown; suggests the nearest known name.
    """
    known = tuple(known)
    for name in given:
        if name not in known:
            near = suggest_names(name, known)
            hint = f"Did you mean `{near[0]}`?" if near else f"The options are {', '.join(known)}."
            raise OptionError(f"{where} has no option `{name}`. {hint}")


def checks_names(function: Function) -> Function:
    """Decorate a function: an argument that it does not have is an `OptionError`, not a TypeError."""
    known = [name for name in inspect.signature(function).parameters if name not in {"self", "cls"}]
    makes_object = function.__name__ == "__init__"

    @wraps(function)
    def checked(*args: Any, **options: Any) -> Any:
        require_known(options, known, f"{type(args[0]).__name__ if makes_object else function.__qualname__}()")
        return function(*args, **options)

    return cast("Function", checked)
