"""Assemble what a run folder holds into one self-contained HTML page."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

import yaml

from polysense.errors import PolysenseError
from polysense.report import charts, gallery
from polysense.report.charts import Log, number
from polysense.report.document import Section, document, write_page

ENCODERS = {
    "pretrained": "Pretrained",
    "untrained": "Untrained",
    "pixels": "Raw pixels",
    "PCA of pixels": "PCA of pixels",
    "majority": "Majority class",
}
BLIND = ("majority", "chance")  # answers that look at no sample: every other row is a rival to beat
RIVALS = {
    "untrained": "the untrained encoder",
    "pixels": "raw pixels",
    "PCA of pixels": "the PCA of pixels",
}
PROBES = {
    "knn": "kNN",
    "linear": "Linear",
    "mlp": "MLP",
    "finetune": "Fine-tuned",
    "recall": "Recall",
    "zeroshot": "Zero-shot",
}
WORDS = {**PROBES, "rankme": "RankMe", "r2": "R²"}
LOWER_IS_BETTER = {"loss", "error", "mse", "mae", "rmse", "perplexity"}


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
    method, encoder, data = (_named(config, key) for key in ("method", "encoder", "data"))
    story = f"{encoder} trained with {method} on {data}"
    story += f" for {_amount(log.steps, 'step')}" if log.steps else "; no step is logged yet"
    figures: list[tuple[str, str]] = []
    column, values = _key_result(evaluation)
    for name in _ordered(values):
        detail = f": {_spoken(column)}" if not figures else ""
        figures.append((_encoder(name) + detail, _valued(column, values[name])))
    if len(epochs := log.series("epoch")) and epochs.iloc[-1] >= 1:
        story += f" ({_amount(int(epochs.iloc[-1]), 'epoch')})"
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


def outcome(evaluation: Mapping[str, Any], log: Log) -> str:
    """The key result in a sentence or two, beside what comes without training."""
    column, values = _key_result(evaluation)
    if not column:
        online = log.series("knn")
        if len(online) < 2:
            return "It has not been evaluated yet."
        return (
            f"Online kNN went from {online.iloc[0]:.1f}\u00a0% to {online.iloc[-1]:.1f}\u00a0%; "
            "it has not been compared with an untrained encoder yet."
        )
    others = " and ".join(f"{_valued(column, values[key])} for {_rival(key)}" for key in _rivals(values))
    text = f"{_spoken(column)}: {_valued(column, values['pretrained'])} after pretraining"
    text += f", against {others}." if others else "."
    results = evaluation["results"]
    lost = {column for column, _, won in _comparisons(results) if not won}
    return text + (
        f" In {len(lost)} of {_amount(len(results['pretrained']), 'column')} it falls short." if lost else ""
    )


def evaluation_section(evaluation: Mapping[str, Any]) -> str:
    """The table of results with the best of each column marked, bars, and what pretraining did not beat."""
    results = {name: row for name, row in evaluation.get("results", {}).items() if row}
    if not results:
        return ""
    results = {name: results[name] for name in _ordered(results)}
    intervals = evaluation.get("intervals") or {}
    names = dict.fromkeys(column for row in results.values() for column in row)
    columns = {column: values for column in names if (values := _column(results, column))}
    notes = "".join(f"<li>{escape(str(note))}</li>" for note in evaluation.get("notes") or [])
    protocol = facts(evaluation.get("protocol") or {})
    bars = []
    for column, values in columns.items():
        rows = [(_encoder(name), value, _interval(intervals, name, column)) for name, value in values.items()]
        bars.append(charts.bars(_spoken(column), rows, full=100.0 if _percent(column, values) else 0.0))
    return (
        f'<ul class="events">{verdict(results, intervals)}{notes}</ul>'
        f'<div class="scroll">{_table(results, columns, intervals)}</div>'
        f'<div class="panels">{"".join(bars)}</div>'
        + (f"<details><summary>Protocol</summary>{protocol}</details>" if protocol else "")
    )


def verdict(results: Mapping[str, Any], intervals: Mapping[str, Any]) -> str:
    """Say plainly, as list items, where pretraining does not beat what comes without it."""
    items, close = [], []
    for column, rival, won in (comparisons := list(_comparisons(results))):
        ours, theirs = number(results["pretrained"][column]), number(results[rival][column])
        near = [_interval(intervals, name, column) for name in ("pretrained", rival)]
        figures = f"({ours} against {theirs})"
        if not won:
            text = f"{_spoken(column)}: pretraining does not beat {_rival(rival)} {figures}."
            items.append(f'<li class="warning">{escape(text)}</li>')
        elif near[0] and near[1] and near[0][0] <= near[1][1] and near[1][0] <= near[0][1]:
            text = f"{_spoken(column)}: ahead of {_rival(rival)} {figures}, but the intervals overlap."
            close.append(f"<li>{escape(text)}</li>")
    if comparisons and not items:
        rivals = " and ".join(dict.fromkeys(_rival(rival) for _, rival, _ in comparisons))
        items.append(f"<li>Pretraining beats {rivals} in every column.</li>")
    return "".join(items + close)


def environment_section(environment: Mapping[str, Any]) -> str:
    """Versions, hardware, seed and date, and the command that ran."""
    if not environment:
        return _hint("environment.json is missing: versions and hardware are not known.")
    command = environment.get("command")
    text = shlex.join(map(str, command)) if isinstance(command, list) else str(command or "")
    rest = {key: value for key, value in environment.items() if key != "command"}
    return facts(rest) + (f"<h3>Command</h3><pre><code>{escape(text)}</code></pre>" if text else "")


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


def _table(results: Mapping[str, Any], columns: Mapping[str, Any], intervals: Mapping[str, Any]) -> str:
    head = "".join(f'<th scope="col">{escape(_spoken(column))}</th>' for column in columns)
    body = []
    for name in results:
        cells = []
        for column, values in columns.items():
            if name not in values:
                cells.append("<td>–</td>")
                continue
            text, near = number(values[name]), _interval(intervals, name, column)
            if values[name] == _best(column, values.values()):
                text = f'<b title="best of the column">{text}</b>'
            small = f"<small>{number(near[0])} to {number(near[1])}</small>" if near else ""
            cells.append(f"<td>{text}{small}</td>")
        body.append(f'<tr><th scope="row">{escape(_encoder(name))}</th>{"".join(cells)}</tr>')
    head = f'<thead><tr><th scope="col">Encoder</th>{head}</tr></thead>'
    return f"<table>{head}<tbody>{''.join(body)}</tbody></table>"


def _comparisons(results: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Each column and rival that pretraining can be held against, and whether it won."""
    for column in results.get("pretrained", {}):
        values = _column(results, column)
        for rival in _rivals(values):
            if "pretrained" in values:
                ours, theirs = values["pretrained"], values[rival]
                yield column, rival, ours != theirs and _best(column, [ours, theirs]) == ours


