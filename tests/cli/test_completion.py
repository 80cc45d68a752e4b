"""Completion in the user's own shell: bash, zsh and fish, as far as they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from common import REPOSITORY, SAMPLE

from geopsp.cli.commands import main

SCRIPTS = {
    "bash": """eval "$(geopsp completion bash)"
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        _geopsp_completion geopsp
        printf '%s\\n' "${COMPREPLY[@]}" """,
    "zsh": """autoload -U compinit; compinit -D -u; eval "$(geopsp completion zsh)"
        compadd() { print -l -- $completions }; _describe() { print -l -- ${completions_with_descriptions%%:*} }
        words=("$@"); CURRENT=$#
        _geopsp_completion""",
    "fish": """geopsp completion fish | source
        complete -C (string join -- ' ' $argv) | string replace -r '\\t.*' ''; true""",
}
"""What asks each shell how it completes the last word of a command line."""


@pytest.fixture
def complete(tmp_path):
    """Returns what a shell offers for a command line whose last word is being written."""
    program = tmp_path / "geopsp"
    code = 'from geopsp.cli.commands import main; main(prog_name="geopsp")'
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n")
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}

    def ask(shell, *words):
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        flags = ["-f"] if shell == "zsh" else ["--no-config"] if shell == "fish" else ["--norc"]
        name = [] if shell == "fish" else [shell]
        command = [shell, *flags, "-c", SCRIPTS[shell], *name, "geopsp", *words]
        found = subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment | {"HOME": str(tmp_path)}, cwd=tmp_path
        )
        assert not found.stderr
        return found.stdout.split()

    return ask


@pytest.mark.slow
@pytest.mark.parametrize("shell", SCRIPTS)
def test_real_shells_complete_commands_options_and_names(shell, complete):
    assert complete(shell, "pol") == ["polygonize"]
    assert complete(shell, "train", "--lov") == ["--lovasz"]
    assert set(complete(shell, "train", "chips", "--backbone", "resnet1")) == {"resnet18", "resnet101", "resnet152"}
    assert set(complete(shell, "train", "chips", "--preset", "b")) == {"balanced", "best"}


def test_values_of_options():
    answer = ShellComplete(main, {}, "geopsp", "_GEOPSP_COMPLETE").get_completions

    def values(words, incomplete):
        return [item.value for item in answer(words, incomplete)]

    assert values(["train", "--weights"], "seco-s") == ["seco-s2-rgb"]
    assert values(["train", "--weights"], "i") == ["imagenet"]
    assert [item.type for item in answer(["train", "--weights"], "./")] == ["file"]
    assert values(["weights", "--backbone"], "resnet5") == ["resnet50"]
    assert values(["export", "m", "--to"], "o") == ["onnx"]
    labels = str(SAMPLE / "labels.gpkg")
    assert values(["chips", "a.tif", "--labels", f"{labels}|layername=landcover", "--class-field"], "") == ["landcover"]
    assert values(["assess", "map.tif", f"{labels}|layername=aoi", "--reference-field"], "n") == ["name"]
    assert values(["chips", "a.tif", "--labels", "none.gpkg", "--class-field"], "") == []
    assert values(["chips", "a.tif", "--class-field"], "") == []


def test_a_value_nearly_right():
    for words, says in (
        (["train", "c", "--out", "m", "--network", "pspnt"], "Did you mean 'pspnet'?"),
        (["train", "c", "--out", "m", "--preset", "bets"], "Did you mean 'best'?"),
        (["export", "m", "--to", "onx", "--out", "x"], "Did you mean 'onnx'?"),
        (["completion", "bsh"], "Did you mean 'bash'?"),
    ):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 2
        assert result.stderr.splitlines()[-1].endswith(says)
