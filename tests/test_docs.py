"""The pages: links lead somewhere, and code uses commands, options, names and arguments that exist."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import shlex
import sys
import types

import click
import pytest
from common import REPOSITORY

import geopsp
from geopsp.cli.commands import main

DOCS = REPOSITORY / "docs"
GENERATED = ("reference/shell/",)
"""Pages of the site that `make docs` makes."""

PAGES = sorted(
    path
    for path in (*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md"), *(REPOSITORY / "sample_data").glob("*.md"))
    if not {"_build", *(part for name in GENERATED for part in [name.strip("/").split("/")[-1]])} & set(path.parts)
)
FENCE = re.compile(r"^(?P<fence>`{3,}|:{3,})(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="the pages are not here, but in the repository")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


def prose(page):
    """The text of a page without its blocks of code."""
    text = page.read_text(encoding="utf-8")
    return FENCE.sub(
        lambda found: found[0] if found["info"].startswith("{") and "code" not in found["info"] else "", text
    )


def anchors(page):
    """The anchors of the headings of a page, as GitHub and MyST write them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@each_page
def test_links_lead_to_files_and_headings(page):
    for link in LINK.findall(prose(page)):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if any(made in str(target) for made in GENERATED):
            continue
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def blocks(page, *languages):
    """The code of a page in these languages."""
    text = page.read_text(encoding="utf-8")
    return [found["body"] for found in FENCE.finditer(text) if found["info"].strip() in languages]


def command_lines(page):
    """The command lines of a page, as lists of arguments; one may go on in the next line."""
    for block in blocks(page, "sh", ""):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("geopsp ") and "..." not in line:
                yield shlex.split(line, comments=True)[1:]


def parse(args):
    """Read a command line as the shell does, without running it."""
    group = main.make_context("geopsp", list(args))
    name, command, rest = main.resolve_command(group, [*group._protected_args, *group.args])
    return command.make_context(name, rest, parent=group)


@each_page
def test_commands_and_their_options_exist(page):
    for args in command_lines(page):
        if args and not {"--help", "--help-all", "COMMAND"} & set(args) and not {"--config"} & set(args):
            try:
                parse(args)
            except click.exceptions.Exit:
                continue
            except click.ClickException as error:
                pytest.fail(f"geopsp {shlex.join(args)}: {error.format_message()}")


def test_a_wrong_option_is_noticed():
    with pytest.raises(click.UsageError, match="No such option"):
        parse(["predict", "model", "a.tif", "--out", "map.tif", "--simplfy", "2"])


def calls(tree):
    """The calls of geopsp's functions: their names and keywords."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                if function.value.id in {"geopsp", "model"}:
                    yield function.value.id, function.attr, [each.arg for each in node.keywords if each.arg]
            elif isinstance(function, ast.Name) and function.id in geopsp.__all__:
                yield "geopsp", function.id, [each.arg for each in node.keywords if each.arg]


@each_page
def test_functions_and_their_arguments_exist(page):
    for block in blocks(page, "python", "{code-cell}"):
        if block.startswith("# arcgis.learn"):
            continue
        for owner, name, keywords in calls(ast.parse(re.sub(r"^:.*\n", "", block, flags=re.MULTILINE))):
            function = getattr(geopsp if owner == "geopsp" else geopsp.PixelClassifier, name)
            parameters = inspect.signature(function).parameters
            unknown = [each for each in keywords if each not in parameters]
            assert not unknown or any(each.kind is each.VAR_KEYWORD for each in parameters.values()), (name, unknown)


def test_the_reference_has_all_public_names():
    pages = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference" / "python").glob("*.md"))
    shown = re.findall(r"^\.\. auto(?:class|function):: geopsp\.(\w+)", pages, re.MULTILINE)
    assert sorted([*shown, "GeopspError", "__version__"]) == sorted(geopsp.__all__)


@pytest.fixture
def shell_pages(monkeypatch):
    """The extension that writes the pages of commands, which needs Sphinx for its types alone."""
    application = types.SimpleNamespace(Sphinx=object)
    monkeypatch.setitem(sys.modules, "sphinx", types.SimpleNamespace(application=application))
    monkeypatch.setitem(sys.modules, "sphinx.application", application)
    spec = importlib.util.spec_from_file_location("shell_pages", DOCS / "_ext" / "shell_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_a_command_has_all_its_options_once(shell_pages):
    for command in main.commands.values():
        options = re.findall(r"^:::\{option\} (.*)$", shell_pages.command_page(command), re.MULTILINE)
        shown = [flag for line in options for flag in re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", line)]
        known = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
        flags = [flag for each in known for flag in (*each.opts, *each.secondary_opts) if flag.startswith("--")]
        assert sorted(shown) == sorted([*flags, "--help"])


def test_names_in_help_are_no_markup(shell_pages):
    assert shell_pages.markdown("a_b *c* [--out <x>] `d_e`") == r"a\_b \*c\* \[`--out` \<x\>\] `d_e`"
