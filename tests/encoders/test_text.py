"""Encoders of texts: padding leaves no trace, hidden tokens are replaced, and what does not fit says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.text import build_text, list_text_encoders
from polysense.encoders.text_transformer import TextEncoder, pool
from polysense.encoders.transformer import Block
from polysense.errors import PolysenseError

VOCABULARY, LENGTH = 300, 16


def words(*lengths: int, seed: int = 0) -> dict[str, Tensor]:
    """Random texts of these lengths, padded on the right with 0."""
    generator = torch.Generator().manual_seed(seed)
    attended = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(5, VOCABULARY, attended.shape, generator=generator)
    return {"ids": ids * attended, "attended": attended}


def build(spec: Any = "text_nano", **options: Any) -> Any:
    torch.manual_seed(0)
    return build_text(spec, vocabulary=VOCABULARY, length=LENGTH, **options).eval()


def refusal(spec: Any = "text_nano", **options: Any) -> str:
    with pytest.raises(PolysenseError) as error:
        build_text(spec, **{"vocabulary": VOCABULARY, "length": LENGTH, **options})
    assert "\n" not in str(error.value)
    return str(error.value)


def bert(**changed: Any) -> transformers.BertConfig:
    shape = {
        "vocab_size": VOCABULARY + 20,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    return transformers.BertConfig(
        **{**shape, "intermediate_size": 32, "max_position_embeddings": 32, **changed}
    )


def bert_encoder(pooling: str = "mean", **changed: Any) -> Any:
    torch.manual_seed(0)
    encoder = build_text(transformers.BertModel(bert(**changed)), vocabulary=VOCABULARY, length=LENGTH)
    encoder.pooling = pooling
    return encoder.eval()


ENCODERS = {
    "mean": lambda: build(),
    "first": lambda: build(pooling="first"),
    "last": lambda: build(pooling="last", causal=True),
    "causal": lambda: build(causal=True),
    "bert": bert_encoder,
    "bert last": lambda: bert_encoder("last"),
}


# --- padding


@pytest.mark.parametrize("name", ENCODERS)
def test_a_text_alone_and_in_a_padded_batch_are_encoded_alike(name: str) -> None:
    encoder, batch = ENCODERS[name](), words(3, 16, 1, 9)
    together = encoder(batch)
    for row, length in enumerate((3, 16, 1, 9)):
        alone = encoder({key: value[row : row + 1, :length] for key, value in batch.items()})
        torch.testing.assert_close(together.pooled[row], alone.pooled[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(together.tokens[row, :length], alone.tokens[0], rtol=1e-5, atol=1e-5)


def test_what_stands_in_the_padding_does_not_matter() -> None:
    encoder, batch = build(), words(3, 16)
    other = {**batch, "ids": batch["ids"].masked_fill(~batch["attended"], 7)}
    torch.testing.assert_close(encoder(batch).pooled, encoder(other).pooled)


def test_padding_gets_no_gradient() -> None:
    encoder, batch = build(), words(3, 16)
    encoder(batch).pooled.square().sum().backward()
    gradient = encoder.embeddings.weight.grad
    assert gradient[0].abs().max() == 0  # the padding's id
    assert gradient[batch["ids"][0, 0]].abs().max() > 0


def test_a_missing_text_is_finite_and_has_finite_gradients() -> None:
    encoder, batch = build(), words(3, 5)
    batch["attended"][0] = False
    pooled = encoder(batch).pooled
    pooled.sum().backward()
    assert pooled.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in encoder.parameters() if weight.grad is not None)


def test_pooling_against_a_loop() -> None:
    batch = words(3, 1, 7)
    tokens = torch.randn(3, 7, 4, dtype=torch.float64)
    lengths = batch["attended"].sum(1).tolist()
    mean = torch.stack([row[:n].mean(0) for row, n in zip(tokens, lengths, strict=True)])
    torch.testing.assert_close(pool(tokens, batch["attended"], "mean"), mean)
    last = torch.stack([row[n - 1] for row, n in zip(tokens, lengths, strict=True)])
    torch.testing.assert_close(pool(tokens, batch["attended"], "last"), last)
    torch.testing.assert_close(pool(tokens, batch["attended"], "first"), tokens[:, 0])


def test_a_causal_token_does_not_see_what_follows() -> None:
    batch = words(8, 5)
    changed = {**batch, "ids": batch["ids"].clone()}
    changed["ids"][:, 4] = 6
    for causal in (True, False):
        encoder = build(causal=causal)
        before, after = encoder(batch).tokens[:, :4], encoder(changed).tokens[:, :4]
        assert torch.allclose(before, after, atol=1e-6) is causal


@pytest.mark.parametrize("causal", [False, True])
def test_a_block_that_packs_its_tokens_makes_of_them_what_one_with_a_mask_makes(causal: bool) -> None:
    torch.manual_seed(0)
    block = Block(8, 2, depth=1).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    attended = torch.tensor([[True] * 5, [True, True, False, False, False]])
    packed = block(x, causal, attended=attended)
    (ours,) = torch.autograd.grad(packed.square().sum(), x)
    heads = block.qkv(block.norm1(x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    scores = heads[0] @ heads[1].mT / 2
    seen = attended[:, None, None] & (torch.ones(5, 5).tril().bool() if causal else torch.ones(5, 5).bool())
    mixed = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ heads[2]
    naive = x + block.project(mixed.transpose(1, 2).flatten(2))
    naive = (naive + block.mlp(block.norm2(naive))) * attended[..., None]
    (theirs,) = torch.autograd.grad(naive.square().sum(), x)
    torch.testing.assert_close(packed, naive)
    torch.testing.assert_close(ours, theirs)


# --- the contract


def test_what_an_encoder_gives() -> None:
    encoder = build("text_small")
    encoded = encoder(words(3, 9))
    assert isinstance(encoder, TextEncoder)
    assert encoder.dim == encoder.token_dim == 256
    assert encoded.pooled.shape == (2, 256)
    assert encoded.tokens is not None
    assert encoded.tokens.shape == (2, 9, 256)
    assert encoded.grid == encoder.grid(words(3, 9)) == (9,)


def test_dropout_makes_two_views_of_one_text() -> None:
    encoder, batch = build(dropout=0.1).train(), words(5)
    assert not torch.allclose(encoder(batch).pooled, encoder(batch).pooled)
    encoder.eval()
    assert torch.equal(encoder(batch).pooled, encoder(batch).pooled)


@pytest.mark.parametrize("name", ["mean", "bert"])
def test_what_is_hidden_leaves_no_trace_but_that_it_is_hidden(name: str) -> None:
    encoder, batch = ENCODERS[name](), words(6, 9)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[:, 2] = True
    encoder.learn_mask_token()
    encoded = encoder(batch, mask)
    changed = {**batch, "ids": batch["ids"].clone()}
    changed["ids"][:, 2] = 5
    assert torch.equal(encoded.mask, mask)
    torch.testing.assert_close(encoded.tokens, encoder(changed, mask).tokens)
    assert not torch.allclose(encoded.pooled, encoder(batch).pooled)
    encoded.pooled.sum().backward()
    assert encoder.mask_token.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["mean", "bert"])
def test_the_last_layers_are_given_and_put_away(name: str) -> None:
    encoder, batch = ENCODERS[name](), words(6, 9)
    saved = set(encoder.state_dict())
    encoder.keep_layers(2)
    encoder.learn_mask_token()
    layers = encoder(batch).layers
    assert layers.shape[:3] == (2, 2, 9)
    if name == "mean":  # BERT has no closing norm
        closed = encoder.trunk.norm(layers[:, -1])
        torch.testing.assert_close(closed, encoder(batch).tokens)
    encoder.settle()
    assert encoder(batch).layers is None
    assert set(encoder.state_dict()) == saved
    with pytest.raises(PolysenseError, match="has 2 blocks and cannot keep 3; choose 0 to 2"):
        encoder.keep_layers(3)


def test_bf16_is_near_float32() -> None:
    encoder, batch = build(), words(3, 9)
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(batch).pooled
    torch.testing.assert_close(half.float(), encoder(batch).pooled, rtol=0.05, atol=0.05)


def test_the_list_names_what_can_be_built() -> None:
    names = [name for name, _ in list_text_encoders()]
    assert names == ["text_nano", "text_small", "transformers:NAME"]
    assert build("text_nano").dim == 128


# --- other people's models


def test_a_model_of_transformers_gives_what_it_gives_there(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = transformers.BertModel(bert()).eval()
    model.save_pretrained(tmp_path)
    encoder = build(f"transformers:{tmp_path}", pretrained=True)
    batch = words(3, 9)
    theirs = model(input_ids=batch["ids"], attention_mask=batch["attended"].long()).last_hidden_state
    torch.testing.assert_close(encoder(batch).tokens[batch["attended"]], theirs[batch["attended"]])
    assert build(f"transformers:{tmp_path}", pooling="first").pooling == "first"
    random = build(f"transformers:{tmp_path}")  # without pretrained the weights are new
    assert not torch.allclose(random(batch).pooled, encoder(batch).pooled)
    fresh = transformers.BertModel.from_pretrained(tmp_path)
    missing, unexpected = fresh.load_state_dict(encoder.trunk.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("pooler") for name in missing)


def test_the_reading_half_of_a_model_that_also_writes() -> None:
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2
    )
    encoder = build(transformers.T5Model(config))
    assert encoder.dim == 16
    assert encoder(words(3, 9)).pooled.shape == (2, 16)


def test_models_for_other_texts_are_told() -> None:
    message = refusal(transformers.BertModel(bert(vocab_size=30_522)))
    assert "BertModel knows 30,522 tokens and the tokenizer of the texts 300: take the model's own" in message
    message = refusal(transformers.BertModel(bert(max_position_embeddings=8)))
    assert "reads texts of up to 8 tokens, not 16" in message


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    assert f"the encoder 'transformers:{tmp_path}' cannot be had" in refusal(f"transformers:{tmp_path}")


class Bag(nn.Module):
    """A user's own module: ids and attended in, one vector a token or a text out."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.table, self.pooled = nn.Embedding(VOCABULARY, 6), pooled

    def forward(self, ids: Tensor, attended: Tensor) -> Tensor:
        tokens: Tensor = self.table(ids)
        return tokens.sum(1) if self.pooled else tokens


