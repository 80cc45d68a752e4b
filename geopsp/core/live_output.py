"""Output of a notebook cell that is replaced while work goes on; a saved notebook holds its last state."""

from __future__ import annotations

from typing import Any


class LiveOutput:
    """One output of a cell, which needs neither widgets nor scripts; nothing before it is first shown."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, html: str, text: str) -> None:
        """Show HTML, and a text where HTML cannot be shown, in the place of what was shown before."""
        from IPython.display import display

        content = {"text/html": html, "text/plain": text}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)
