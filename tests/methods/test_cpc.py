"""CPC: what its encoder hears, what is foreseen, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from polysense.encoders.audio import build
from polysense.encoders.wave_gru import WaveGRU
from polysense.errors import PolysenseError
from polysense.methods.table import find
from polysense.modalities.audio.modality import Audio
from polysense.modalities.base import View


def waves(clips: int = 3, samples: int = 4000, seed: int = 0) -> View:
    noise = torch.randn(clips, samples, generator=torch.Generator().manual_seed(seed))
    return View({"waves": noise, "lengths": torch.full((clips,), samples)}, "audio")


def encoder(**options: int) -> WaveGRU:
    torch.manual_seed(0)
    return WaveGRU(rate=8000, **options)


@pytest.mark.parametrize(("rate", "samples"), [(8000, 80), (16000, 160), (32000, 320)])
def test_a_frame_is_ten_milliseconds(rate: int, samples: int) -> None:
    assert WaveGRU(rate).extractor.hop == samples


def test_no_state_knows_what_comes_later() -> None:
    hears, view = encoder().eval(), waves(1)
    later = {**view.data, "waves": view.data["waves"].clone()}  # type: ignore[dict-item, index, union-attr]
    at = 30 * hears.extractor.hop + hears.extractor.field
    later["waves"][:, at:] = later["waves"][:, at:].flip(1)  # statistics of the whole clip stay
    before, after = (hears(data).tokens[:, :31] for data in (view.data, later))
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(hears(view.data).tokens[:, 40:], hears(later).tokens[:, 40:], atol=1e-2)


def test_a_clip_alone_is_as_in_a_longer_batch() -> None:
    hears, view = encoder().eval(), waves(2)
    lengths = torch.tensor([4000, 1500])
    data = {"waves": view.data["waves"] * (torch.arange(4000) < lengths[:, None]), "lengths": lengths}  # type: ignore[index, call-overload]
    alone = {"waves": data["waves"][1:, :1500], "lengths": lengths[1:]}
    torch.testing.assert_close(hears(data).pooled[1], hears(alone).pooled[0])


def test_each_step_has_a_linear_map_of_its_own() -> None:
    hears, view = encoder(channels=16, width=24), waves()
    method = find("cpc").build(hears, "audio", steps=3)
    foresee = method.branches["foresee"].head[0].module  # type: ignore[union-attr, index]
    assert foresee.bias is None
    assert foresee.weight.shape == (3 * 16, 24)
    states = hears(view.data)
    frames = hears.extractor(view.data)  # type: ignore[arg-type]
    maps = foresee.weight.view(3, 16, 24)  # type: ignore[union-attr, operator]
    total = frames.shape[1]
    losses = []
    for k in range(1, 4):
        predicted = states.tokens[:, : total - 3] @ maps[k - 1].T
        for t in range(total - 3):
            within = predicted[:, t] @ frames.mT  # [B, B, T]
            across = predicted[:, t] @ frames[:, t + k].T
            for b in range(3):
                others = across[b][torch.arange(3) != b]
                logits = torch.cat([within[b, b], others])[None]
                losses.append(functional.cross_entropy(logits, torch.tensor([t + k])))
    torch.testing.assert_close(method([view]).loss, torch.stack(losses).mean())


def test_every_parameter_learns_and_the_run_gives_states_alone() -> None:
    recipe = find("cpc")
    audio = Audio(rate=8000, plan=recipe.views)
    tower = audio.encoder(recipe.default_encoders["audio"], channels=16, width=24)
    method = recipe.build(tower, "audio", steps=4)
    views = audio.views(audio.batch([0.1 * torch.randn(12_000) for _ in range(3)]))
    assert [view.data["waves"].shape[1] for view in views] == [10_240]  # type: ignore[index, call-overload]
    method(views).loss.backward()
    assert not [name for name, p in method.named_parameters() if p.grad is None]
    tower.settle()
    assert tower(views[0].data).layers is None


def test_it_finds_tones_that_go_on() -> None:
    """Clips of one tone each: other clips' frames are told apart at once, better than by chance."""
    torch.manual_seed(0)
    t = torch.arange(2400) / 8000
    data = {
        "waves": torch.stack(
            [torch.sin(2 * torch.pi * hertz * t) for hertz in (150.0, 400.0, 900.0, 2000.0)]
        ),
        "lengths": torch.full((4,), 2400),
    }
    method = find("cpc").build(encoder(channels=16, width=24), "audio", steps=2)
    optimiser = torch.optim.AdamW(method.parameters(), lr=5e-3)
    losses = []
    for _ in range(25):
        loss = method([View(data, "audio")]).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1


def test_other_encoders_and_low_rates_are_refused() -> None:
    with pytest.raises(PolysenseError, match="SpectrogramCNN does not hear waves frame by frame; choose"):
        find("cpc").build(build("audio_cnn", form="mel", mels=64, rate=8000), "audio")
    with pytest.raises(PolysenseError, match="'wav_gru' has no rate of 2000; choose one of 4,000 or more"):
        WaveGRU(2000)
    with pytest.raises(PolysenseError, match="WaveGRU cannot hide tokens"):
        encoder()(waves().data, torch.zeros(3, 47, dtype=torch.bool))
