"""One sound, in whatever form it comes, as samples in [-1, 1], mixed down to one channel."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from polysense.errors import PolysenseError, require

Wave = NDArray[np.float32]

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf")
"""Files whose names end like these, in any case, are taken for sounds."""

SILENT, FULL_SCALE, CLIPPED, READABLE = 1e-4, 0.999, 0.1, 0.9
"""Below that peak a clip is silent; with that share of samples at full scale it is clipped; and so much of
what a header promises must be there."""


class UnreadableError(Exception):
    """One sound that cannot be read; the message is the reason, in a few words."""


class Clip(NamedTuple):
    """Samples in memory, ``[S]``, ``[S, C]`` or ``[C, S]``, and how many make a second."""

    samples: Any
    rate: int


class Header(NamedTuple):
    """What is known of a sound before it is decoded: samples a second, and how many of them in a channel."""

    rate: int
    samples: int


def named_as_sound(path: str | Path) -> bool:
    """Whether a file's name ends like a sound's.

    >>> named_as_sound("a.WAV"), named_as_sound("a.txt")
    (True, False)
    """
    return str(path).lower().endswith(SUFFIXES)


def header(item: Any) -> Header:
    """Look at a sound without decoding it.

    Raises:
        UnreadableError: with the reason.
    """
    item = unwrapped(item)
    if isinstance(item, Clip):
        found = Header(item.rate, len(_mono(item.samples)))
    else:
        with _open(item) as file:
            found = Header(int(file.samplerate), int(file.frames))
    if found.samples < 1 or found.rate < 1:
        raise UnreadableError("holds no samples")
    return found


def decode(item: Any, start: int = 0, count: int | None = None) -> Wave:
    """``count`` samples from ``start`` on, ``[count]``, at the sound's own rate.

    Only these are read of a file.

    Raises:
        UnreadableError: with the reason: it is no sound, empty, silent, clipped, not finite, or shorter than
            its header says.
    """
    item = unwrapped(item)
    if isinstance(item, Clip):
        wave = _mono(item.samples)[start : None if count is None else start + count]
    else:
        with _open(item) as file:
            count = file.frames - start if count is None else count
            wave = _read(file, start, count)
    return _checked(wave)


def resample(wave: Wave, rate: int, wanted: int) -> Wave:
    """The same sound at another rate: polyphase filtering, nothing above either's Nyquist frequency.

    >>> resample(np.ones(441, np.float32), 44100, 16000).shape
    (160,)
    """
    if rate == wanted:
        return wave
    from scipy.signal import resample_poly

    shared = math.gcd(rate, wanted)
    changed: Wave = resample_poly(wave, wanted // shared, rate // shared).astype(np.float32)
    return changed


def encoded(wave: Wave, rate: int) -> bytes:
    """Samples ``[S]`` in [-1, 1] as an Ogg Vorbis file, a tenth of their size and heard in any browser.

    >>> encoded(np.zeros(800, np.float32), 8000)[:4]
    b'OggS'
    """
    file = io.BytesIO()
    soundfile_library().write(file, wave, rate, format="OGG", subtype="VORBIS")
    return file.getvalue()


def unwrapped(item: Any) -> Any:
    """A path, bytes or a :class:`Clip`, out of what libraries put around them.

    Raises:
        UnreadableError: for what is none of these.
    """
    match item:
        case Clip() | Path() | bytes():
            return item
        case str():
            return Path(item)
        case bytearray() | memoryview():
            return bytes(item)
        case {"array": samples, "sampling_rate": rate}:
            return Clip(samples, int(rate))
        case Mapping() if item.get("bytes") is not None:
            return bytes(item["bytes"])
        case Mapping() if item.get("path") is not None:
            return Path(item["path"])
        case (samples, int() | np.integer() as rate) if not isinstance(samples, str):
            return Clip(samples, int(rate))
        case None:
            raise UnreadableError("is missing")
    raise UnreadableError(f"is a {type(item).__name__}; give a path, bytes, or samples with their rate")


def _open(item: Path | bytes) -> Any:
    soundfile = soundfile_library()
    if isinstance(item, Path) and not item.is_file():
        raise UnreadableError("there is no such file")
    try:
        return soundfile.SoundFile(io.BytesIO(item) if isinstance(item, bytes) else str(item))
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise UnreadableError(_reason(error)) from error


def soundfile_library() -> Any:
    """What decodes sounds.

    Raises:
        PolysenseError: where soundfile, or the library that it binds to, is not there.
    """
    try:
        return require("soundfile", "audio", "reading sound files")
    except OSError as error:
        raise PolysenseError(
            "the package 'soundfile' is here but not the library libsndfile that it binds to: install that"
        ) from error


def _read(file: Any, start: int, count: int) -> Wave:
    try:
        file.seek(start)
        channels = file.read(count, dtype="float32", always_2d=True)
    except RuntimeError as error:
        raise UnreadableError(_reason(error)) from error
    if len(channels) < READABLE * count:
        raise UnreadableError(f"its header promises {count:,} samples and {len(channels):,} can be read")
    wave: Wave = channels.mean(axis=1)
    return wave


def _mono(samples: Any) -> Wave:
    """``[S]`` in [-1, 1]; of two axes the shorter is the channels."""
    array = samples.detach().cpu().numpy() if isinstance(samples, torch.Tensor) else np.asarray(samples)
    if array.ndim not in (1, 2) or array.dtype.kind not in "iuf":
        raise UnreadableError(
            f"is {array.dtype} {list(array.shape)}; give numbers [samples] or with channels"
        )
    if array.dtype.kind in "iu":
        half = 2 ** (8 * array.itemsize - 1)
        array = (array.astype(np.float64) - (half if array.dtype.kind == "u" else 0)) / half
    if array.ndim == 2:
        array = array.mean(axis=int(np.argmin(array.shape)))
    return array.astype(np.float32, copy=False)


def _checked(wave: Wave) -> Wave:
    if not np.isfinite(wave).all():
        raise UnreadableError("holds values that are not numbers")
    loud = np.abs(wave)
    if (peak := float(loud.max())) > 2:  # a lossy codec goes a little beyond 1
        raise UnreadableError(f"holds values up to {peak:g}; give integers, or floats from -1 to 1")
    if peak < SILENT:
        raise UnreadableError("is silent")
    if (share := float((loud >= FULL_SCALE).mean())) > CLIPPED:
        raise UnreadableError(f"is clipped: {100 * share:.0f} % of its samples are at full scale")
    return wave


def _reason(error: Exception) -> str:
    told = getattr(error, "error_string", None) or str(error) or type(error).__name__
    return str(told).splitlines()[0].rstrip(".")
