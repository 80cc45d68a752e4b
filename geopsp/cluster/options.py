"""The options `client` and `scheduler`, checked."""

from __future__ import annotations

from typing import Any

from geopsp.errors import OptionError


def check_client(client: Any, scheduler: str | None) -> None:
    """Check that at most one of both is given, and that `client` is a Dask client or None.

    Raises:
        OptionError: if not.
    """
    if client is None:
        return
    if scheduler is not None:
        raise OptionError("`client` and `scheduler` are both given. Give one of them.")
    if not all(callable(getattr(client, name, None)) for name in ("map", "nthreads")):
        raise OptionError(f"`client` is {client!r}, but must be a Dask client. Pass an address as `scheduler`.")
