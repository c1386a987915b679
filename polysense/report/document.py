"""The frame of a page: one HTML file that opens offline, put in place in one step."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

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


def facts(mapping: Mapping[str, Any]) -> str:
    """A nested mapping as lists of names and values, a block for each inner mapping."""
    plain = {key: value for key, value in mapping.items() if not (isinstance(value, Mapping) and value)}
    blocks = [("general", plain)] if plain else []
    blocks += [(str(key), value) for key, value in mapping.items() if key not in plain]
    shown = []
    for name, block in blocks:
        rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in _flat(block))
        title = f"<h3>{escape(name)}</h3>" if len(blocks) > 1 else ""
        shown.append(f"<div>{title}<dl>{rows}</dl></div>")
    return f'<div class="facts">{"".join(shown)}</div>' if shown else ""


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield (
                name,
                value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False),
            )
