"""Memory that this process can still take: of the machine, and of the container that it runs in."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
"""Files with the limit and the use of a container on Linux, by version of its control groups."""


def available_memory() -> int:
    """Return the bytes that are available."""
    available = int(psutil.virtual_memory().available)
    for limit, used in CGROUPS:
        with suppress(OSError, ValueError):  # there is no such file, or it says "max"
            taken = int(used.read_text()) - _cached_bytes(used.with_name("memory.stat"))
            available = min(available, max(0, int(limit.read_text()) - taken))
    return available


def _cached_bytes(statistics: Path) -> int:
    """Return the bytes of files that a container keeps in memory while nothing else needs it."""
    with suppress(OSError, ValueError):
        lines = dict(line.split() for line in statistics.read_text().splitlines())
        return int(lines.get("total_inactive_file", lines.get("inactive_file", 0)))
    return 0
