"""The help: options in groups, those that matter first; examples that run; completion; names nearly right."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from geopsp.cli.commands import main
from geopsp.cli.help_page import MAIN, MAIN_OPTIONS, option_groups
from geopsp.models.encoder_names import ENCODER_NAMES

COMMANDS = sorted(main.commands)


def run(*words):
    return CliRunner().invoke(main, list(words))


def flags_in(text):
    """The options that a help describes, not those that it mentions."""
    return set(re.findall(r"^  (?:-\w, )?(--[a-z0-9-]+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_one_group_and_in_the_whole_help(name):
    command = main.commands[name]
    ctx = click.Context(command, info_name=name)
    groups = option_groups(command, ctx)
    options = [each for each in command.get_params(ctx) if isinstance(each, click.Option)]
    grouped = [each for members in groups.values() for each in members]
    assert sorted(map(id, grouped)) == sorted(map(id, options))
    whole = run(name, "--help-all").stdout
    assert {each.opts[-1] for each in options if each.opts[-1] in whole} == {each.opts[-1] for each in options}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_is_short_and_says_what_it_leaves_out(name):
    result = run(name, "--help")
    assert result.exit_code == 0
    assert len(flags_in(result.stdout)) <= 25
    options = [each for each in main.commands[name].params if isinstance(each, click.Option)]
    hidden = [each for each in options if not flags_in(result.stdout) & set(each.opts)]
    words = " ".join(result.stdout.split())
    assert f"--help-all` shows {len(hidden)} further option" in words


def test_what_matters_first_comes_first():
    text = run("train", "--help").stdout
    order = [text.index(f"\n{words}") for words in ("  --out ", "  --network ", "  --epochs ", "General options")]
    assert order == sorted(order)
    assert "--overwrite" in text
    assert "--tversky-fraction" not in text
    assert "Loss (" in " ".join(text.split())


@pytest.mark.parametrize(("name", "options"), MAIN_OPTIONS.items())
def test_main_options_exist(name, options):
    command = main.commands[name]
    shown = [each.name for each in option_groups(command, click.Context(command, info_name=name))[MAIN]]
    assert shown[: len(options)] == list(options)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_command_lines_that_the_command_takes(name):
    command = main.commands[name]
    assert command.examples
    text = run(name, "--help").stdout
    for example in command.examples:
        assert f"  {example}\n" in text
        if example.startswith("geopsp"):
            words = shlex.split(example)[1:]
            assert words[0] == name
            config = "--config" in words
            command.make_context(name, words[1 : words.index("|") if "|" in words else None], resilient_parsing=config)


def test_a_command_nearly_right():
    result = run("polygonise", "map.tif")
    assert result.exit_code == 2
    assert "No such command 'polygonise'. Did you mean polygonize?" in result.stderr
    assert "The commands are chips" in run("zzzz").stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_a_shell(shell):
    script = run("completion", shell).stdout
    assert f"_GEOPSP_COMPLETE={shell}_complete" in script
    assert "_geopsp_completion" in script


def test_completion_knows_commands_options_and_backbones():
    complete = ShellComplete(main, {}, "geopsp", "_GEOPSP_COMPLETE").get_completions

    def values(words, incomplete):
        return [item.value for item in complete(words, incomplete)]

    assert values([], "pol") == ["polygonize"]
    assert values(["train"], "--lov") == ["--lovasz"]
    assert values(["train", "--backbone"], "resnet1") == ["resnet18", "resnet101", "resnet152"]
    assert values(["train", "--network"], "p") == ["pspnet"]
    assert "tu-test_resnet" in values(["train", "--backbone"], "tu-test_")


def test_the_names_that_are_completed_are_those_of_the_library():
    from geopsp.models.encoder import supported_backbones

    assert list(ENCODER_NAMES) == supported_backbones()
