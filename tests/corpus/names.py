"""Names that files, folders, layers and classes have somewhere."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

NAMES = {
    "plain": "plain",
    "blank": "a b",
    "leading-blank": " lead",
    "trailing-blank": "trail ",
    "accents": "ünïcode",
    "nfd": unicodedata.normalize("NFD", "été"),
    "japanese": "日本語",
    "emoji": "wald😀",
    "dash": "-dash",
    "option": "--labels",
    "plus": "+plus",
    "at": "@at",
    "equals": "=eq",
    "tilde": "~tilde",
    "dollar": "$HOME",
    "hidden": ".hidden",
    "leading-bang": "!results",
    "trailing-bang": "wichtig!",
    "bang": "a!b",
    "semicolon": "a;b",
    "hash": "#1",
    "percent": "50%",
    "percent-20": "a%20b",
    "ampersand": "a&b",
    "quote": "it's",
    "double-quote": 'say "x"',
    "colon": "a:b",
    "pipe": "a|b",
    "layername": "a|layername=b",
    "star": "st*r",
    "question": "qu?st",
    "brackets": "[1]",
    "parentheses": "(1)",
    "braces": "{1}",
    "reserved": "con",
    "sql": "select",
    "backslash": "back\\slash",
    "comma": "a,b",
    "backtick": "`tick`",
    "less": "<b>",
    "dots": "two..dots",
    "two-endings": "map.tif",
    "upper": "UPPER",
    "newline": "new\nline",
    "tab": "tab\tin",
    "latin-1": "caf\udce9",
    "long": "x" * 200,
    "too-long": "x" * 246,
}
"""By the names that they have in cases."""

HARD = {
    "leading-bang", "trailing-bang", "bang", "semicolon", "layername", "newline", "tab", "latin-1", "long", "too-long",
    "backslash",
}  # fmt: skip
"""Names that may be refused, before any work."""

DIVIDERS = "!;|#?%&:,*= "
"""What some program takes for the end of a name."""


def pieces(name: str) -> set[str]:
    """Return the parts of a file name that a program may take for the whole."""
    parts = re.split(f"[{re.escape(DIVIDERS)}]", name)
    cut = {name[start:] for start in range(1, len(name)) if name[start - 1] in DIVIDERS}
    cut |= {name[:stop] for stop in range(1, len(name)) if name[stop] in DIVIDERS}
    return {part for part in {*parts, *cut} if part.strip(".") and part != name and "/" not in part}


def lay_bait(folder: Path, name: str) -> None:
    """Write files of a user beside an output, under the names that a program may take it for."""
    for piece in sorted(pieces(name)):
        (folder / piece).write_text(f"the user's own {piece}")
