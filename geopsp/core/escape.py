"""Text from data (names of classes, bands, layers and files), made safe for where it is written.

One function for each place; SQL needs none, as names are bound there, nor do JSON and YAML.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from html import escape

CONTROL = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of characters that move the cursor, turn the direction of text, end a line, or are none."""


JOINERS = "\u200c\u200d"
"""Characters of the category Cf that some scripts are written with."""


NOT_XML = re.compile(r"[^\t\n\r -\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")
"""Characters that XML 1.0 cannot hold. Source: https://www.w3.org/TR/xml/#charsets"""


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet would compute. Source: OWASP, "CSV Injection"."""


def printable(text: str) -> str:
    r"""Return a text in one line, with control characters as JSON has them: "\n", "\u001b"."""
    return text if text.isprintable() else "".join(map(_shown, text))


def printable_lines(lines: Iterable[str]) -> str:
    """Return lines as one text, each as `printable` has it, so that a name in it cannot begin another."""
    return "\n".join(map(printable, lines))


def _shown(character: str) -> str:
    is_control = unicodedata.category(character) in CONTROL and character not in JOINERS
    return json.dumps(character)[1:-1] if is_control else character


def utf8_text(text: str) -> str:
    """Return a text that UTF-8 can hold: bytes of a name in another encoding are shown as backslash and number."""
    return text.encode("utf-8", "backslashreplace").decode()


def html_text(text: str) -> str:
    """Return a text as HTML has it, between tags or in quotes; lines stay, other control characters are shown."""
    return escape(printable_lines(text.split("\n")))


def markdown_text(text: str) -> str:
    """Return a text in one line as Markdown shows it, without links, marks or HTML of its own."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|~:@])", r"\\\1", escape(printable(text), quote=False))


def xml_text(text: str) -> str:
    """Return a text without the characters that XML cannot hold; readers take each line break for a line feed."""
    return NOT_XML.sub("", text)


def csv_text(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: a ' is put before what would begin one."""
    return f"'{text}" if text.startswith(FORMULA) else text
