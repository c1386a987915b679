"""The data that comes with the package: all there, as described, and traceable."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from polysense.errors import PolysenseError
from polysense.modalities.builtin import BUILTINS, builtin


@pytest.mark.parametrize("name", ["emoji", "speech", "glosses", "weather", "diamonds"])
def test_each_is_as_described(name: str) -> None:
    about = BUILTINS[name]
    frame = builtin(f"builtin:{name}")
    assert len(frame) == about.rows
    for column in (about.label, about.identity):
        assert column is None or frame[column].notna().all()
    assert about.label is None or 1 < frame[about.label].nunique() < 100


def test_every_shipped_file_has_an_entry_and_every_entry_a_file_and_a_licence() -> None:
    data = files("polysense") / "data"
    shipped = {Path(file.name).stem for file in data.iterdir() if file.name.endswith(".parquet")}
    assert shipped == {name for name, about in BUILTINS.items() if not about.drawn}
    readme = (data / "README.md").read_text(encoding="utf-8")
    for name, about in BUILTINS.items():
        assert f"`{name}`" in readme
        assert about.licence.split()[0].rstrip(",") in readme


def test_the_protocol_for_emoji_names_real_columns_and_splits_the_vendors() -> None:
    frame = builtin("emoji")
    protocol = BUILTINS["emoji"].evaluation
    assert protocol is not None
    assert [frame[label].nunique() for label in protocol["labels"]] == [10, 99]
    (bank,) = protocol["bank"].items()
    (queries,) = protocol["queries"].items()
    assert (frame[bank[0]] == bank[1]).sum() == (frame[queries[0]] == queries[1]).sum() == 1911
    assert frame.groupby(protocol["identity"]).size().eq(2).all()
    assert (protocol["k"], protocol["temperature"]) == (10, 0.1)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(PolysenseError, match=r"unknown built-in data set 'emojis'; did you mean 'emoji'\?"):
        builtin("builtin:emojis")
