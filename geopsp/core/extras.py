"""Packages that not every installation has: PyTorch, and the extras of geopsp."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec

from geopsp.errors import OptionError

NETWORK_PACKAGES = "torch", "timm"
"""What networks are made of. It takes some seconds to import."""


def require_packages(purpose: str, packages: tuple[str, ...], extra: str) -> None:
    """Check that packages are installed, without importing them.

    Args:
        purpose: What needs them, e.g. "Exporting to ONNX".
        packages: Their names, as they are imported.
        extra: The extra of geopsp that installs them.

    Raises:
        OptionError: if one is missing.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        are = "which is not installed" if len(missing) == 1 else "which are not installed"
        raise OptionError(f'{purpose} needs {" and ".join(missing)}, {are}. Run: pip install "geopsp[{extra}]"')


def require_torch(purpose: str, otherwise: str = "") -> None:
    """Check that PyTorch is installed, and import it with what else networks are made of.

    Args:
        purpose: What needs it, e.g. "`geopsp train`".
        otherwise: What works without it.

    Raises:
        OptionError: if it is not.
    """
    if find_spec("torch") is None:
        more = f", or {otherwise}" if otherwise else ""
        raise OptionError(f"{purpose} needs PyTorch, which is not installed. Run: pip install geopsp{more}.")
    with quick_imports():
        for name in NETWORK_PACKAGES:
            import_module(name)


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import without the garbage collector.

    Packages make hundreds of thousands of objects that stay. To look through them again and again takes a fifth of the
    time, and finds nothing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
