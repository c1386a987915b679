"""Assemble what a run folder holds into one self-contained HTML page."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import yaml

from polysense.errors import PolysenseError
from polysense.report import charts, gallery
from polysense.report.charts import Log, amount, number
from polysense.report.document import Section, document, facts, write_page
from polysense.report.results import encoder, evaluation_section, key_result, ordered, outcome, spoken, valued


def write_report(run: Path) -> Path:
    """Write `report.html` into a run folder: one file that opens offline, in any browser.

    It reads `config.yaml` and, where they are there, `metrics.jsonl`, `environment.json`,
    `evaluation.json` and `gallery.npz`. The page is replaced in one step, so that whoever has it
    open never sees half of it.

    Returns:
        The path of the page.

    Raises:
        PolysenseError: `run` is not a run folder, or a file in it cannot be read.

    >>> import tempfile
    >>> run = Path(tempfile.mkdtemp())
    >>> _ = (run / "config.yaml").write_text("method: simclr")
    >>> write_report(run).name
    'report.html'
    """
    run = Path(run)
    if not (run / "config.yaml").is_file():
        raise PolysenseError(
            f"{run} is not a run folder (no config.yaml): give the folder that 'polysense pretrain' made"
        )
    return write_page(run / "report.html", render(run))


def render(run: Path) -> str:
    """The page of a run folder, as text."""
    config = _read(run / "config.yaml", "mend it, or train again")
    environment = _read(run / "environment.json", "delete it to report without it")
    evaluation = _read(run / "evaluation.json", "make it again with 'polysense evaluate'")
    log = charts.read_log(run / "metrics.jsonl")
    how = f"run <code>polysense evaluate {escape(run.name)}</code>"
    pictures, style = _gallery_sections(run / "gallery.npz", how)
    sections = [
        ("curves", "Training curves", charts.curves(log) or _hint("Nothing has been logged yet.")),
        ("evaluation", "Evaluation", evaluation_section(evaluation) or _hint(f"Not evaluated yet: {how}.")),
        *pictures,
        ("configuration", "Configuration", facts(config)),
        ("environment", "Environment", environment_section(environment)),
    ]
    title = f"{_named(config, 'method')} on {_named(config, 'data')}"
    above = f'<p class="run">{escape(run.name)}</p><h1>{escape(title)}</h1>'
    return document(title, above + header(config, evaluation, log), sections, style)


def header(config: Mapping[str, Any], evaluation: Mapping[str, Any], log: Log) -> str:
    """What was trained on what for how long, and what came of it."""
    method, trunk, data = (_named(config, key) for key in ("method", "encoder", "data"))
    story = f"{trunk} trained with {method} on {data}"
    story += f" for {amount(log.steps, 'step')}" if log.steps else "; no step is logged yet"
    figures: list[tuple[str, str]] = []
    column, values = key_result(evaluation)
    for name in ordered(values):
        detail = f": {spoken(column)}" if not figures else ""
        figures.append((encoder(name) + detail, valued(column, values[name])))
    if len(epochs := log.series("epoch")) and epochs.iloc[-1] >= 1:
        story += f" ({amount(int(epochs.iloc[-1]), 'epoch')})"
    if log.seconds:
        story += f", in {_duration(log.seconds)}"
    if len(speed := log.series("samples_per_second")):
        figures.append(("Samples per second", number(float(speed.median()))))
    if len(rank := log.series("rankme")):
        figures.append(("Effective rank", number(float(rank.iloc[-1]))))
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in figures)
    return f'<p class="story">{escape(story)}. <strong>{escape(outcome(evaluation, log))}</strong></p>' + (
        f'<dl class="figures">{tiles}</dl>' if tiles else ""
    )


def environment_section(environment: Mapping[str, Any]) -> str:
    """Versions, hardware, seed and date, and the command that ran."""
    if not environment:
        return _hint("environment.json is missing: versions and hardware are not known.")
    command = environment.get("command")
    text = shlex.join(map(str, command)) if isinstance(command, list) else str(command or "")
    rest = {key: value for key, value in environment.items() if key != "command"}
    return facts(rest) + (f"<h3>Command</h3><pre><code>{escape(text)}</code></pre>" if text else "")


def _gallery_sections(path: Path, how: str) -> tuple[list[Section], str]:
    samples = gallery.read_gallery(path)
    if samples is None:
        hint = _hint(f"To see nearest neighbours, a map of the embeddings and the views, {how}.")
        return [("gallery", "Gallery", hint)], ""
    thumbs = None
    if samples.thumbnails is not None and len(samples.thumbnails):
        thumbs = gallery.sheet(samples.thumbnails, largest=64, limit=2_000_000)
    seen, style = gallery.views(samples)
    sections = [
        ("neighbours", "Nearest neighbours", gallery.neighbours(samples, thumbs) + gallery.sounds(samples)),
        ("map", "Map of the embeddings", gallery.embedding_map(samples, thumbs)),
        ("views", "Views", seen),
    ]
    return sections, style + (thumbs.css("thumb") if thumbs else "")


def _named(config: Mapping[str, Any], key: str) -> str:
    """What the configuration calls its method, encoder or data, in a word."""
    value = config.get(key)
    if isinstance(value, Mapping):
        value = next((value[inner] for inner in ("name", "source", "path") if value.get(inner)), None)
    if isinstance(value, Mapping):  # a tower for each part
        value = " + ".join(map(str, value.values()))
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = str(value or f"unnamed {key}").rstrip("/")
    return text.rpartition("/")[2] if key == "data" else text


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.1f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _hint(html: str) -> str:
    return f'<p class="hint">{html}</p>'


def _read(path: Path, remedy: str) -> dict[str, Any]:
    """A YAML or JSON file that holds a mapping; `{}` where there is no file."""
    if not path.exists():
        return {}
    try:
        text = path.read_text("utf-8")
        content = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise PolysenseError(f"{path} cannot be read ({reason}): {remedy}") from error
    if not isinstance(content, dict):
        raise PolysenseError(f"{path} must hold names and values, found {type(content).__name__}: {remedy}")
    return content
