"""HTML of notebooks, read strictly."""

from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree as ET

VOID = {"img", "br"}
"""Elements without an end."""


class _Reader(HTMLParser):
    """Builds a tree; tags must be balanced."""

    def __init__(self):
        super().__init__()
        self.builder, self.open = ET.TreeBuilder(), []

    def handle_starttag(self, tag, attrs):
        self.builder.start(tag, dict(attrs))
        self.open.append(tag)
        if tag in VOID:
            self.handle_endtag(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.builder.end(tag)

    def handle_data(self, data):
        self.builder.data(data)


def parse_html(html):
    """The tree of one element."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader.builder.close()


def texts(element, tag):
    """The texts of all elements with a tag."""
    return ["".join(each.itertext()) for each in element.iter(tag)]
