"""Class names as text; names that look the same are one class if only their encoding differs, else told."""

from __future__ import annotations

import datetime as dt
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

CONTROL = {code for code in [*range(32), 127] if not chr(code).isspace()}


INVISIBLE = dict.fromkeys([*map(ord, "\u00ad\u200b\u2060\ufeff"), *CONTROL])
"""Characters that no font shows; not the joiners, which change the letters beside them in some scripts."""


MAX_LISTED = 5
"""Names that a note lists."""


def canonical_text(text: str) -> str:
    """Return a name in Unicode's composed form, without invisible characters and with single blanks inside only."""
    return " ".join(unicodedata.normalize("NFC", text).translate(INVISIBLE).split())


def time_text(value: Any) -> str:
    """Return a date as "2024-05-31" or a time in ISO 8601, in UTC; a duration as pandas writes it; "" if missing."""
    if pd.isna(value):
        return ""
    if isinstance(value, np.timedelta64 | dt.timedelta):
        return str(pd.Timedelta(value))
    time = pd.Timestamp(value)
    if time.tzinfo is not None:  # readers do not agree on whether a time in UTC has a zone
        time = time.tz_convert("UTC").tz_localize(None)
    return str(time.isoformat()).removesuffix("T00:00:00")


def spelling_notes(texts: Iterable[str], source: str) -> tuple[str, ...]:
    """Return a note of texts that are one class, though their blanks, Unicode forms or invisible characters differ."""
    forms: dict[str, set[str]] = defaultdict(set)
    for text in texts:
        forms[canonical_text(text)].add(text)
    same = sorted(name for name, found in forms.items() if name and len(found) > 1)
    if not same:
        return ()
    return (f"{source} spells {_listed(same)} in several ways (blanks, Unicode forms): each is taken as one class",)


def case_notes(names: Iterable[str], source: str) -> tuple[str, ...]:
    """Return a note of classes whose names differ in upper and lower case only, or in look-alike characters."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[unicodedata.normalize("NFKC", name).casefold()].append(name)
    pairs = [" and ".join(map(repr, found)) for found in alike.values() if len(found) > 1]
    if not pairs:
        return ()
    return (f"{source} has classes that look alike, {_listed(pairs)}: map one to the other with `class_mapping`",)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_LISTED]) + ", ..." * (len(names) > MAX_LISTED)
