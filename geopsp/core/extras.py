"""Packages that not every installation has: PyTorch, and the extras of geopsp."""

from __future__ import annotations

from importlib.util import find_spec

from geopsp.errors import OptionError


def require_torch(purpose: str, otherwise: str = "") -> None:
    """Check that PyTorch is installed, without importing it.

    Args:
        purpose: What needs it, e.g. "`geopsp train`".
        otherwise: What works without it.

    Raises:
        OptionError: if it is not.
    """
    if find_spec("torch") is None:
        more = f", or {otherwise}" if otherwise else ""
        raise OptionError(f"{purpose} needs PyTorch, which is not installed. Run: pip install geopsp{more}.")
