from __future__ import annotations

from pathlib import Path

import pytest

from polysense.report import write_report
from tests.report.run_folder import write_run


@pytest.fixture(scope="session")
def emoji_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a whole run with pictures."""
    run = write_run(tmp_path_factory.mktemp("runs") / "emoji-simclr", samples=120)
    return write_report(run).read_text("utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder that has only just begun: nothing but its configuration."""
    (tmp_path / "config.yaml").write_text("method: simclr\nencoder: resnet18\ndata: some/where/cats.csv\n")
    return tmp_path
