"""Small sounds on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray


def tone(hertz: float = 440.0, seconds: float = 0.5, rate: int = 8000) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of tones, two files each."""
    for name, hertz in {"high/a.wav": 900, "high/b.flac": 950, "low/c.ogg": 200, "low/d.wav": 220}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, tone(hertz), 8000)
    return tmp_path
