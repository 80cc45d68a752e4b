"""The shell's command `geopsp doctor`."""

from __future__ import annotations

import click

from geopsp.cli.results import show
from geopsp.cli.shell_command import ShellCommand


@click.command(cls=ShellCommand, examples=("geopsp doctor", "geopsp doctor --json"))
def doctor() -> None:
    """Show what this installation can do and what is missing, in a few lines to paste into a bug report.

    Versions, devices, formats of GDAL, caches, and packages that features need. User names are left out.
    """
    from geopsp.report.doctor import describe_diagnosis, diagnose

    facts = diagnose()
    show(describe_diagnosis(facts), facts)
