"""Vocabularies that are learned from texts, as tokenizers of the library ``tokenizers``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from polysense.errors import require

ROLES: Mapping[str, tuple[str, ...]] = {
    "pad": ("[PAD]", "<pad>", "<|padding|>"),
    "unknown": ("[UNK]", "<unk>"),
    "start": ("[CLS]", "<s>", "<bos>", "<start_of_text>", "<|startoftext|>"),
    "end": ("[SEP]", "</s>", "<eos>", "<end_of_text>", "<|endoftext|>"),
    "mask": ("[MASK]", "<mask>"),
}
"""The tokens with a role of their own, and what they usually are called; the first are our own."""

OUR_TOKENS = [names[0] for names in ROLES.values()]


def library() -> Any:
    """The library, which is asked for when the first text is read."""
    return require("tokenizers", "text", "reading texts")


def bpe(texts: Sequence[str], vocabulary: int, lower: bool) -> Any:
    """Pairs of bytes merged as often as they are frequent (https://arxiv.org/abs/1909.03341)."""
    from_bytes = library().pre_tokenizers.ByteLevel
    backend = _new(library().models.BPE(), lower)
    backend.pre_tokenizer, backend.decoder = from_bytes(add_prefix_space=True), library().decoders.ByteLevel()
    trainer = library().trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=OUR_TOKENS,
        initial_alphabet=sorted(from_bytes.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return _wrapped(backend)


def wordpiece(texts: Sequence[str], vocabulary: int, lower: bool) -> Any:
    """BERT's: whole words and their pieces, of the characters that occur (https://arxiv.org/abs/1810.04805)."""
    cleaner = library().normalizers.BertNormalizer(strip_accents=False, lowercase=False)

    def made(vocab: Mapping[str, int]) -> Any:
        backend = _new(library().models.WordPiece(dict(vocab), unk_token=ROLES["unknown"][0]), lower, cleaner)
        backend.pre_tokenizer = library().pre_tokenizers.BertPreTokenizer()
        backend.decoder = library().decoders.WordPiece()
        return backend

    learner = made({})
    # The trainer numbers pieces of one character as it meets them, in an order that differs from process to
    # process; as special tokens they are numbered first.
    alphabet = set[str]().union(*map(learner.normalizer.normalize_str, texts))
    pieces = [f"##{character}" for character in sorted(alphabet) if not character.isspace()]
    trainer = library().trainers.WordPieceTrainer(
        vocab_size=vocabulary, min_frequency=2, special_tokens=[*OUR_TOKENS, *pieces], show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    return _wrapped(made(learner.get_vocab()))


KINDS: Mapping[str, Callable[[Sequence[str], int, bool], Any]] = {"bpe": bpe, "wordpiece": wordpiece}
"""The kinds of vocabularies that can be learned."""


def of_clip(theirs: Any) -> Any:
    """open_clip's own BPE, which is written in Python, as one of the library."""
    normalizers, splitters, decoders = library().normalizers, library().pre_tokenizers, library().decoders
    merges = sorted(theirs.bpe_ranks, key=theirs.bpe_ranks.get)
    model = library().models.BPE(vocab=theirs.encoder, merges=merges, end_of_word_suffix="</w>")
    backend = library().Tokenizer(model)
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    backend.pre_tokenizer = splitters.Sequence(
        [
            splitters.Split(library().Regex(words), "removed", invert=True),
            splitters.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("</w>", " ")])
    start, end = theirs.decoder[theirs.sot_token_id], theirs.decoder[theirs.eot_token_id]
    return _wrapped(backend, [start, end], start, end)


def _new(model: Any, lower: bool, *more: Any) -> Any:
    """A tokenizer with what is done to every text first."""
    normalizers = library().normalizers
    steps = [normalizers.NFKC(), *([normalizers.Lowercase()] if lower else []), *more]
    backend = library().Tokenizer(model)
    backend.normalizer = normalizers.Sequence(steps)
    return backend


def _wrapped(
    backend: Any,
    special: Sequence[str] = OUR_TOKENS,
    start: str = ROLES["start"][0],
    end: str = ROLES["end"][0],
) -> Any:
    """With its special tokens made known, a start in front of every text and an end behind it."""
    backend.add_special_tokens(list(special))
    backend.post_processor = library().processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(token, backend.token_to_id(token)) for token in (start, end)],
    )
    return backend
