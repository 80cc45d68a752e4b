"""The shell's command `geopsp doctor`."""

from __future__ import annotations

import click

from geopsp.cli.shell_command import ShellCommand, say_verbatim


@click.command(cls=ShellCommand, examples=("geopsp doctor", "geopsp doctor --json"))
@click.option("--json", "as_json", is_flag=True, help="Show the same as JSON.")
def doctor(as_json: bool) -> None:
    """Show what this installation can do and what is missing, in a few lines to paste into a bug report.

    Versions, devices, formats of GDAL, caches, and packages that features need. User names are left out.
    """
    import json

    from geopsp.report.doctor import describe_diagnosis, diagnose

    facts = diagnose()
    say_verbatim(json.dumps(facts, indent=1) if as_json else describe_diagnosis(facts))
