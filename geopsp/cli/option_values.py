"""Values of options in the shell: texts made Python's values, and what completes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from geopsp.core.argument_names import did_you_mean


class Choice(click.Choice[str]):
    """A choice that says which value an unknown one means."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            raise click.BadParameter(f"{error.message}{did_you_mean(value, self.choices)}", ctx, param) from None


def parse_ints(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Return comma-separated whole numbers; () for "none"."""
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(",") if part.strip() and value.lower() != "none")
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers such as 1,2,3,6.") from error


def parse_names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Return comma-separated names."""
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


def parse_bands(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str | int, ...] | None:
    """Return comma-separated names or numbers."""
    found = parse_names(context, option, value)
    return None if found is None else tuple(int(name) if name.isdigit() else name for name in found)


def parse_lr(_: click.Context, __: click.Parameter, value: str | None) -> float | tuple[float, ...] | None:
    """Return one learning rate, or two separated by a comma."""
    try:
        found = tuple(float(part) for part in value.split(",")) if value else ()
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a learning rate such as 0.001, nor two such as 0.0001,0.001."
        ) from error
    return None if not found else found[0] if len(found) == 1 else found


def parse_limits(_: click.Context, __: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """Return comma-separated numbers."""
    try:
        return None if value is None else tuple(float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of numbers such as 0.5,0.8.") from error


def parse_accuracies(_: click.Context, __: click.Parameter, value: str | None) -> float | dict[str, float] | None:
    """Return a number, or numbers by name; a number before names is that of all others, under the name "*"."""
    if value is None:
        return None
    found: dict[str, float] = {}
    for part in value.split(","):
        name, number = part.rpartition("=")[::2]
        try:
            found[name.strip() or "*"] = float(number)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not a number such as 0.9, nor a list such as water=0.9.") from error
    return found["*"] if set(found) == {"*"} else found


def parse_extent(_: click.Context, __: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """Return left, bottom, right and top, separated by commas."""
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise click.BadParameter(f"{value!r} is not an extent such as 500000,5300000,510000,5310000.")
    return numbers


def parse_confidence(_: click.Context, __: click.Parameter, value: str | None) -> float | dict[str, float] | None:
    """Return one number, or numbers by class names as NAME=P,...; a name may hold = itself."""
    if value is None:
        return None
    wrong = click.BadParameter(f"{value!r} is not a confidence such as 0.6, nor one by class: building=0.7,other=0.5.")
    found: dict[str, float] = {}
    try:
        if "=" not in value:
            return float(value)
        for part in value.split(","):
            name, sign, number = part.rpartition("=")
            if not (sign and name.strip()):
                raise wrong
            if name.strip() in found:
                raise click.BadParameter(f"{value!r} names {name.strip()!r} twice. Give each class one confidence.")
            found[name.strip()] = float(number)
    except ValueError:
        raise wrong from None
    return found


def parse_metres(_: click.Context, __: click.Parameter, value: str | None) -> float | bool | None:
    """Return a number, or True if the option has no value."""
    try:
        return None if value is None else value == "alone" or float(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a number of metres. Write arguments before --regularize, not after it."
        ) from error


def complete_backbone(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the backbones whose names begin so; those of timm, a thousand, only after "tu-"."""
    from geopsp.models.encoder_names import names_beginning

    return [CompletionItem(name) for name in names_beginning(incomplete)]


def complete_weights(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of weights that begin so, and a mark for the shell to add files."""
    from geopsp.models.weight_sets import WEIGHT_SETS

    names = dict.fromkeys(["auto", "imagenet", "none", *(row.name for row in WEIGHT_SETS)])
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def complete_field(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the fields of the vector file that stands on the command line: that of --labels, else the second word."""
    from geopsp.errors import GeopspError
    from geopsp.vector.open import open_layer

    files = ctx.params.get("labels") or ctx.args[1:]  # click leaves arguments unread while it completes
    try:
        fields = [name for file in files[:1] for name in open_layer(file).fields]
    except GeopspError:
        return []
    return [CompletionItem(name) for name in fields if name.startswith(incomplete)]


COMPLETERS = {
    "backbone": complete_backbone,
    "class_field": complete_field,
    "encoder_weights": complete_weights,
    "reference_field": complete_field,
}
"""What completes the values of options in the user's shell."""


PARSERS: Mapping[str, dict[str, Any]] = {
    "crf": {"is_flag": True},
    "bands": {"callback": parse_bands, "metavar": "BAND,..."},
    "confidence_bins": {"callback": parse_limits},
    "expected_accuracy": {"callback": parse_accuracies},
    "extent": {"callback": parse_extent, "metavar": "LEFT,BOTTOM,RIGHT,TOP"},
    "lr": {"callback": parse_lr},
    "min_confidence": {"callback": parse_confidence},
    "regularize": {"callback": parse_metres, "is_flag": False, "flag_value": "alone"},
}
"""Options whose text is read in a way of their own."""


LISTS: Mapping[str, dict[str, Any]] = {
    "str": {"callback": parse_names, "metavar": "NAME,..."},
    "int": {"callback": parse_ints, "metavar": "N,..."},
}
"""Lists, by the type of their items."""
