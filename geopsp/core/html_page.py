"""The frame and the look of all HTML pages: one file each, without a network, for light and dark screens and paper."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup

from geopsp.core.escape import printable_lines

FRAME = "core/page.html"
"""The template that others extend."""

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {}; base-uri 'none'; form-action 'none'"
)
"""Names are escaped; should one slip through, browsers still run none of it, and ask no server for anything."""


def html_page(title: str, body: Sequence[str]) -> str:
    """Return a page.

    Args:
        title: A text, which is escaped here.
        body: Parts of HTML, whose texts are escaped already.
    """
    return render_page(FRAME, title=title, body=trusted("\n".join(body)))


def render_page(template: str, *, title: str, script: str = "", style: str = "", **values: Any) -> str:
    """Return a page made of a template that extends `FRAME`; all texts of `values` are escaped.

    Args:
        template: FOLDER/NAME, of the `templates` of a folder of geopsp.
        title: Of the page.
        script: The only script that may run, of a file of ours.
        style: More of the look, of a file of ours.
        **values: What the template shows.
    """
    digest = b64encode(sha256(script.encode()).digest()).decode("ascii")
    policy = POLICY.format(f"'sha256-{digest}'" if script else "'none'")
    look = package_text("core", "page.css") + style
    return (
        _environment(template.partition("/")[0])
        .get_template(template)
        .render(
            title=title,
            policy=policy,
            style=trusted(look),
            script=trusted(script),
            **values,
        )
    )


@cache
def _environment(folder: str) -> Environment:
    """Return what finds the templates of a folder, and those that all share."""
    loaders = {name: PackageLoader("geopsp", f"{name}/templates") for name in {"core", folder}}
    return Environment(
        loader=PrefixLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=_printable,
    )  # fmt: skip


def trusted(html: str) -> Markup:
    """Return HTML of ours, whose texts are escaped already, so that templates take it as it is."""
    return Markup(html)  # noqa: S704


def package_text(folder: str, name: str) -> str:
    """Return a file of the `templates` of a folder of geopsp."""
    return (files("geopsp") / folder / "templates" / name).read_text(encoding="utf-8")


def _printable(value: Any) -> Any:
    """Return a text with its control characters shown; it is escaped afterwards."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable_lines(value.split("\n"))
    return value
