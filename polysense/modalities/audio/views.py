"""One random view of a batch of sounds: the settings, what each destroys, and the pass that makes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from polysense.encoders.logmel import LogMel
from polysense.errors import unknown
from polysense.modalities.audio import mels, waves
from polysense.modalities.plans import check_setting, out_of_range, setting_range

FORMS = ("mel", "waves")

DESTROYS: Mapping[str, str] = MappingProxyType(
    {
        "crop": "what happens outside of it: rare events, the order of long scenes",
        "gain": "loudness",
        "polarity": "nothing that is heard",
        "noise": "faint sounds, noise as a class",
        "background": "which sounds belong to the scene",
        "reverb": "room and distance, exact timing",
        "band": "timbre, the channel that was recorded through",
        "speed": "tempo, pitch, the speaker",
        "pitch": "pitch, key, emotion, the speaker",
        "mixup": "which sounds belong to the scene, loudness",
        "resize": "pitch, tempo, the speaker, the instrument",
        "frequency_mask": "cues in a narrow band",
        "time_mask": "short events, onsets",
    }
)
"""What a representation can no longer tell when it is trained to overlook a change."""


@dataclass(frozen=True)
class ViewSettings:
    """What one random view does to a clip, in this order; each probability is per clip.

    ``crop``: seconds of a random stretch; a shorter clip is repeated. ``together``: all global views show the
    same stretch. ``speed``, ``pitch``, ``band``,
    ``reverb``, ``polarity``, ``background``, ``noise``: probabilities of another speed (within
    ``speed_range``), of another pitch (up to ``semitones`` either way), of a high- or low-cut filter, of a
    room (that fades within ``reverb_seconds``), of the opposite sign, of another clip of the batch behind,
    and of white noise behind, both ``snr`` dB softer. ``gain``: up to so many dB either way.

    On the log-mel: ``mixup``: the largest share of another clip. ``resize``: the probability of a random
    resize crop within ``resize_range``. ``frequency_mask``, ``time_mask``: the widest hidden stripe as a
    share. ``form``: whether the view is a log-mel ("mel") or ends before ("waves").

    What each destroys is told in :data:`DESTROYS`.

    Raises:
        PolysenseError: naming the setting that is out of its range.

    >>> ViewSettings(noise=0.5).snr
    (5.0, 20.0)
    """

    crop: float = 0.95
    together: bool = False
    speed: float = 0.0
    speed_range: tuple[float, float] = (0.9, 1.1)
    pitch: float = 0.0
    semitones: float = 4.0
    band: float = 0.0
    reverb: float = 0.0
    reverb_seconds: tuple[float, float] = (0.1, 0.4)
    polarity: float = 0.0
    gain: float = 0.0
    background: float = 0.0
    noise: float = 0.0
    snr: tuple[float, float] = (5.0, 20.0)
    mixup: float = 0.0
    resize: float = 0.0
    resize_range: tuple[float, float] = (0.6, 1.5)
    frequency_mask: float = 0.0
    time_mask: float = 0.0
    form: str = "mel"

    def __post_init__(self) -> None:
        for name in ("speed_range", "reverb_seconds", "resize_range", "snr"):
            least = -math.inf if name == "snr" else 1e-3
            ends = setting_range(
                name, getattr(self, name), least.__le__, "two numbers in range, the smaller first"
            )
            object.__setattr__(self, name, ends)
        for name in ("speed", "pitch", "band", "reverb", "polarity", "background", "noise", "resize"):
            check_setting(name, getattr(self, name), 1, "a probability from 0 to 1")
        for name in ("mixup", "frequency_mask", "time_mask"):
            check_setting(name, getattr(self, name), 1, "a share from 0 to 1")
        for name, unit in {"gain": "dB", "semitones": "semitones"}.items():
            check_setting(name, getattr(self, name), math.inf, f"{unit} from 0 up")
        check_setting("crop", self.crop, math.inf, "seconds above 0")
        if not self.crop:
            raise out_of_range("crop", self.crop, "seconds above 0")
        if self.form not in FORMS:
            raise unknown("form of sound", str(self.form), FORMS)


class Spectrograms:
    """Draws waves as normalised log-mels: ``{"mel": [B, 1, F, T], "lengths": [B]}``, 0 behind a clip's end.

    >>> draw = Spectrograms(LogMel(8000), mean=-8.0, std=3.0)
    >>> drawn = draw(torch.zeros(2, 800), torch.tensor([800, 400]))
    >>> drawn["mel"].shape, drawn["lengths"].tolist()
    (torch.Size([2, 1, 64, 11]), [11, 6])
    """

    def __init__(self, logmel: LogMel, mean: float, std: float) -> None:
        self.logmel, self.mean, self.std = logmel, mean, std

    def __call__(self, waves: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Draw ``waves`` ``[B, S]`` of which ``lengths`` ``[B]`` samples are sound."""
        drawn = (self.logmel.to(waves.device)(waves) - self.mean) / self.std
        frames = self.logmel.frames(lengths)
        behind = torch.arange(drawn.shape[2], device=waves.device) >= frames[:, None]
        return {"mel": drawn.masked_fill_(behind[:, None], 0)[:, None], "lengths": frames}


