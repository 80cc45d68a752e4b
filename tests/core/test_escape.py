"""Names of any kind, wherever they are written."""

from __future__ import annotations

import csv
import io
import json
import logging
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from names_common import NASTY, is_safe, names

from geopsp.core.escape import csv_text, html_text, printable, printable_lines, xml_text
from geopsp.core.log import console
from geopsp.core.progress import progress_bar
from geopsp.errors import GeopspError, InputNotFoundError, StrictError

logger = logging.getLogger("geopsp.somewhere")

any_text = names | st.text()


def test_control_characters_are_shown_as_in_json():
    assert printable("a\nb\t\x1b[31m\x7f\x9b \u202e\u2028") == r"a\nb\t\u001b[31m\u007f\u009b \u202e\u2028"
    assert printable("\udcff \U000e0041") == r"\udcff \udb40\udc41"
    assert printable("Straße, 東京 🛰️, न्‍य, a\u00a0b") == "Straße, 東京 🛰️, न्‍य, a\u00a0b"


@given(any_text)
def test_a_printable_text_is_one_line_without_control_characters(text):
    found = printable(text)
    assert is_safe(found)
    assert "\n" not in found
    assert printable(found) == found
    if "\\" not in text:
        quoted = found.replace('"', r"\"")
        assert json.loads(f'"{quoted}"') == text
    assert printable_lines([text, text]) == f"{found}\n{found}"


@given(any_text)
@pytest.mark.parametrize("kind", [GeopspError, InputNotFoundError, StrictError])
def test_errors_are_one_line(kind, text):
    assert str(kind(f"No such file: {text}.")) == f"No such file: {printable(text)}."


class Content(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, attributes))

    def handle_data(self, data):
        self.text += data


@given(any_text)
def test_html_holds_the_text(text):
    content = Content()
    content.feed(f'<p title="{html_text(text)}">{html_text(text)}</p>')
    content.close()
    shown = printable_lines(text.split("\n"))
    assert content.tags == [("p", [("title", shown)])]
    assert content.text == shown


@given(any_text)
def test_xml_holds_the_text(text):
    root = ET.Element("a", b=xml_text(text))
    root.text = xml_text(text)
    found = ET.fromstring(ET.tostring(root, encoding="unicode"))
    assert found.get("b") == xml_text(text)
    assert (found.text or "") == xml_text(text).replace("\r\n", "\n").replace("\r", "\n")


@given(any_text)
@example("=1+1")
@example("\t=1+1")
def test_no_cell_is_a_formula(text):
    out = io.StringIO()
    csv.writer(out).writerow([csv_text(text)])
    ((cell,),) = csv.reader(io.StringIO(out.getvalue(), newline="")) if text else (("",),)
    assert cell[:1] not in set("=+-@\t\r")
    assert cell.removeprefix("'") == text.removeprefix("'")


@pytest.mark.parametrize("name", NASTY)
def test_messages_are_one_line_for_every_handler(name, capsys, caplog):
    logger.warning("Band %s of %r", name, "x")
    assert caplog.messages == [f"Band {printable(name)} of 'x'"]
    assert capsys.readouterr().err == f"Warning: Band {printable(name)} of 'x'\n"


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_names_as_they_are(name, terminal, capsys, monkeypatch):
    monkeypatch.setattr(console(), "_force_terminal", terminal)
    with progress_bar(name, gap=0) as progress:
        progress(1, 1, name)
        progress(5, 5, name)
    found = capsys.readouterr().err
    if terminal:
        assert "\x9b" not in found
        assert "\x07" not in found
    else:
        assert found[len("2026-11-30 15:04:12 ") :] == f"{printable(name)}: 1 of 1, {printable(name)}\n"
