"""Where tiles that overlap begin, along one axis."""

from __future__ import annotations

from geopsp.errors import OptionError


def starts(length: int, *, size: int, overlap: int) -> list[int]:
    """First pixels of the tiles that cover `length` pixels, ascending.

    Raises:
        OptionError: unless 0 <= overlap <= size / 2, so that at most two tiles meet at a pixel of a regular run.
    """
    if size < 1 or not 0 <= 2 * overlap <= size:
        raise OptionError(f"Overlap must lie between 0 and half a tile; found overlap {overlap} with tiles of {size}.")
    if length <= size:
        return [0]
    step = size - overlap
    return [*range(0, length - size, step), length - size]
