"""Names that break what does not escape them, and what may reach a terminal."""

from __future__ import annotations

import unicodedata

from hypothesis import strategies as st

NASTY = (
    "=cmd|' /C calc'!A0", "@SUM(1+1)", "-2+3", "+1", "\ttab", "<script>alert(1)</script>", "\"><img src=x onerror=a>",
    "a' OR '1'='1", 'x"; DROP TABLE map; --', "$\\frac{1}{2$", "$x^2$ $", "a\\$b", "]]>", "<!--", "&amp; &#27;",
    "esc\x1b[31mred\x1b]0;title\x07", "csi\x9b2J", "line\nbreak\r\nnew", "bidi\u202eevil\u2066x", "sep\u2028\u2029",
    "[bold]markup[/bold]", "[/]", ":smile:", "{task} {0} %s %(x)d", "`overwrite=True`", "_hidden", "a,b;c|d",
    "nul\x00l", "del\x7f", "zero\u200bwidth", "mark\ufeff", "\u0928\u094d\u200d\u092f", "東京 🛰️", "../../up",
    "C:\\x", "#1 ?a=1 100%",
    "javascript:alert(1)", "tab\there", "\ufffe\uffff", "tag\U000e0041",
)  # fmt: skip


SIGNS = "=+-@<>&\"'`$\\%{}[]()|;:,.#*?!~^_ \t\n\r\x00\x07\x1b\x7f\x9b\u202e\u2066\u2028\u200b\ufeffaZ9é東🛰"


names = st.sampled_from(NASTY) | st.text(st.sampled_from(SIGNS) | st.characters(exclude_categories=["Cs"]), min_size=1)


def is_safe(text):
    """No character of the text, which may have several lines, controls a terminal."""
    return not any(
        unicodedata.category(sign) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and sign not in "\n\u200c\u200d" for sign in text
    )
