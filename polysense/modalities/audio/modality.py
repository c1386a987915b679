"""Sound as a modality: read, collate, random views, the plain view, and spectrograms for the eye."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from polysense.encoders.logmel import LogMel
from polysense.errors import PolysenseError
from polysense.modalities.audio.decode import UnreadableError, decode, encoded, header, resample
from polysense.modalities.audio.store import HIGHEST_RATE, Sounds, padded
from polysense.modalities.audio.views import RandomView, Spectrograms, ViewSettings
from polysense.modalities.audio.waves import crop
from polysense.modalities.base import Batch, View, ViewPlan
from polysense.modalities.plans import plan_from_settings, plan_settings, view_settings

if TYPE_CHECKING:
    from polysense.encoders.base import Encoder

STRENGTHS = {
    "strong": ViewSettings(polarity=0.5, gain=6.0, noise=0.5, mixup=0.2, frequency_mask=0.3, time_mask=0.2),
    "weak": ViewSettings(),
}
"""What views are matched under, and what hidden parts are predicted from; neither touches pitch or tempo."""

STATISTICS_CLIPS = 1000
"""Mean and standard deviation are those of up to so many clips."""


LISTENED = 5.0
"""So many seconds of a clip are kept to be heard in a report."""


class Audio:
    """Sounds: a :class:`~polysense.modalities.base.Modality`.

    Views are log-mels, ``{"mel": [B, 1, mels, T], "lengths": [B]}``, normalised by one mean and standard
    deviation, 0 behind a clip's end; or, with the view setting ``form="waves"``, ``{"waves": [B, S],
    "lengths": [B]}``. ``lengths`` counts valid frames or samples. ``plan.options["audio"]`` sets fields of
    :class:`.ViewSettings` for all views; ``"views"`` may be a list of such settings, which the global views
    take in turn, and ``"local"`` settings for the local ones, which are half as long.

    Args:
        rate: samples a second; None until :meth:`fit` takes that of the data.
        mels, window, hop, low, high, power, epsilon: of :class:`.LogMel`.
        plan: which views to make.
        mean, std: of the log-mels. See :meth:`fit`.

    Raises:
        PolysenseError: for an unknown setting or strength, or a value out of range.

    >>> audio = Audio(rate=8000, plan=ViewPlan(globals_=1, locals_=1))
    >>> batch = audio.batch([np.sin(np.arange(12_000) / 3)])
    >>> [(view.kind, tuple(view.data["mel"].shape)) for view in audio.views(batch)]
    [('global', (1, 1, 64, 96)), ('local', (1, 1, 64, 48))]
    """

    name = "audio"
    raw_name = "mel statistics"
    default_encoder = "audio_cnn"

    def __init__(
        self,
        rate: int | None = None,
        mels: int = 64,
        window: float = 0.025,
        hop: float = 0.01,
        low: float = 60.0,
        high: float | None = None,
        power: float = 2.0,
        epsilon: float = 1e-5,
        plan: ViewPlan = ViewPlan(),  # noqa: B008 - frozen
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        if std <= 0:
            raise PolysenseError(f"std is {std}; it must be above 0")
        self.rate, self.plan, self.mean, self.std = rate, plan, mean, std
        self._spectrogram = {
            "mels": mels,
            "window": window,
            "hop": hop,
            "low": low,
            "high": high,
            "power": power,
            "epsilon": epsilon,
        }
        self.logmel = LogMel(rate or HIGHEST_RATE, **self._spectrogram)  # type: ignore[arg-type]
        self._draw = Spectrograms(self.logmel, mean, std)
        globals_, local = view_settings(plan, self.name, STRENGTHS, _local_settings)
        self._globals = [RandomView(each, self._draw) for each in globals_]
        self._local = RandomView(local, self._draw)

    @property
    def form(self) -> str:
        """Whether views are log-mels ("mel") or "waves"."""
        return self._globals[0].settings.form

    def read(self, source: Any, **reading: Any) -> Sounds:
        """The user's sounds, decoded once; for the options see :func:`.sources.read_sounds`."""
        from polysense.modalities.audio.sources import read_sounds

        return read_sounds(source, rate=self.rate, **reading)

    def fit(self, dataset: Sounds, plan: ViewPlan | None = None) -> Audio:
        """The same modality at the data's rate, with their log-mels' mean and deviation, for ``plan``."""
        given = {**self.settings(), "rate": dataset.rate, "plan": self.plan if plan is None else plan}
        mean, std = _statistics(Audio(**{**given, "mean": 0.0, "std": 1.0}), dataset)
        return Audio(**{**given, "mean": mean, "std": std})

    def batch(self, items: Sequence[Any]) -> Batch:
        """A batch of a few sounds: paths, bytes, samples with their rate, or samples at this modality's.

        Raises:
            PolysenseError: if one cannot be read.
        """
        clips = []
        for place, item in enumerate(items):
            if isinstance(item, np.ndarray | Tensor):
                item = (item, self.logmel.rate)
            try:
                clips.append(resample(decode(item), header(item).rate, self.logmel.rate))
            except UnreadableError as error:
                raise PolysenseError(f"cannot read sound {place} of the list: {error}; mend it") from error
        waves, lengths = padded(clips)
        return Batch({"waves": waves, "lengths": lengths}, torch.arange(len(clips)))

    def collate(self, samples: Mapping[str, Tensor]) -> Batch:
        """``waves`` ``[B, S]``, ``lengths`` ``[B]`` and ``index`` ``[B]`` as a batch."""
        return Batch({"waves": samples["waves"], "lengths": samples["lengths"]}, samples["index"])

    def lengths(self, dataset: Any, views: bool = False) -> NDArray[np.int64] | None:
        """``[N]``: the samples of each clip; None for random views, which are all as long as each other."""
        return dataset.lengths if isinstance(dataset, Sounds) and not views else None

    def views(self, batch: Batch) -> list[View]:
        """The plan's random views, global ones first."""
        waves, lengths = _content(batch)
        makers = [self._globals[i % len(self._globals)] for i in range(self.plan.globals_)]
        shown, ends = waves, lengths
        if makers and makers[0].settings.together:
            shown = crop(waves, lengths, makers[0].samples)
            ends = torch.full_like(lengths, shown.shape[1])
        views = [View(maker(shown, ends), self.name) for maker in makers]
        return views + [
            View(self._local(waves, lengths), self.name, "local") for _ in range(self.plan.locals_)
        ]

    def plain(self, batch: Batch) -> View:
        """The whole clips, unchanged."""
        waves, lengths = _content(batch)
        if self.form == "waves":
            return View({"waves": waves, "lengths": lengths}, self.name)
        return View(self._draw(waves, lengths), self.name)

    def raw(self, batch: Batch) -> Tensor:
        """``[B, 2 * mels]``: each band's mean and standard deviation over a clip's frames."""
        drawn = self._draw(*_content(batch))
        mel, count = drawn["mel"].squeeze(1), drawn["lengths"][:, None]
        mean = mel.sum(2) / count
        valid = torch.arange(mel.shape[2], device=mel.device) < count
        spread = (mel - mean[..., None]).square().mul(valid[:, None]).sum(2) / count
        return torch.cat([mean, spread.sqrt()], 1)

    def show(self, view: View) -> NDArray[Any]:
        """Spectrograms as bytes ``[B, mels, mels, 3]``, low sounds at the bottom; a clip fills the width."""
        data = view.data
        assert isinstance(data, dict)
        drawn = data if "mel" in data else self._draw(data["waves"], data["lengths"])
        side = drawn["mel"].shape[2]
        pictures = [
            functional.interpolate(mel[None, ..., : int(length)], (side, side), mode="bilinear")
            for mel, length in zip(drawn["mel"], drawn["lengths"], strict=True)
        ]
        grey = (torch.cat(pictures).flip(2) / 4 + 0.5).clamp(0, 1)  # two deviations either way
        shown: NDArray[Any] = (
            (grey * 255).round().byte().permute(0, 2, 3, 1).expand(-1, -1, -1, 3).cpu().numpy()
        )
        return shown

    def listen(self, batch: Batch) -> list[bytes]:
        """Each clip's first seconds as an Ogg Vorbis file, for the ear: what :meth:`show` is for the eye."""
        waves, lengths = _content(batch)
        ends = lengths.clamp_max(round(LISTENED * self.logmel.rate)).tolist()
        return [
            encoded(wave[:end].cpu().numpy(), self.logmel.rate) for wave, end in zip(waves, ends, strict=True)
        ]

    def encoder(self, spec: str | nn.Module, **options: Any) -> Encoder:
        """The tower for these sounds, see :func:`polysense.encoders.audio.build`."""
        from polysense.encoders.audio import build

        return build(spec, form=self.form, mels=self.logmel.mels, rate=self.logmel.rate, **options)

    def settings(self) -> dict[str, Any]:
        """Plain values from which :meth:`from_settings` rebuilds this modality."""
        plan = plan_settings(self.plan, self.name)
        return {"plan": plan, "rate": self.rate, **self._spectrogram, "mean": self.mean, "std": self.std}

    def attachments(self) -> dict[str, str]:
        """None: the settings hold everything."""
        return {}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], attachments: Mapping[str, str]) -> Audio:
        """The modality that gave these :meth:`settings`.

        >>> Audio.from_settings(Audio(mels=80).settings(), {}).logmel.mels
        80
        """
        return cls(**{**settings, "plan": plan_from_settings(settings["plan"], cls.name)})


def _local_settings(settings: ViewSettings) -> ViewSettings:
    """A small part of the clip."""
    return replace(settings, crop=settings.crop / 2)


def _content(batch: Batch) -> tuple[Tensor, Tensor]:
    assert isinstance(batch.data, dict)
    return batch.data["waves"], batch.data["lengths"]


def _statistics(audio: Audio, dataset: Sounds) -> tuple[float, float]:
    """Mean and standard deviation of all values in the log-mels of evenly spaced clips."""
    chosen = np.linspace(0, len(dataset) - 1, min(len(dataset), STATISTICS_CLIPS)).round().astype(int)
    total, squares, count = 0.0, 0.0, 0
    for start in range(0, len(chosen), 32):
        batch = audio.collate(dataset.__getitems__(chosen[start : start + 32].tolist()))
        drawn = audio._draw(*_content(batch))
        values = drawn["mel"].double()  # 0 behind the clips' ends, which adds nothing to the sums
        total, squares = total + float(values.sum()), squares + float(values.square().sum())
        count += int(drawn["lengths"].sum()) * values.shape[2]
    mean = total / count
    return mean, max((squares / count - mean**2) ** 0.5, 1e-3)
