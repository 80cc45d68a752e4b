"""Messages name the shell's options, whatever Python calls them."""

from __future__ import annotations

import logging
import warnings

import click
import pytest
from click.testing import CliRunner
from names_common import is_safe

from geopsp.cli.commands import main
from geopsp.cli.messages import Translator, shell_messages
from geopsp.core.log import handler
from geopsp.errors import OptionError
from geopsp.report.description import Description

logger = logging.getLogger("geopsp.somewhere")


@pytest.mark.parametrize(
    ("command", "text", "expected"),
    [
        ("predict", "Use `overwrite=True`.", "Use --overwrite."),
        ("predict", "`overwrite=False` it is", "no --overwrite it is"),
        ("predict", "`predict_background=False`", "--no-background"),
        ("predict", "`predict_background` is False", "--no-background is False"),
        ("predict", "`test_time_augmentation`", "--tta"),
        ("predict", "`keep=['building']`", "--keep building"),
        ("predict", "`keep=['a b', 7]`", "--keep 'a b,7'"),
        ("predict", "`regularize=True` or `regularize=1.5`", "--regularize or --regularize 1.5"),
        ("predict", "Set `bands=[3, 'nir']`", "Set --bands 3,nir"),
        ("predict", "Add `polygons=FILE`", "Add --polygons FILE"),
        ("predict", "`client` and `scheduler`", "client and --scheduler"),
        ("predict", "`images=[...]`, `model`", "images=[...], MODEL"),
        ("chips", "`tile_size=64`", "--size 64"),
        ("chips", "`tile_size` is 8", "--size is 8"),
        ("chips", "`grid=False`", "--no-grid"),
        ("chips", "`per_image=False`", "--mosaic"),
        ("chips", "`background='class'`", "--background class"),
        ("chips", "`random_chips`", "--random-chips"),
        ("train", "`chip_size=64` and `lr=(0.1, 0.2)`", "--chip-size 64 and --lr 0.1,0.2"),
        ("train", "`encoder_weights=None`", "--weights none"),
        ("train", "`batch_size=None`", "--batch-size 0"),
        ("train", "`pyramid_sizes=()`", "--pyramid-sizes none"),
        ("train", "`aux_loss=True`, `aux_loss=False`", "--aux-loss, --no-aux-loss"),
        ("train", "`use_unet=False`", "--no-unet"),
        ("train", "`folder` or `resume=True`", "--run or --resume"),
        ("train", "`seed` and `polygons`", "--seed and polygons"),
        ("evaluate", "`device='cuda'`", "--device cuda"),
        ("info", "`overwrite=True`, e.g. `3: {name: water}`", "overwrite=True, e.g. `3: {name: water}`"),
    ],
)
def test_arguments_become_flags(command, text, expected):
    assert Translator(main.commands[command])(text) == expected


@pytest.mark.parametrize(
    ("command", "text", "expected"),
    [
        ("chips", "Use `balanced_sampling=True` when training", "Use --balanced-sampling when training"),
        ("info", "Use `overwrite=True` or `labels`, `name='b'`", "Use --overwrite or --labels, name='b'"),
        ("train", "`folder` and `polygons=FILE`", "--run and --polygons FILE"),
        (
            "evaluate",
            "Export with `export_training_data()` or `prepare_data()`",
            "Export with geopsp chips or geopsp train",
        ),
        ("predict", "`images`, `model` and `other()`", "IMAGE..., MODEL and other()"),
    ],
)
def test_what_is_of_another_command_is_named_as_there(command, text, expected):
    assert Translator(main.commands[command], main.commands.values())(text) == expected


def test_messages_and_warnings(capsys):
    """In the shell's words; the same warning once; everything as before afterwards."""
    package = logging.getLogger("geopsp")
    before = package.level, handler.always, handler.formatter, list(handler.filters)
    with shell_messages(Translator(main.commands["predict"]), logging.INFO):
        for _ in range(2):
            logger.warning("Set `tile_size=%d`.", 64)
            logger.info("done")
            logger.debug("hidden")
        logger.warning("Set `tile_size=%d`.", 32)
    assert capsys.readouterr().err.splitlines() == [
        "Warning: Set --tile-size 64.", "done", "done", "Warning: Set --tile-size 32.",
    ]  # fmt: skip
    assert (package.level, handler.always, handler.formatter, list(handler.filters)) == before


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ([], ["info", "Warning: warning"]),
        (["-q"], ["Warning: warning"]),
        (["--quiet"], ["Warning: warning"]),
        (["-v"], ["debug", "info", "Warning: warning"]),
    ],
)
def test_quiet_and_verbose(flags, shown, monkeypatch):
    def describe(path):
        logger.debug("debug")
        logger.info("info")
        logger.warning("warning")
        return Description("raster", "a result", {}, "geopsp chips")

    monkeypatch.setattr("geopsp.report.describe.describe", describe)
    result = CliRunner().invoke(main, ["info", "x", *flags])
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines() == [*shown, "1 warning:", "- warning"]
    assert result.stdout == "a result\n  command    geopsp chips\n"


def test_quiet_and_verbose_exclude_each_other():
    result = CliRunner().invoke(main, ["info", "x", "-q", "-v"])
    assert result.exit_code == 2
    assert "--quiet and --verbose exclude each other" in result.stderr


def test_every_command_is_quiet_or_verbose():
    for command in main.commands.values():
        assert {"quiet", "verbose"} <= {each.name for each in command.params if isinstance(each, click.Option)}


def test_errors_are_one_line_in_the_words_of_the_command(monkeypatch):
    def fail(path):
        raise OptionError("a\n.tif already exists. Use `overwrite=True`, or `name='b'`.")

    monkeypatch.setattr("geopsp.report.describe.describe", fail)
    result = CliRunner().invoke(main, ["info", "x"])
    assert result.exit_code == 2
    assert result.stderr == "Error: a\\n.tif already exists. Use --overwrite, or name='b'.\n"


def test_warnings_of_libraries_are_one_line(monkeypatch):
    """GDAL's warnings come as Python's, with names from the file."""
    shown = []

    def warn(path):  # pytest itself collects what is warned of
        shown.append(warnings.formatwarning(RuntimeWarning("Field \x1b[31mred\n\u202e is odd"), RuntimeWarning, "f", 1))
        raise OptionError("done")

    monkeypatch.setattr("geopsp.report.describe.describe", warn)
    before = warnings.formatwarning
    CliRunner().invoke(main, ["info", "x"])
    assert shown == ["RuntimeWarning: Field \\u001b[31mred\\n\\u202e is odd\n"]
    assert warnings.formatwarning is before


@pytest.mark.parametrize("arguments", [["info", "--\x1b[31m"], ["polygonize", "a", "\x1b[31m\nb", "--out", "c"]])
def test_the_command_line_is_shown_printable(arguments):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert is_safe(result.stderr)
    assert "31m" in result.stderr
