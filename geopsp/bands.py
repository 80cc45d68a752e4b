"""Which bands of a raster are those that are wanted."""

from __future__ import annotations

from collections.abc import Sequence

from geopsp.errors import BandError


def is_named(bands: Sequence[str]) -> bool:
    """True if the bands carry real names, not merely numbers."""
    return not all(band.startswith("band_") for band in bands)


def match_bands(wanted: Sequence[str | int], found: Sequence[str], *, where: str) -> tuple[int, ...]:
    """Positions, from 0, of the wanted bands among those found.

    By number (3, or "band_3"), else by name; names asked of a raster that has none are taken in
    order, if it has just as many bands.

    Raises:
        BandError: if one is missing.
    """
    texts = [w for w in wanted if isinstance(w, str)]
    if len(texts) == len(wanted) and is_named(texts) and not is_named(found):
        if len(wanted) != len(found):
            raise BandError(
                f"{where} has {len(found)} bands without names; needed {len(wanted)}: {', '.join(texts)}. "
                "Say which they are, by number (bands=, --bands), or name them in the file."
            )
        return tuple(range(len(wanted)))
    by_name = {f"band_{i}": i - 1 for i in range(1, len(found) + 1)} | {name.lower(): i for i, name in enumerate(found)}
    positions = [w - 1 if isinstance(w, int) else by_name.get(w.lower(), -1) for w in wanted]
    missing = [str(w) for w, i in zip(wanted, positions, strict=True) if not 0 <= i < len(found)]
    if missing:
        raise BandError(
            f"{where} has no band {', '.join(missing)}; it has {len(found)}: {', '.join(found)}. "
            "Choose a raster with those bands, or set the band descriptions in the file."
        )
    return tuple(positions)
