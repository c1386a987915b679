"""The files of data that lie in the package."""

from __future__ import annotations

from importlib.resources import as_file, files

import pandas as pd


def shipped(name: str) -> pd.DataFrame:
    """The table of one of them.

    >>> len(shipped("diamonds"))
    53940
    """
    with as_file(files("polysense") / "data" / f"{name}.parquet") as path:
        return pd.read_parquet(path)
