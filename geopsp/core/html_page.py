"""The frame and the look of all HTML pages: one file each, for light and dark screens of any width."""

from __future__ import annotations

from collections.abc import Sequence

from geopsp.core.escape import html_text

STYLE = """
:root { color-scheme: light dark; --text: #222; --soft: #555; --line: #999; --thin: #ccc; --panel: #f5f5f5;
--page: #fff; --mark: #1f6feb }
@media (prefers-color-scheme: dark) { :root { --text: #ddd; --soft: #aaa; --line: #777; --thin: #444; --panel: #1d1f23;
--page: #121417; --mark: #6ea8fe } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: var(--text);
background: var(--page) }
h1 { font-weight: 600; overflow-wrap: anywhere } h2 { margin-top: 2.2rem; font-weight: 600 }
img { max-width: 100%; border: 1px solid var(--thin) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
td, th { padding: .2rem .8rem; text-align: right }
th { border-bottom: 1px solid var(--line); font-weight: 600 }
tbody th { border-bottom: none } tr td:first-child, tr th:first-child { text-align: left }
caption { text-align: left; color: var(--soft); font-size: .9rem; padding-bottom: .4rem }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1rem }
figure { margin: 0 } figcaption { color: var(--soft); font-size: .9rem } .swatch { display: inline-block;
width: .8em; height: .8em;
margin-right: .4em; border: 1px solid #888 } pre { background: var(--panel); padding: .8rem; overflow-x: auto }
"""


NO_SCRIPTS = "<meta http-equiv='Content-Security-Policy' content=\"script-src 'none'; object-src 'none'\">"
"""Names are escaped; should one slip through, browsers still run none of it."""


def html_page(title: str, body: Sequence[str]) -> str:
    """Return a page.

    Args:
        title: A text, which is escaped here.
        body: Parts of HTML, whose texts are escaped already.
    """
    head = (
        f"<meta charset='utf-8'>{NO_SCRIPTS}<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html_text(title)}</title><style>{STYLE}</style>"
    )
    return f"<!doctype html><html lang='en'>{head}" + "\n".join(body) + "</html>\n"
