"""The shell's command `geopsp completion`, which the user's shell reads once."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from geopsp.cli.option_values import Choice
from geopsp.cli.results import say_verbatim
from geopsp.cli.shell_command import ShellCommand

SHELLS = {
    "bash": 'eval "$(geopsp completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(geopsp completion zsh)"   # in ~/.zshrc',
    "fish": "geopsp completion fish | source   # in ~/.config/fish/config.fish",
}
"""How each shell is told, once."""


@click.command(cls=ShellCommand, json=False, examples=tuple(SHELLS.values()))
@click.argument("shell", type=Choice(list(SHELLS)))
def completion(shell: str) -> None:
    """Print the script with which SHELL completes commands, options, files and backbones of geopsp."""
    root = click.get_current_context().find_root()
    cls = get_completion_class(shell)
    assert cls is not None
    say_verbatim(cls(root.command, {}, "geopsp", "_GEOPSP_COMPLETE").source())
