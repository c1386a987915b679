"""The commands that work on tables: the tabular room's functions, and where their files lie."""

from __future__ import annotations

import functools
from typing import Any

from polysense.commands import line
from polysense.tabular.augment.streaming import augment_file
from polysense.tabular.impute import impute_file


@functools.wraps(augment_file)
def augment(*args: Any, **kwargs: Any) -> None:
    line(f"wrote {augment_file(*args, **kwargs)}")


@functools.wraps(impute_file)
def impute(*args: Any, **kwargs: Any) -> None:
    line(f"wrote {impute_file(*args, **kwargs)}")
