"""What is predicted where tokens are hidden: HOG, and the words of a vocabulary."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from polysense.encoders.heads import OnTokens
from polysense.encoders.vision import build
from polysense.errors import PolysenseError
from polysense.methods.engine import Method
from polysense.methods.table import find
from polysense.methods.targets import DiscreteVAE, KMeansTokens, hog, hog_targets
from polysense.modalities.base import View
from polysense.objectives.distributed import rank
from tests.processes import run_in_processes
from tests.toys import CellEncoder


def naive_hog(picture: np.ndarray, cell: int, bins: int) -> np.ndarray:
    """One channel ``[H, W]``, pixel by pixel."""
    height, width = picture.shape
    padded = np.pad(picture, 1, mode="reflect")
    histograms = np.zeros((bins, height // cell, width // cell))
    for row in range(height):
        for column in range(width):
            near = padded[row : row + 3, column : column + 3]
            across = (near[:, 0] - near[:, 2]) @ [1, 2, 1]
            down = (near[0] - near[2]) @ [1, 2, 1]
            half_turns = math.atan2(across, down) / math.pi
            number = math.floor(half_turns * bins) % bins
            histograms[number, row // cell, column // cell] += math.sqrt(across**2 + down**2)
    scaled: np.ndarray = histograms / np.maximum(np.linalg.norm(histograms, axis=0), 1e-12)
    return scaled


@pytest.mark.parametrize(("cell", "bins"), [(4, 9), (8, 9), (2, 6)])
def test_hog_is_that_of_a_loop_over_pixels(cell: int, bins: int) -> None:
    pictures = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 8, 16)))
    made = hog(pictures, cell, bins)
    assert made.shape == (2, 3 * bins, 8 // cell, 16 // cell)
    for picture, histograms in zip(pictures.numpy(), made.unflatten(1, (3, bins)).numpy(), strict=True):
        for channel, histogram in zip(picture, histograms, strict=True):
            np.testing.assert_allclose(histogram, naive_hog(channel, cell, bins), atol=1e-9)


def test_hog_ignores_brightness_and_contrast_and_bears_a_blank_picture() -> None:
    pictures = torch.rand(2, 3, 16, 16).double()
    torch.testing.assert_close(hog(3 * pictures + 2), hog(pictures))
    assert hog(torch.ones(1, 3, 16, 16)).abs().max() == 0


@pytest.mark.parametrize(("patch", "cell"), [(16, 8), (8, 8), (4, 4)])
def test_each_patch_gets_the_features_of_its_own_cells(patch: int, cell: int) -> None:
    encoder = build("vit_nano", size=64, patch=patch, depth=1)
    tokenise, values = hog_targets(encoder)
    assert values == 3 * 9 * (patch // cell) ** 2  # 108 for patches of 16, as in the paper
    pictures = torch.randn(2, 3, 64, 64)
    targets, features = tokenise(pictures), hog(pictures, cell)
    assert targets.shape == (2, (64 // patch) ** 2, values)
    side, cells = 64 // patch, patch // cell
    for token in (0, 1, side, side**2 - 1):
        top, left = (cells * place for place in divmod(token, side))
        own = features[:, :, top : top + cells, left : left + cells]
        torch.testing.assert_close(targets[:, token].sort().values, own.flatten(1).sort().values)


def test_hog_where_it_cannot_be() -> None:
    with pytest.raises(PolysenseError, match="10×12 pixels cannot be cut into cells of 8"):
        hog(torch.zeros(1, 3, 10, 12))
    with pytest.raises(PolysenseError, match="CellEncoder does not cut pictures into patches"):
        hog_targets(CellEncoder(8))


def numbers(values: Tensor) -> Tensor:
    return values[..., None]


def two_piles(batch: int = 64) -> Tensor:
    torch.manual_seed(0)
    return torch.where(torch.rand(batch, 8) < 0.5, 5.0, -5.0) + 0.1 * torch.randn(batch, 8)


def test_words_are_the_means_of_all_tokens_they_were_nearest_to() -> None:
    tokens, seen = KMeansTokens(numbers, 1, 2), []
    tokens.words.copy_(torch.tensor([[-4.0], [4.0]]))
    tokens.counts.fill_(1e-9)  # not unused, and as good as no weight
    for step in range(3):
        data = two_piles() + step
        seen.append(data.flatten())
        assert torch.equal(tokens(data), (data > 0).long())
    everything = torch.cat(seen)
    means = torch.stack([everything[everything < 0].mean(), everything[everything > 0].mean()])
    torch.testing.assert_close(tokens.words.flatten(), means)
    assert tokens.counts.sum() == pytest.approx(3 * 64 * 8)


def test_a_vocabulary_is_found_from_nothing_and_rests_then() -> None:
    tokens, data = KMeansTokens(numbers, 1, 4, frozen_after=0.1), two_piles()
    for _ in range(3):
        tokens(data)
    assert (data - tokens.words.flatten()[tokens(data)]).abs().max() < 1
    before = tokens.words.clone()
    tokens.at(0.1)
    tokens(data + 3)
    tokens.at(0.0)
    tokens.eval()(data + 3)
    assert torch.equal(tokens.words, before)
    tokens.train()(data + 3)
    assert not torch.equal(tokens.words, before)


def test_unused_words_start_anew() -> None:
    tokens = KMeansTokens(numbers, 1, 3)
    tokens.words.copy_(torch.tensor([[100.0], [200.0], [0.0]]))
    tokens.counts.copy_(torch.tensor([0.0, 0.0, 1e9]))
    tokens(two_piles())
    assert tokens.words[:2].abs().max() < 6
    assert tokens.words[2].abs() < 0.1


def test_words_are_found_in_full_precision() -> None:
    tokens = KMeansTokens(numbers, 1, 2).eval()
    tokens.words.copy_(torch.tensor([[1000.0], [1001.0]]))  # bfloat16 cannot tell them apart
    with torch.autocast("cpu", torch.bfloat16):
        assert tokens(torch.tensor([[1000.0, 1001.0]])).tolist() == [[0, 1]]


def learn(data: Tensor, counts: float) -> tuple[Tensor, Tensor]:
    torch.manual_seed(rank())
    tokens = KMeansTokens(numbers, 1, 4)
    tokens.words.copy_(torch.tensor([[-5.1], [-4.9], [4.9], [5.1]]))
    tokens.counts.fill_(counts)
    tokens(data)
    return tokens.words, tokens.counts


def learn_a_share() -> list[tuple[Tensor, Tensor]]:
    share = two_piles()[32 * rank() : 32 * rank() + 32]
    return [learn(share, 1.0), learn(share, 0.0)]


def test_two_processes_learn_one_vocabulary() -> None:
    (first, first_anew), (second, second_anew) = run_in_processes(learn_a_share)
    whole = learn(two_piles(), 1.0)
    for one, other, expected in zip(first, second, whole, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, expected)
    assert all(torch.equal(one, other) for one, other in zip(first_anew, second_anew, strict=True))


def test_a_discrete_autoencoder_learns_to_tell_tokens_from_their_words() -> None:
    torch.manual_seed(0)
    tokens = DiscreteVAE(numbers, 1, 8, hidden=16)
    branch, data = tokens.branch(), two_piles(16)
    optimiser = torch.optim.Adam(tokens.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        tokens.at(step / 60)
        loss = branch.objective(*tokens.autoencode(data))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    high, low = tokens(data)[data > 0].unique().tolist(), tokens(data)[data < 0].unique().tolist()
    assert not set(high) & set(low)
    assert tokens.temperature == pytest.approx(1 / 16, abs=0.01)


def beit(tokenizer: str | nn.Module) -> Method:
    torch.manual_seed(0)
    encoder = build("vit_nano", size=32, depth=1, patch=8)
    return find("beit").build(encoder, "image", tokenizer=tokenizer, prototypes=16)


def vocabulary(method: Method) -> nn.Module:
    (tokenizer,) = (one for one in method.modules() if isinstance(one, KMeansTokens | DiscreteVAE))
    return tokenizer


@pytest.mark.parametrize("tokenizer", ["kmeans", "dvae"])
def test_a_learned_tokenizer_is_saved_with_the_method(tokenizer: str) -> None:
    method, again, file = beit(tokenizer), beit(tokenizer), io.BytesIO()
    views = [View(torch.randn(4, 3, 32, 32), "image")]
    optimiser = torch.optim.SGD(method.parameters(), lr=0.1)
    method(views).loss.backward()
    optimiser.step()
    torch.save(method.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file))
    words, same = (vocabulary(one).eval()(views[0].data) for one in (method, again))
    assert torch.equal(words, same)
    assert len(words.unique()) > 1


def test_a_given_tokenizer_says_what_is_to_be_predicted() -> None:
    class Brightness(nn.Module):
        def forward(self, data: Tensor) -> Tensor:
            return (nn.functional.avg_pool2d(data.mean(1), 8).flatten(1) > 0).long()

    method = beit(Brightness())
    views = [View(torch.randn(4, 3, 32, 32), "image")]
    torch.manual_seed(1)
    outcome = method(views)
    encoded, mask = outcome.seen.student[0], outcome.seen.views[0].mask
    assert mask is not None
    (head,) = (one for one in method.modules() if isinstance(one, OnTokens))
    log_p = head(encoded).log_softmax(-1)
    words, terms = Brightness()(views[0].data), []
    for b, t in mask.nonzero().tolist():
        terms.append(-log_p[b, t, words[b, t]])
    torch.testing.assert_close(outcome.loss, torch.stack(terms).mean())


def test_an_unknown_tokenizer_is_named() -> None:
    with pytest.raises(PolysenseError, match="unknown tokenizer 'kmean'; did you mean 'kmeans'"):
        beit("kmean")
