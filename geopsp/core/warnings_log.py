"""Warnings of the library, i.e. messages of level WARNING: collected for reports, or taken for errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from geopsp.errors import StrictError

LOGGER = "geopsp"


class _Collector(logging.Handler):
    """Keeps the text of each warning once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self.texts:
            self.texts.append(text)


class _Raiser(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise StrictError(record.getMessage())


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Yield a list that gets the text of each warning of the block, once."""
    collector = _Collector()
    logging.getLogger(LOGGER).addHandler(collector)
    try:
        yield collector.texts
    finally:
        logging.getLogger(LOGGER).removeHandler(collector)


@contextmanager
def warnings_as_errors() -> Iterator[None]:
    """Raise the first warning of the block as an error, before it is shown; outputs are then not written.

        with geopsp.warnings_as_errors():
            geopsp.export_training_data("scene.tif", "labels.gpkg", "chips", class_field="kind")

    Raises:
        StrictError: where the library warns.
    """
    logger, raiser = logging.getLogger(LOGGER), _Raiser(logging.WARNING)
    logger.handlers.insert(0, raiser)  # before the handlers that show it: it is shown as an error
    try:
        yield
    finally:
        logger.removeHandler(raiser)
