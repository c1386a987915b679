"""The frame of a page: one HTML file that opens offline, put in place in one step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

Section = tuple[str, str, str]
"""Anchor, title, HTML; left out where the HTML is ""."""


def document(title: str, header: str, sections: Sequence[Section], style: str = "") -> str:
    """A page with its style and script: a title, what stands above the contents, and the sections.

    >>> "<h2 id=\\"a-title\\">A</h2>text" in document("One & two", "", [("a", "A", "text"), ("b", "B", "")])
    True
    """
    shown = [section for section in sections if section[2]]
    return Template(_resource("page.html")).substitute(
        title=escape(title),
        style=_resource("page.css") + style,
        script=_resource("page.js"),
        header=header,
        contents="".join(f'<a href="#{anchor}">{name}</a>' for anchor, name, _ in shown),
        sections="".join(
            f'<section id="{anchor}" aria-labelledby="{anchor}-title">'
            f'<h2 id="{anchor}-title">{name}</h2>{body}</section>\n'
            for anchor, name, body in shown
        ),
    )


def write_page(page: Path, html: str) -> Path:
    """Write a page, whole or not at all: whoever has it open never sees half of it."""
    draft = page.with_name(f".{page.stem}-{os.getpid()}.html")
    try:
        # Names of files need not be valid Unicode; a lone surrogate becomes "?".
        draft.write_text(html, "utf-8", errors="replace")
        os.replace(draft, page)
    finally:
        draft.unlink(missing_ok=True)
    return page


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
