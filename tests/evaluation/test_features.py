from __future__ import annotations

import pytest
import torch
from torch import nn

from polysense.errors import PolysenseError
from polysense.evaluation import extract, extract_raw
from polysense.modalities.base import View
from polysense.modalities.text.modality import Text

from .fakes import VectorModality, Vectors


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_features_come_in_the_order_of_the_dataset(batch_size: int) -> None:
    data = torch.randn(23, 3)
    sizes = []

    def encode(view: View) -> torch.Tensor:
        sizes.append(len(view.data))
        return view.data + 1

    features = extract(encode, VectorModality(), Vectors(data), batch_size=batch_size)
    assert torch.equal(features, data + 1)
    assert max(sizes) <= batch_size
    assert torch.equal(extract_raw(VectorModality(), Vectors(data), batch_size=batch_size), 2 * data)


def test_features_are_float32_without_gradients_and_usable_in_training() -> None:
    model = nn.Linear(3, 2).to(torch.bfloat16)
    features = extract(
        lambda view: model(view.data.bfloat16()), VectorModality(), Vectors(torch.randn(5, 3)), progress=True
    )
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert not features.is_inference()


def test_says_what_is_wrong() -> None:
    with pytest.raises(PolysenseError, match=r"\[4, D\], not \[4, 3, 1\]; pool the tokens"):
        extract(lambda view: view.data[..., None], VectorModality(), Vectors(torch.ones(4, 3)))
    with pytest.raises(PolysenseError, match="dataset is empty"):
        extract_raw(VectorModality(), Vectors(torch.ones(0, 3)))


def test_samples_of_like_length_go_together_and_features_stay_in_place() -> None:
    words = ["one", "two words", "a row of words", "a much longer row of words than the others"]
    texts = [words[place * 7 % 4] + f" {place}" for place in range(30)]
    text = Text(length=64)
    dataset = text.read(texts)
    text = text.fit(dataset)
    padded = []

    def ids(view: View) -> torch.Tensor:
        assert isinstance(view.data, dict)
        padded.append(float((~view.data["attended"]).float().mean()))
        return view.data["ids"].sum(1, keepdim=True).float()

    found = extract(ids, text, dataset, batch_size=4)
    one_by_one = torch.cat([ids(text.plain(text.batch([each]))) for each in texts])
    assert text.tokenizer.pad == 0
    assert torch.equal(found, one_by_one)
    assert sum(padded[:8]) / 8 < 0.15
