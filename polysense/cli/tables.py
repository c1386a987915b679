"""The commands that work on tables: functions from a table to a file, which ``--out`` names."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polysense.cli.runs import line
from polysense.errors import PolysenseError
from polysense.tabular.augmentation.streaming import augment_file
from polysense.tasks.comparison import check_page, write_comparison
from polysense.tasks.generation import generate_file
from polysense.tasks.imputation import impute_file

_REPORT = {
    "report": "a page (.html) on the table beside the one made from it; both are read whole for it.",
    "truth": "the table without holes, where it is known: the report shows the error in each column.",
}
"""What all commands can be asked for, and what imputing can."""


def _command(function: Callable[..., Path], *, truth: bool = False) -> Callable[..., None]:
    """The function as a command: all but the data are options, and the file that it wrote is told.

    It writes a report, too, where that is asked for.
    """
    more = list(_REPORT) if truth else ["report"]

    @functools.wraps(function)
    def told(data: Any, out: str, **kwargs: Any) -> None:
        report, known = kwargs.pop("report", None), kwargs.pop("truth", None)
        if report is not None:
            check_page(report)
        elif known is not None:
            raise PolysenseError("the truth is for the report: ask for that with --report page.html")
        line(f"wrote {function(data, out, **kwargs)}")
        if report is not None:
            line(f"wrote {write_comparison(report, data, out, truth=known)}")

    first, *others = inspect.signature(function).parameters.values()
    options = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in others]
    options += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation="str | None")
        for name in more
    ]
    told.__signature__ = inspect.Signature([first, *options])  # type: ignore[attr-defined]
    told.__annotations__ = {**function.__annotations__, **dict.fromkeys(more, "str | None")}
    lines = "".join(f"        {name}: {_REPORT[name]}\n" for name in more)
    told.__doc__ = (function.__doc__ or "").replace("\n    Returns:", f"{lines}\n    Returns:", 1)
    return told


augment = _command(augment_file)
impute = _command(impute_file, truth=True)
generate = _command(generate_file)