def _ordered(rows: Iterable[str]) -> list[str]:
    """Encoders in the usual order, and behind them those that are not of every run."""
    named = list(rows)
    return [*filter(named.__contains__, ENCODERS), *(name for name in named if name not in ENCODERS)]


def _rivals(rows: Iterable[str]) -> list[str]:
    """What pretraining has to beat to be worth its while."""
    return [name for name in _ordered(rows) if name != "pretrained" and name not in BLIND]


def _rival(name: str) -> str:
    return RIVALS.get(name, name)


def _key_result(evaluation: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """The first column that pretraining has, with every encoder's value in it."""
    results = evaluation.get("results", {})
    for column in results.get("pretrained", {}):
        if "pretrained" in (values := _column(results, column)):
            return column, values
    return "", {}


def _column(results: Mapping[str, Any], column: str) -> dict[str, float]:
    """The values in one column by encoder, but for those that are missing or NaN."""
    found = {name: row.get(column) for name, row in results.items()}
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }


def _best(column: str, values: Collection[float]) -> float:
    return min(values) if LOWER_IS_BETTER & set(column.lower().split("_")) else max(values)


def _interval(intervals: Mapping[str, Any], name: str, column: str) -> tuple[float, float] | None:
    near = intervals.get(name, {}).get(column)
    return (float(near[0]), float(near[1])) if near else None


def _encoder(name: str) -> str:
    return ENCODERS.get(name, name.replace("_", " ").capitalize())


def _spoken(column: str) -> str:
    """A column's name for reading: `knn_group` is "kNN, group"."""
    probe, _, target = column.partition("_")
    return ", ".join(filter(None, (WORDS.get(probe, probe.capitalize()), target.replace("_", " "))))


def _percent(column: str, values: Mapping[str, float]) -> bool:
    """Probes report accuracy in percent; nothing above 1 is another score, such as R²."""
    return column.partition("_")[0] in PROBES and 1 < max(values.values()) <= 100


def _valued(column: str, value: float) -> str:
    return number(value) + ("\u00a0%" if _percent(column, {"": value}) else "")


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


def _amount(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _hint(html: str) -> str:
    return f'<p class="hint">{html}</p>'


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
