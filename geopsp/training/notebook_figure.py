"""Figures that a notebook shows once."""

from __future__ import annotations

from base64 import b64encode

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

SHOWN_ALREADY = {"widget", "ipympl", "nbagg", "notebook"}
"""Backends that show a figure as soon as there is one."""


class NotebookFigure(Figure):
    """A figure of pyplot, which scripts show by `plt.show()`.

    A notebook shows it as the result of a cell, or else at the cell's end, but not both.
    """

    def _ipython_display_(self) -> None:
        from IPython.core.pylabtools import print_figure
        from IPython.display import display

        if mpl.get_backend().lower().removeprefix("module://").partition(".")[0] in SHOWN_ALREADY:
            return
        png = b64encode(print_figure(self, "png", base64=False)).decode()
        plt.close(self)  # so that it is not shown again at the end of the cell
        display({"image/png": png, "text/plain": str(self)}, raw=True)
