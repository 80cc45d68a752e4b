"""Calls of functions as text, with the arguments that differ from their defaults: the code that repeats a run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


def call_text(name: str, function: Callable[..., Any], values: Mapping[str, Any], *, first: Iterable[str] = ()) -> str:
    """Return a call, e.g. "prepare_data('chips', batch_size=4)".

    Args:
        name: Of the function, as the code has it.
        function: Its parameters, and their defaults.
        values: Of the arguments, by name; others than the parameters do not matter.
        first: Code of arguments before them.
    """
    arguments = list(first)
    leading = not arguments  # the first argument stands without its name, as people write it
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in values or parameter.name in {"self", "cls"}:
            continue
        value = values[parameter.name]
        if value is parameter.default or (_is_plain(value) and value == parameter.default):
            leading = False
            continue
        is_named = parameter.kind is parameter.KEYWORD_ONLY or not leading
        arguments.append(f"{parameter.name}={value_text(value)}" if is_named else value_text(value))
        leading = False
    return f"{name}({', '.join(arguments)})"


def value_text(value: Any) -> str:
    """Return a value as code; what no code makes, as its type in angle brackets."""
    if isinstance(value, Path):
        return repr(str(value))
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{value_text(key)}: {value_text(each)}' for key, each in value.items())}}}"
    if isinstance(value, tuple):
        return f"({', '.join(map(value_text, value))}{',' * (len(value) == 1)})"
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    return repr(value) if _is_plain(value) else f"<{type(value).__name__}>"


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | Path | list | tuple)
