"""Words for counts and sizes in messages."""

from __future__ import annotations


def format_count(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: "1 chip", "1,200 chips".

    Args:
        count: From 0 on.
        noun: In the singular.
        plural: For nouns that do more than add an "s".
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def format_pixel_size(x: float, y: float, unit: str) -> str:
    """Return a pixel size with its unit: "2 x 2 m", "0.0001 x 0.0001 degrees (about 11 m)".

    Args:
        x: Width in units of the CRS.
        y: Height in units of the CRS.
        unit: As `Grid.unit` has it, e.g. "metre" or "degree".
    """
    if unit == "metre":
        return f"{x:g} x {y:g} m"
    if unit == "degree":
        return f"{x:g} x {y:g} degrees (about {111_320 * y:.3g} m)"
    return f"{x:g} x {y:g} {unit}"


def format_length(length: float, unit: str) -> str:
    """Return a length with its unit: "400 m", "12 km", "0.0001 degrees (about 11 m)".

    Args:
        length: In units of the CRS.
        unit: As `Grid.unit` has it, e.g. "metre" or "degree".
    """
    if unit == "metre":
        return f"{length / 1000:,.0f} km" if length >= 9_999.5 else f"{length:.4g} m"
    if unit == "degree":
        metres = float(f"{length * 111_320:.2g}")
        return f"{length:.3g} degrees (about {format_length(metres, 'metre')})"
    return f"{length:,.4g} {unit.replace('foot', 'feet')}"


MAX_REASON = 400
"""Characters of another library's message: some quote whole files."""


def format_error(error: BaseException) -> str:
    """Return the message of an error in one line, without its full stop; a long one is shortened."""
    if isinstance(error, UnicodeDecodeError):
        return "it contains text that is not UTF-8"
    text = " ".join(line.strip() for line in str(error).strip().splitlines())
    return shorten(text.rstrip("."), MAX_REASON)


def shorten(text: str, most: int) -> str:
    """Return a text of at most `most` characters: the middle of a longer one is left out."""
    return text if len(text) <= most else f"{text[: most * 2 // 3]} ... {text[len(text) - most // 3 + 5 :]}"


def format_duration(seconds: float) -> str:
    """Write a duration as "40 s", "7 min", "3 h 20 min" or "2 days 3 h"."""
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h"


def format_clock(seconds: float) -> str:
    """Write a duration that is watched as "0:05", "12:40" or "3:20:00"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
