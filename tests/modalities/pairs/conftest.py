from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., list[str]]:
    """Writes small pictures of one colour each, and gives their names in the folder."""

    def write(count: int, suffix: str = ".png") -> list[str]:
        names = [f"picture{i}{suffix}" for i in range(count)]
        for i, name in enumerate(names):
            Image.fromarray(np.full((6, 8, 3), 20 * i, np.uint8)).save(tmp_path / name)
        return names

    return write
