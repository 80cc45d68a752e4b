"""Options: each is a field of a frozen dataclass, with its default, range, unit and help in one place.

The checks, the shell's options, the docstrings of public functions and the reference page are derived from the fields:

    @dataclass(frozen=True, slots=True)
    class MapOptions:
        padding: int | None = option(None, "Overlap of the tiles. None: a quarter of a tile.", minimum=0, unit="pixels")

        def __post_init__(self) -> None:
            check_fields(self)

Nothing heavy is imported here, nor by the modules of options, so that `geopsp --help` is quick.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from numbers import Integral, Real
from os import PathLike
from textwrap import wrap
from typing import Any, Literal, TypeVar

from geopsp.core.argument_names import checks_names, did_you_mean
from geopsp.errors import OptionError

DRY_RUN_HELP = "Show what would be read and written, how long it would take and how large it would be; write nothing."
"""Of the option of long runs, in Python and in the shell."""

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionInfo:
    """Meaning and range of an option, and its name in the shell."""

    help: str
    """One or two sentences; "None: ..." explains the value None."""

    unit: str = ""
    """"pixels", "metres", "CRS units", "degrees" ..."""

    minimum: float | None = None
    """Smallest value allowed."""

    above: float | None = None
    """Lower bound that is itself not allowed."""

    maximum: float | None = None
    """Largest value allowed."""

    below: float | None = None
    """Upper bound that is itself not allowed."""

    infinite: bool = False
    """True to allow infinity."""

    choices: tuple[Any, ...] = ()
    """The values allowed, texts or whole numbers; (): any."""

    flag: str | None = None
    """Option of the shell, or several, e.g. "--tta --test-time-augmentation"; None: the name with dashes; "": none."""

    shell_help: str = ""
    """Help in the shell if it differs, e.g. for a flag that turns a default off; "": `help`."""

    shell_default: Any = None
    """The default that the shell shows where Python's is None."""

    metavar: str | None = None
    """Placeholder of the value in the help of the shell."""

    @property
    def range(self) -> str:
        """The bounds in words; "" if there are none."""
        if self.minimum is not None and self.maximum is not None:
            return f"from {self.minimum:.10g} to {self.maximum:.10g}"
        bounds = (
            ("above", self.above),
            ("of at least", self.minimum),
            ("below", self.below),
            ("at most", self.maximum),
        )
        text = " and ".join(f"{words} {bound:.10g}" for words, bound in bounds if bound is not None)
        return f"of {text}" if text.startswith("at most") else text

    def allowed(self, *, whole: bool) -> str:
        """Return the numbers allowed in words, e.g. "a whole number from 1 to 8", "a number above 0 and at most 1"."""
        return f"a {'whole ' if whole else ''}number {self.range}".rstrip()

    def holds(self, value: float) -> bool:
        """True if a number is in the range."""
        return (
            (math.isfinite(value) or (self.infinite and value > 0))
            and (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.maximum is None or value <= self.maximum)
            and (self.below is None or value < self.below)
        )


def option(default: Any, help: str, **info: Any) -> Any:  # noqa: A002 (click's and argparse's word)
    """Return a dataclass field that is an option; `info` as in `OptionInfo`."""
    return field(default=default, metadata={"option": OptionInfo(help=help, **info)})


def info_of(entry: Field[Any]) -> OptionInfo | None:
    """Return the option that a field holds; None if it holds none."""
    found: OptionInfo | None = entry.metadata.get("option")
    return found


def option_fields(*classes: type[Any]) -> dict[str, Field[Any]]:
    """Return the options of classes, by name."""
    return {entry.name: entry for cls in classes for entry in fields(cls) if info_of(entry) is not None}


def check_fields(options: Any) -> None:
    """Check the types, ranges and choices of all options of a dataclass; numpy numbers become Python's.

    Checked are fields with `choices`, and those of type bool, int, float, str or path, with or without None.

    Raises:
        OptionError: if one has another type or is out of range.
    """
    for name, entry in option_fields(type(options)).items():
        info, value = info_of(entry), getattr(options, name)
        assert info is not None
        annotation = entry.type.__name__ if isinstance(entry.type, type) else str(entry.type)
        check_value(name, value, annotation, info)
        plain = _plain_number(value)
        if plain is not value:
            object.__setattr__(options, name, plain)


def _plain_number(value: Any) -> Any:
    """Return a numpy number as Python's own, which JSON can hold."""
    if isinstance(value, int | float | complex) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def check_value(name: str, value: Any, annotation: str, info: OptionInfo) -> None:
    """Check one option; `annotation` is its type, e.g. "int | None".

    Raises:
        OptionError: if it has another type or is out of range.
    """
    kinds = {kind.strip() for kind in annotation.split("|")}
    optional = "None" in kinds
    if value is None and optional:
        return
    if info.choices:
        require_choice(name, value, info.choices, optional=optional)
    elif kinds <= {"bool", "None"}:
        require_bool(name, value)
    elif kinds <= {"int", "None"}:
        _require_number(name, value, info, whole=True, optional=optional)
    elif kinds <= {"int", "float", "None"}:
        _require_number(name, value, info, whole=False, optional=optional)
    elif kinds <= {"str", "None"}:
        require_text(name, value, optional=optional)
    elif kinds <= {"str", "Path", "None"} or ({"str", "Path"} <= kinds and isinstance(value, str)):
        require_path(name, value, optional=optional)


def _require_number(name: str, value: Any, info: OptionInfo, *, whole: bool, optional: bool) -> None:
    kind = Integral if whole else Real
    if isinstance(value, bool) or not isinstance(value, kind) or not info.holds(float(value)):
        unit = f" ({info.unit})" if info.unit else ""
        raise _option_error(name, value, info.allowed(whole=whole) + unit, optional=optional)


