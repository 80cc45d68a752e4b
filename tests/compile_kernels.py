"""Compile all kernels once, on all cores: two processes of tests would else compile most of them twice."""

from __future__ import annotations

import re
from pathlib import Path

import geopsp
from geopsp.core.jit import compile_ahead

PACKAGE = Path(geopsp.__file__).parent


def modules_with_kernels() -> list[str]:
    """The names of the modules that declare the types of compiled functions."""
    return sorted(
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^@jit\([^)]", path.read_text(encoding="utf-8"), re.MULTILINE)
    )


if __name__ == "__main__":
    compile_ahead(modules_with_kernels())
