"""Warnings are collected once each, or raised where they arise."""

from __future__ import annotations

import logging

import pytest

import geopsp
from geopsp.core.warnings_log import collect_warnings, warnings_as_errors
from geopsp.errors import StrictError

logger = logging.getLogger("geopsp.somewhere")


def test_each_warning_is_collected_once():
    with collect_warnings() as outer:
        logger.warning("before")
        with collect_warnings() as inner:
            logger.warning("%d pixels", 3)
            logger.warning("%d pixels", 3)
            logger.info("done")
            logging.getLogger("another").warning("not ours")
        logger.error("an error")
    logger.warning("after")
    assert (outer, inner) == (["before", "3 pixels", "an error"], ["3 pixels"])


def test_a_warning_is_an_error_before_it_is_shown(capsys):
    handlers = list(logging.getLogger("geopsp").handlers)
    with warnings_as_errors():
        logger.info("fine")
        with pytest.raises(StrictError) as caught:
            logger.warning("%d pixels", 3)
    assert str(caught.value) == "3 pixels"
    logger.warning("later")
    assert capsys.readouterr().err.splitlines() == ["fine", "Warning: later"]
    assert logging.getLogger("geopsp").handlers == handlers
    assert geopsp.warnings_as_errors is warnings_as_errors
