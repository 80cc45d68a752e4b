"""The shell: `geopsp chips`, `train`, `evaluate`, `predict`, `polygonize`, `sample`, `assess`, `suggest` ...

Nothing heavy is imported before a command runs, so that `geopsp --help` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import geopsp
from geopsp.cli.assess import assess
from geopsp.cli.calibrate import calibrate
from geopsp.cli.change import change
from geopsp.cli.chips import chips
from geopsp.cli.compare import compare
from geopsp.cli.completion import completion
from geopsp.cli.doctor import doctor
from geopsp.cli.export import export
from geopsp.cli.info import info, weights
from geopsp.cli.options import dry_run_option, overwrite_option
from geopsp.cli.plan import show_plan
from geopsp.cli.predict import polygonize, predict
from geopsp.cli.results import record, wrote
from geopsp.cli.sample import sample
from geopsp.cli.shell_command import ShellCommand
from geopsp.cli.suggest import suggest
from geopsp.cli.train import evaluate, train
from geopsp.core.argument_names import near_name
from geopsp.core.escape import printable_lines

SECTIONS = {
    "Make maps": ("chips", "train", "evaluate", "predict", "polygonize"),
    "Know what they are worth": ("sample", "assess", "calibrate", "change", "compare", "suggest"),
    "Other commands": ("info", "export", "weights", "demo", "doctor", "completion"),
}
"""The commands by title, as the help shows them."""


class Commands(click.Group):
    """The commands of the shell."""

    command_class = ShellCommand

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the work."""
        return [name for names in SECTIONS.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for title, names in SECTIONS.items():
            limit = formatter.width - width - 6
            rows = [(name.ljust(width), self.commands[name].get_short_help_str(limit)) for name in names]
            with formatter.section(title):
                formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; suggest the one that an unknown name means."""
        name = args[0]
        near = near_name(name, self.commands)
        if name not in self.commands and not name.startswith("-"):
            hint = f"Did you mean {near}?" if near else f"The commands are {', '.join(self.list_commands(ctx))}."
            raise click.UsageError(f"No such command {name!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            text = printable_lines(error.format_message().split("\n"))
            if text == error.format_message():
                raise
            raise click.UsageError(text, error.ctx) from None  # a * in the shell may stand for any name


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(geopsp.__version__)
def main() -> None:
    """Turn satellite and aerial imagery into maps: chips, training, prediction, polygons."""


@main.command(stopped="Nothing was written.", examples=("geopsp demo --out demo",))
@click.option("--out", default="demo", show_default=True, type=click.Path(path_type=Path), help="Folder for results.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the sample data. Default: geopsp's own.")
@click.option("--epochs", type=int, help="Passes over the training chips. Default: as many as take a few minutes.")
@dry_run_option
@overwrite_option
def demo(out: Path, data: Path | None, epochs: int | None, dry_run: bool, overwrite: bool) -> None:
    """Run all steps on the sample data: chips, training, scores, map, polygons, report."""
    from geopsp.core.extras import require_torch

    require_torch("`geopsp demo`")
    from geopsp.cli.demo import plan, run

    if dry_run:
        show_plan(plan(out, data=data, epochs=epochs, overwrite=overwrite))
        return
    scores = run(out, data=data, epochs=epochs, overwrite=overwrite)
    record({"scores": scores.to_json()})
    wrote(out)


for command in (
    chips, train, evaluate, predict, polygonize, sample, assess, calibrate, change, compare, suggest, info, export,
    weights, doctor, completion,
):  # fmt: skip
    main.add_command(command)


if __name__ == "__main__":
    main()