class RandomView:
    """Makes one random view of a whole batch, on its device, each clip with its own random numbers.

    All clips of a view are of one length and hold sound to their end.

    >>> view = RandomView(ViewSettings(crop=0.1, noise=1.0), Spectrograms(LogMel(8000), -8.0, 3.0))
    >>> view(torch.zeros(2, 4000), torch.tensor([4000, 300]))["mel"].shape
    torch.Size([2, 1, 64, 11])
    """

    def __init__(self, settings: ViewSettings, draw: Spectrograms) -> None:
        self.settings, self.draw, self.rate = settings, draw, draw.logmel.rate

    @property
    def samples(self) -> int:
        """How many samples of a clip the view shows."""
        return max(1, round(self.settings.crop * self.rate))

    @torch.no_grad()
    def __call__(self, clips: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """A view of waves ``[B, S]``, of which ``lengths`` ``[B]`` samples are sound."""
        heard = self._heard(clips, lengths)
        ends = torch.full_like(lengths, heard.shape[1])
        if self.settings.form == "waves":
            return {"waves": heard, "lengths": ends}
        view = self.draw(heard, ends)
        return {**view, "mel": self._drawn(view["mel"])}

    def _heard(self, clips: Tensor, lengths: Tensor) -> Tensor:
        asked, count = self.settings, len(clips)

        def uniform(low: float, high: float) -> Tensor:
            return waves.uniform(count, low, high, clips)

        speed = None
        if asked.speed:
            speed = torch.where(uniform(0, 1) < asked.speed, uniform(*asked.speed_range), 1.0)
        heard = waves.crop(clips, lengths, self.samples, speed)
        heard = _some(heard, asked.pitch, self._pitched)
        heard = _some(heard, asked.band, lambda some: waves.band_filter(some, self.rate))
        heard = _some(
            heard, asked.reverb, lambda some: waves.reverberate(some, self.rate, asked.reverb_seconds)
        )
        if asked.gain or asked.polarity:
            sign = torch.where(uniform(0, 1) < asked.polarity, -1.0, 1.0)
            heard *= sign * 10 ** (uniform(-asked.gain, asked.gain) / 20)
        if asked.background and count > 1:
            # every clip behind another one, none behind itself
            behind = heard.roll(1 + int(torch.randint(count - 1, ())), 0)
            softer = torch.where(uniform(0, 1) < asked.background, uniform(*asked.snr), torch.inf)
            heard = waves.add(heard, behind, softer)
        return _some(heard, asked.noise, self._noisy)

    def _pitched(self, some: Tensor) -> Tensor:
        most = self.settings.semitones
        return waves.shift_pitch(some, waves.uniform(len(some), -most, most, some))

    def _noisy(self, some: Tensor) -> Tensor:
        softer = waves.uniform(len(some), *self.settings.snr, some)
        return waves.add(some, torch.randn_like(some), softer)

    def _drawn(self, mel: Tensor) -> Tensor:
        asked = self.settings
        if asked.mixup:
            mel = mels.mixup(mel, asked.mixup)
        mel = _some(mel, asked.resize, lambda some: mels.resize_crop(some, asked.resize_range))
        for most, dim in ((asked.frequency_mask, 2), (asked.time_mask, 3)):
            if most:
                mel = mels.hide_stripe(mel, most, dim)
        return mel


def _some(clips: Tensor, probability: float, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change each clip with this probability, in place."""
    if not probability:
        return clips
    rows = (torch.rand(len(clips), device=clips.device) < probability).nonzero().squeeze(1)
    return clips.index_copy_(0, rows, change(clips[rows])) if len(rows) else clips
