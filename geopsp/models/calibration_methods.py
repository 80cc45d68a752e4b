"""The names of the methods of calibration, for options; nothing heavy is imported here."""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["temperature", "vector"]

METHODS: tuple[str, ...] = get_args(Method)
