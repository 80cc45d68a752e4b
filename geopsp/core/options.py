"""Options: each is a field of a frozen dataclass that holds its default, range, help and unit in one place.

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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from numbers import Integral, Real
from os import PathLike
from typing import Any, TypeVar

from geopsp.errors import OptionError

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionInfo:
    """What a field of options means, what it may be, and what the shell calls it."""

    help: str
    """One or two sentences; "None: ..." says what a missing value means."""

    unit: str = ""
    """"pixels", "metres", "CRS units", "degrees" ..."""

    minimum: float | None = None
    above: float | None = None
    """A bound that is itself not allowed."""

    maximum: float | None = None
    below: float | None = None
    """A bound that is itself not allowed."""

    infinite: bool = False
    """True allows infinity."""

    choices: tuple[Any, ...] = ()
    flag: str | None = None
    """The shell's option, or several as "--tta/--test-time-augmentation"; None: the name with dashes; "": the shell has
    none."""

    shell_help: str = ""
    """Help in the shell where it must differ, e.g. of a flag that turns a default off; "": `help`."""

    metavar: str | None = None
    """What stands for the value in the shell's help."""

    @property
    def range(self) -> str:
        """The bounds in words; "" if there are none."""
        if self.minimum is not None and self.maximum is not None:
            return f"from {self.minimum:g} to {self.maximum:g}"
        lower = "" if self.minimum is None else f"of at least {self.minimum:g}"
        upper = "" if self.maximum is None else f"at most {self.maximum:g}"
        lower = lower if self.above is None else f"above {self.above:g}"
        upper = upper if self.below is None else f"below {self.below:g}"
        return " and ".join(bound for bound in (lower, upper) if bound)

    def allowed(self, *, whole: bool) -> str:
        """What a number may be, in words."""
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
    """A dataclass field that is an option; `info` as in `OptionInfo`."""
    return field(default=default, metadata={"option": OptionInfo(help=help, **info)})


def info_of(entry: Field[Any]) -> OptionInfo | None:
    """What a field says of itself as an option; None if it is none."""
    found: OptionInfo | None = entry.metadata.get("option")
    return found


def option_fields(*classes: type[Any]) -> dict[str, Field[Any]]:
    """The options of classes, by name."""
    return {entry.name: entry for cls in classes for entry in fields(cls) if info_of(entry) is not None}


def check_fields(options: Any) -> None:
    """Check the types, ranges and choices of all options of a dataclass; numbers of numpy become Python's.

    Only what the annotation says plainly is checked: bool, int, float, str and paths, with or without None.

    Raises:
        OptionError: if one is out of range.
    """
    for name, entry in option_fields(type(options)).items():
        info, value = info_of(entry), getattr(options, name)
        assert info is not None
        check_value(name, value, str(entry.type), info)
        plain = _plain_number(value)
        if plain is not value:
            object.__setattr__(options, name, plain)


def _plain_number(value: Any) -> Any:
    """Python's own number, so that it can be written as JSON."""
    if isinstance(value, int | float | complex) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def check_value(name: str, value: Any, annotation: str, info: OptionInfo) -> None:
    """Check one option.

    Raises:
        OptionError: if it is of another type or out of range.
    """
    kinds = {kind.strip() for kind in annotation.split("|")}
    if value is None and "None" in kinds:
        return
    if info.choices:
        require_choice(name, value, info.choices)
    elif kinds <= {"bool", "None"}:
        require_bool(name, value)
    elif kinds <= {"int", "None"}:
        _require_number(name, value, info, whole=True, optional="None" in kinds)
    elif kinds <= {"int", "float", "None"}:
        _require_number(name, value, info, whole=False, optional="None" in kinds)
    elif kinds <= {"str", "None"}:
        require_text(name, value)
    elif kinds <= {"str", "Path", "None"} or ({"str", "Path"} <= kinds and isinstance(value, str)):
        require_path(name, value)


def _require_number(name: str, value: Any, info: OptionInfo, *, whole: bool, optional: bool) -> None:
    kind = Integral if whole else Real
    if isinstance(value, bool) or not isinstance(value, kind) or not info.holds(float(value)):
        unit = f" ({info.unit})" if info.unit else ""
        none = ", or None" if optional else ""
        raise OptionError(f"`{name}` is {value!r}, but must be {info.allowed(whole=whole)}{unit}{none}.")


def require_bool(name: str, value: Any) -> None:
    """Check that a switch is True or False.

    Raises:
        OptionError: if it is anything else.
    """
    if not isinstance(value, bool):
        raise OptionError(f"`{name}` is {value!r}, but must be True or False.")


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


def require_text(name: str, value: Any) -> None:
    """Check that something is a text and not empty.

    Raises:
        OptionError: if it is not.
    """
    if not (isinstance(value, str) and value):
        raise OptionError(f"`{name}` is {value!r}, but must be a text.")


def require_path(name: str, value: Any) -> None:
    """Check that something names a file or folder.

    Raises:
        OptionError: if it does not.
    """
    if not isinstance(value, str | PathLike) or not str(value):
        raise OptionError(f"`{name}` is {value!r}, but must be the path of a file or folder.")


def require_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Check that a value is one of several.

    Raises:
        OptionError: if it is not.
    """
    choices = tuple(choices)
    kinds = Integral if all(isinstance(choice, int) for choice in choices) else str
    if isinstance(value, bool) or not isinstance(value, kinds) or value not in choices:
        raise OptionError(f"`{name}` is {value!r}, but must be one of {', '.join(map(repr, choices))}.")


def require_known(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Check the names of options; `where` is e.g. "`polygon_options`" or "prepare_data()".

    Raises:
        OptionError: if one is unknown; the nearest known name is suggested.
    """
    known = tuple(known)
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"Did you mean `{near[0]}`?" if near else f"The options are {', '.join(known)}."
            raise OptionError(f"{where} has no option `{name}`. {hint}")


def from_names(cls: type[T], names: Mapping[str, Any]) -> T:
    """The options of a class, picked by name, e.g. from `locals()` of a function that takes them as arguments."""
    return cls(**{name: names[name] for name in option_fields(cls) if name in names})


def describes(*classes: type[Any]) -> Callable[[Function], Function]:
    """Fill in the line "{options}" of a function's docstring: its arguments, as the fields of the classes say."""

    def decorate(function: Function) -> Function:
        text, known = function.__doc__ or "", option_fields(*classes)
        indent = next((line[: len(line) - len(line.lstrip())] for line in text.splitlines() if "{options}" in line), "")
        infos = {name: info_of(known[name]) for name in function.__annotations__ if name in known}
        lines = [f"{name}: {help_text(info)}" for name, info in infos.items() if info]
        function.__doc__ = text.replace("{options}", f"\n{indent}".join(lines))
        return function

    return decorate


def help_text(info: OptionInfo) -> str:
    """Help with the unit and the choices that it does not mention."""
    text = info.help
    if info.choices and not all(str(choice) in text for choice in info.choices):
        text += f" One of {', '.join(map(repr, info.choices))}."
    return text + (f" In {info.unit}." if info.unit and info.unit not in text else "")
