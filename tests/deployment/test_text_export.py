"""A text run as a folder for transformers and sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from polysense.deployment.run import Run
from polysense.deployment.text_export import export_text
from polysense.encoders.base import Encoder
from polysense.encoders.text_transformer import pool
from polysense.errors import PolysenseError
from polysense.modalities.text.modality import Text

TEXTS = ["a red apple on a green tree", "a bluebird", "the tree is green and the apple is red", "wind"]


def a_run(length: int = 16, **options: Any) -> Run:
    text = Text(length=length)
    text = text.fit(text.read(TEXTS * 3))
    torch.manual_seed(0)
    encoder = text.encoder("text_nano", **options)
    for parameter in encoder.parameters():  # biases and norms that are not plain
        nn.init.normal_(parameter, std=0.2)
    return Run(encoder, text, Path("nowhere"), {}).eval()


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_transformers_embeds_the_same(tmp_path: Path, pooling: str) -> None:
    import transformers

    run = a_run(pooling=pooling)
    folder = export_text(run, tmp_path / "out")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    words = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        tokens = model(**words).last_hidden_state
    theirs = pool(tokens, words["attention_mask"].bool(), pooling)
    ours = run.embed(TEXTS)
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)
    assert tokenizer.model_max_length == 16

    modules = json.loads((folder / "modules.json").read_text())
    assert [(folder / module["path"]).is_dir() for module in modules] == [True, True]
    how = json.loads((folder / "1_Pooling" / "config.json").read_text())
    names = {"mean": "mean_tokens", "first": "cls_token", "last": "lasttoken"}
    assert [name for name, chosen in how.items() if chosen is True] == [f"pooling_mode_{names[pooling]}"]
    assert how["word_embedding_dimension"] == 128


def test_a_model_of_transformers_stays_what_it_is(tmp_path: Path) -> None:
    import transformers

    text = Text(length=16)
    text = text.fit(text.read(TEXTS * 3))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=text.tokenizer.size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=16,
    )  # fmt: skip
    run = Run(text.encoder(transformers.BertModel(config)), text, Path("nowhere"), {}).eval()
    folder = export_text(run, tmp_path / "out")
    assert type(transformers.AutoModel.from_pretrained(folder)) is transformers.BertModel


def test_a_causal_one_has_no_twin(tmp_path: Path) -> None:
    with pytest.raises(PolysenseError, match=r"no model of the shape .* encoder='text_small' without causal"):
        export_text(a_run(causal=True, pooling="last"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_encoders_are_refused(tmp_path: Path) -> None:
    run = a_run()
    other = Run(Encoder(), run.modality, Path("nowhere"), {})
    with pytest.raises(PolysenseError, match="no text encoder that transformers has; train one with"):
        export_text(other, tmp_path / "out")


def test_nothing_is_left_where_it_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run()
    monkeypatch.setattr(run, "embed", lambda texts: torch.zeros(len(texts), 128) + 1)
    with pytest.raises(PolysenseError, match="embeds texts otherwise than this run"):
        export_text(run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
