"""A Sphinx extension that shows one signature of a function, not one for each of its overloads."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("doctree-read", keep_first_signatures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def keep_first_signatures(_: Sphinx, doctree: nodes.document) -> None:
    """Remove all signatures of each function but the first, as overloads differ in the type of the result only."""
    for description in doctree.findall(addnodes.desc):
        if description["domain"] == "py":
            for signature in [each for each in description if isinstance(each, addnodes.desc_signature)][1:]:
                description.remove(signature)
