"""What a run came to, in words and in a table: each figure beside what comes without training."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from html import escape
from typing import Any

from polysense.report import charts
from polysense.report.charts import Log, amount, number
from polysense.report.document import facts

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


def outcome(evaluation: Mapping[str, Any], log: Log) -> str:
    """The key result in a sentence or two, beside what comes without training."""
    column, values = key_result(evaluation)
    if not column:
        online = log.series("knn")
        if len(online) < 2:
            return "It has not been evaluated yet."
        return (
            f"Online kNN went from {online.iloc[0]:.1f}\u00a0% to {online.iloc[-1]:.1f}\u00a0%; "
            "it has not been compared with an untrained encoder yet."
        )
    others = " and ".join(f"{valued(column, values[key])} for {_rival(key)}" for key in _rivals(values))
    text = f"{spoken(column)}: {valued(column, values['pretrained'])} after pretraining"
    text += f", against {others}." if others else "."
    results = evaluation["results"]
    lost = {column for column, _, won in _comparisons(results) if not won}
    return text + (
        f" In {len(lost)} of {amount(len(results['pretrained']), 'column')} it falls short." if lost else ""
    )


def evaluation_section(evaluation: Mapping[str, Any]) -> str:
    """The table of results with the best of each column marked, bars, and what pretraining did not beat."""
    results = {name: row for name, row in evaluation.get("results", {}).items() if row}
    if not results:
        return ""
    results = {name: results[name] for name in ordered(results)}
    intervals = evaluation.get("intervals") or {}
    names = dict.fromkeys(column for row in results.values() for column in row)
    columns = {column: values for column in names if (values := _column(results, column))}
    notes = "".join(f"<li>{escape(str(note))}</li>" for note in evaluation.get("notes") or [])
    protocol = facts(evaluation.get("protocol") or {})
    bars = []
    for column, values in columns.items():
        rows = [(encoder(name), value, _interval(intervals, name, column)) for name, value in values.items()]
        bars.append(charts.bars(spoken(column), rows, full=100.0 if _percent(column, values) else 0.0))
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
            text = f"{spoken(column)}: pretraining does not beat {_rival(rival)} {figures}."
            items.append(f'<li class="warning">{escape(text)}</li>')
        elif near[0] and near[1] and near[0][0] <= near[1][1] and near[1][0] <= near[0][1]:
            text = f"{spoken(column)}: ahead of {_rival(rival)} {figures}, but the intervals overlap."
            close.append(f"<li>{escape(text)}</li>")
    if comparisons and not items:
        rivals = " and ".join(dict.fromkeys(_rival(rival) for _, rival, _ in comparisons))
        items.append(f"<li>Pretraining beats {rivals} in every column.</li>")
    return "".join(items + close)


def _table(results: Mapping[str, Any], columns: Mapping[str, Any], intervals: Mapping[str, Any]) -> str:
    head = "".join(f'<th scope="col">{escape(spoken(column))}</th>' for column in columns)
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
        body.append(f'<tr><th scope="row">{escape(encoder(name))}</th>{"".join(cells)}</tr>')
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


def ordered(rows: Iterable[str]) -> list[str]:
    """Encoders in the usual order, and behind them those that are not of every run."""
    named = list(rows)
    return [*filter(named.__contains__, ENCODERS), *(name for name in named if name not in ENCODERS)]


def _rivals(rows: Iterable[str]) -> list[str]:
    """What pretraining has to beat to be worth its while."""
    return [name for name in ordered(rows) if name != "pretrained" and name not in BLIND]


def _rival(name: str) -> str:
    return RIVALS.get(name, name)


def key_result(evaluation: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
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


def encoder(name: str) -> str:
    return ENCODERS.get(name, name.replace("_", " ").capitalize())


def spoken(column: str) -> str:
    """A column's name for reading: `knn_group` is "kNN, group"."""
    probe, _, target = column.partition("_")
    return ", ".join(filter(None, (WORDS.get(probe, probe.capitalize()), target.replace("_", " "))))


def _percent(column: str, values: Mapping[str, float]) -> bool:
    """Probes report accuracy in percent; nothing above 1 is another score, such as R²."""
    return column.partition("_")[0] in PROBES and 1 < max(values.values()) <= 100


def valued(column: str, value: float) -> str:
    return number(value) + ("\u00a0%" if _percent(column, {"": value}) else "")