@pytest.mark.parametrize("pooled", [True, False])
def test_your_own_module(pooled: bool) -> None:
    module, batch = Bag(pooled), words(3, 9)
    encoder = build(module)
    assert encoder.trunk is module
    assert encoder.dim == 6
    encoded: Encoded = encoder(batch)
    tokens = module.table(batch["ids"])
    expected = tokens.sum(1) if pooled else pool(tokens, batch["attended"], "mean")
    torch.testing.assert_close(encoded.pooled, expected)
    with pytest.raises(PolysenseError, match="your own encoder Bag cannot hide tokens"):
        encoder(batch, batch["attended"])


def test_an_encoder_of_polysense_is_taken_as_it_is() -> None:
    encoder: Encoder = build()
    assert build(encoder) is encoder


# --- errors


def test_names_options_and_values_that_do_not_exist() -> None:
    assert refusal("text_smal") == "unknown encoder 'text_smal'; did you mean 'text_small' or 'text_nano'?"
    assert "unknown option of the encoder 'text_nano' 'widht'; did you mean 'width'" in refusal(widht=8)
    assert refusal(pooling="max") == "unknown pooling 'max'; did you mean 'mean'?"
    assert "3 heads cannot share a width of 128" in refusal(heads=3)
    assert "depth is 0; use at least 1" in refusal(depth=0)
    assert "there are no pretrained weights of 'text_nano'" in refusal(pretrained=True)
    assert "your own encoder Bag comes as it is; leave out pooling" in refusal(Bag(True), pooling="mean")
    assert "the encoder Conv1d failed on ids and attended, [2, 4] both" in refusal(nn.Conv1d(1, 1, 1))


def test_texts_that_are_too_long_and_methods_that_leave_tokens_out() -> None:
    with pytest.raises(
        PolysenseError, match="reads up to 16 tokens and a text has 17; cut texts at the length"
    ):
        build()(words(17))
    with pytest.raises(PolysenseError, match="choose a method for texts"):
        build()(words(5), torch.ones(1, 5, dtype=torch.bool))