def _option_error(name: str, value: Any, needed: str, *, optional: bool) -> OptionError:
    return OptionError(f"`{name}` is {value!r}, but must be {needed}{', or None' if optional else ''}.")


def require_bool(name: str, value: Any) -> None:
    """Check that a switch is True or False.

    Raises:
        OptionError: if it is anything else.
    """
    if not isinstance(value, bool):
        raise _option_error(name, value, "True or False", optional=False)


def require_int(name: str, value: Any, **bounds: Any) -> None:
    """Check a whole number; `bounds` as in `OptionInfo`.

    Raises:
        OptionError: if it is not one, or out of range.
    """
    _require_number(name, value, OptionInfo(help="", **bounds), whole=True, optional=False)


def require_number(name: str, value: Any, **bounds: Any) -> None:
    """Check a number; `bounds` as in `OptionInfo`.

    Raises:
        OptionError: if it is not one, or out of range.
    """
    _require_number(name, value, OptionInfo(help="", **bounds), whole=False, optional=False)


def require_text(name: str, value: Any, *, optional: bool = False) -> None:
    """Check that a value is a text that is not empty.

    Raises:
        OptionError: if it is not.
    """
    if not (isinstance(value, str) and value) and not (optional and value is None):
        raise _option_error(name, value, "a text that is not empty", optional=optional)


def require_path(name: str, value: Any, *, optional: bool = False) -> None:
    """Check that a value is the path of a file or folder.

    Raises:
        OptionError: if it is not.
    """
    if (not isinstance(value, str | PathLike) or not str(value)) and not (optional and value is None):
        raise _option_error(name, value, "the path of a file or folder", optional=optional)


def check_nodata(name: str, value: Any) -> float | Literal["none"] | None:
    """Return a nodata value that the user gave: a whole number, also as text, "none" for no value, or None.

    Raises:
        OptionError: if it is anything else.
    """
    if value is None:
        return None
    if isinstance(value, str) and value.lower() == "none":
        return "none"
    try:
        if not isinstance(value, bool) and float(value).is_integer():
            return float(value)
    except (TypeError, ValueError):
        pass
    raise _option_error(name, value, "a whole number or 'none'", optional=True)


def require_choice(name: str, value: Any, choices: Iterable[Any], *, optional: bool = False) -> None:
    """Check that a value is one of several texts or whole numbers.

    Raises:
        OptionError: if it is not.
    """
    if optional and value is None:
        return
    choices = tuple(choices)
    kinds = Integral if all(isinstance(choice, int) for choice in choices) else str
    if isinstance(value, bool) or not isinstance(value, kinds) or value not in choices:
        error = _option_error(name, value, f"one of {', '.join(map(repr, choices))}", optional=optional)
        raise OptionError(f"{error}{did_you_mean(value, choices)}") if isinstance(value, str) else error


def only_apply(names: Iterable[str]) -> str:
    """Return "`a` only applies" or "`a`, `b` only apply"."""
    quoted = [f"`{name}`" for name in names]
    return f"{', '.join(quoted)} only {'applies' if len(quoted) == 1 else 'apply'}"


def from_names(cls: type[T], names: Mapping[str, Any], **more: Any) -> T:
    """Make options from those of the names that are options, e.g. from `locals()` of a function with such arguments.

    Args:
        cls: The dataclass of options.
        names: Values by name.
        **more: Fields that are no options.
    """
    return cls(**{name: names[name] for name in option_fields(cls) if name in names}, **more)


def option_values(options: Any) -> dict[str, Any]:
    """Return the values of the options of a dataclass, by name."""
    return {name: getattr(options, name) for name in option_fields(type(options))}


def describes(*classes: type[Any], **texts: str) -> Callable[[Function], Function]:
    """Decorate a function: replace the line "{options}" of its docstring by the help of its arguments.

    Arguments that it does not have are errors that suggest a name.

    Args:
        classes: Hold the options.
        texts: Replace other words in braces, by name.
    """

    def decorate(function: Function) -> Function:
        known = option_fields(*classes)
        infos = {name: info_of(known[name]) for name in function.__annotations__ if name in known}
        function.__doc__ = _described(function.__doc__ or "", infos, texts)
        return checks_names(function)

    return decorate


def describes_itself(cls: type[T]) -> type[T]:
    """Decorate a dataclass of options: replace the line "{options}" of its docstring by the help of its fields."""
    infos = {name: info_of(entry) for name, entry in option_fields(cls).items()}
    cls.__doc__ = _described(cls.__doc__ or "", infos, {})
    return cls


def _described(text: str, infos: Mapping[str, OptionInfo | None], texts: Mapping[str, str]) -> str:
    """Return a docstring with the help of options in place of "{options}", and texts in place of other words."""
    indent = next((line[: len(line) - len(line.lstrip())] for line in text.splitlines() if "{options}" in line), "")
    entries = [f"{name}: {help_text(info)}" for name, info in infos.items() if info]
    lines = [line for entry in entries for line in wrap(entry, 120 - len(indent), subsequent_indent="    ")]
    for word, replacement in {**texts, "options": f"\n{indent}".join(lines)}.items():
        text = text.replace(f"{{{word}}}", replacement)
    return text


def help_text(info: OptionInfo) -> str:
    """Return the help, with unit and choices unless it mentions them."""
    text = info.help
    if info.choices and not all(str(choice) in text for choice in info.choices):
        text += f" One of {', '.join(map(repr, info.choices))}."
    return with_unit(text, info.unit)


def with_unit(text: str, unit: str) -> str:
    """Return a help text with the unit after its first sentence, unless it mentions it."""
    if not unit or unit.lower() in text.lower():
        return text
    return re.sub(r"\.(?= [A-Z]| \d+:|$)", f" ({unit}).", text, count=1)
