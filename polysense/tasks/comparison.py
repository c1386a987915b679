"""The page that shows a table beside one made from it: augmented, completed or generated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from polysense.errors import PolysenseError
from polysense.report.tables import write_table_report
from polysense.tabular.generate import Generator, is_run
from polysense.tabular.quality import imputation_errors, pair_trends
from polysense.tabular.reading import to_frame

DRAW = "draw"
"""The column that tells several completions of a table apart."""


def write_comparison(report: str | Path, data: Any, made: Any, *, truth: Any = None) -> Path:
    """Write a page on a table beside one made from it: columns, dependence of pairs, nearest real rows.

    Columns that only one of them has are left out.

    Args:
        report: the page; one that is there is replaced.
        data: the table as it was, or the run folder of a generator.
        made: the table made from it.
        truth: where holes were filled, the same rows without holes: the error of each column is shown, and
            the dependence of pairs is compared with theirs.

    Returns:
        The page.

    Raises:
        PolysenseError: for a table that cannot be read, or a truth of other rows.

    >>> import tempfile
    >>> real = pd.DataFrame({"carat": [0.3, 1.2, 0.7], "cut": ["Good", "Fair", "Good"]})
    >>> write_comparison(Path(tempfile.mkdtemp()) / "page.html", real, real[:2]).name
    'page.html'
    """
    check_page(report)
    real = Generator.load(data).frame if is_run(data) else to_frame(data, least=1)
    frame = to_frame(made, least=1)
    names = [name for name in real if name in frame]
    whole = real if truth is None else to_frame(truth, least=1)
    errors = None if truth is None else _errors(whole, real[names], frame)
    trends = pair_trends(whole[names], frame[names])
    return write_table_report(report, real[names], frame[names], trends=trends, errors=errors)


def check_page(report: str | Path) -> None:
    """Refuse a page that cannot be written, before the work is done.

    Raises:
        PolysenseError: for another suffix than .html, or a folder that does not exist.
    """
    path = Path(report)
    if path.suffix.lower() != ".html":
        raise PolysenseError(f"the report is a page, and {path.name!r} ends otherwise; end it in .html")
    if not path.parent.is_dir():
        raise PolysenseError(f"there is no folder {path.parent} for the report: make it, or choose another")


def _errors(truth: pd.DataFrame, holes: pd.DataFrame, filled: pd.DataFrame) -> dict[str, float]:
    """Of each column, over all completions."""
    times = filled[DRAW].nunique() if DRAW in filled and DRAW not in holes else 1
    truth, holes = (pd.concat([each] * times, ignore_index=True) for each in (truth, holes))
    return imputation_errors(truth[list(holes)], holes, filled)
