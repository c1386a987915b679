"""I-JEPA: what the predictor reads, and what it is compared with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polysense.encoders.base import Encoded, Encoder
from polysense.encoders.heads import PlacePredictor, sine_cosine
from polysense.encoders.vision import build
from polysense.errors import PolysenseError
from polysense.methods.engine import Method
from polysense.methods.table import find
from polysense.modalities.base import View

SMALL = {"predictor_width": 16, "predictor_depth": 1, "predictor_heads": 2}


def encoder() -> Encoder:
    torch.manual_seed(0)
    return build("vit_nano", size=32, depth=1, width=32, heads=2)


def ijepa() -> Method:
    return find("ijepa").build(encoder(), "image", **SMALL)


def the_predictor(method: Method) -> PlacePredictor:
    (predictor,) = (one for one in method.modules() if isinstance(one, PlacePredictor))
    return predictor


def views(batch: int = 3) -> list[View]:
    torch.manual_seed(1)
    return [View(torch.randn(batch, 3, 32, 32), "image")]


def test_the_loss_is_the_authors_at_the_tokens_that_are_asked_for() -> None:
    method = ijepa()
    outcome = method(views())
    view, student, teacher = outcome.seen.views[0], outcome.seen.student[0], outcome.seen.teacher[0]
    assert view.asked is not None
    assert teacher is not None
    assert teacher.tokens is not None
    predicted = the_predictor(method)(student, view.asked)
    terms = []
    for sample in range(3):
        for group in range(4):
            for number, place in enumerate(view.asked[sample, group].nonzero().flatten().tolist()):
                target = teacher.tokens[sample, place]
                target = (target - target.mean()) / (target.var(correction=0) + 1e-5).sqrt()
                away = (predicted[4 * sample + group, number] - target).abs()
                terms.append(torch.where(away < 1, away**2 / 2, away - 0.5).mean())
    torch.testing.assert_close(outcome.loss, torch.stack(terms).mean())


def test_the_teacher_sees_the_whole_picture_and_learns_by_averaging_alone() -> None:
    method = ijepa()
    outcome = method(views())
    (student,), (teacher,) = outcome.seen.student, outcome.seen.teacher
    assert student.tokens is not None
    assert teacher is not None
    assert teacher.tokens is not None
    assert student.tokens.shape[1] < teacher.tokens.shape[1] == 64
    outcome.loss.backward()
    assert method.teacher is not None
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    assert all(parameter.grad is not None for parameter in the_predictor(method).parameters())
    assert "predictor" not in "".join(dict(method.teacher.named_parameters()))


def test_momentum_rises_in_a_straight_line() -> None:
    method = ijepa()
    momenta = []
    for progress in (0.0, 0.25, 1.0):
        method.at(progress)
        assert method.teacher is not None
        momenta.append(method.teacher.momentum)
    assert momenta == pytest.approx([0.996, 0.997, 1.0])


def place(encoded: Encoded, asked: Tensor, predictor: PlacePredictor) -> Tensor:
    """One group of one sample, by hand."""
    assert encoded.tokens is not None
    assert encoded.grid is not None
    assert encoded.mask is not None
    positions = sine_cosine(encoded.grid, 16)
    shown = [
        predictor.embed(token) + positions[spot]
        for token, spot in zip(encoded.tokens[0], (~encoded.mask[0]).nonzero().flatten(), strict=True)
    ]
    wanted = [predictor.mask_token + positions[spot] for spot in asked.nonzero().flatten()]
    read = predictor.blocks(torch.stack(shown + wanted)[None])[0, len(shown) :]
    result: Tensor = predictor.predict(read)
    return result


def test_each_group_is_predicted_from_the_context_alone() -> None:
    torch.manual_seed(0)
    predictor = PlacePredictor(8, width=16, depth=2, heads=2)
    mask = torch.rand(3, 12).argsort(1) >= 5
    asked = torch.rand(3, 2, 12).argsort(2) < 4
    tokens = torch.randn(3, 5, 8)
    predicted = predictor(Encoded(torch.zeros(3, 8), tokens, (3, 4), mask), asked)
    assert predicted.shape == (6, 4, 8)
    for sample in range(3):
        one = Encoded(torch.zeros(1, 8), tokens[[sample]], (3, 4), mask[[sample]])
        for group in range(2):
            expected = place(one, asked[sample, group], predictor)
            torch.testing.assert_close(predicted[2 * sample + group], expected)


def test_the_predictor_works_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss = ijepa()(views()).loss
    assert loss.isfinite()


def test_what_cannot_be_predicted_is_named() -> None:
    tokens = torch.randn(2, 4, 8)
    whole = Encoded(tokens.mean(1), tokens, (2, 2), torch.zeros(2, 4).bool())
    with pytest.raises(PolysenseError, match="an encoder that leaves hidden tokens out"):
        PlacePredictor(8, width=16, depth=1, heads=2)(whole, torch.ones(2, 1, 4).bool())
    with pytest.raises(PolysenseError, match="5 heads cannot share a width of 16"):
        PlacePredictor(8, width=16, depth=1, heads=5)
    with pytest.raises(PolysenseError, match="0 targets ask for nothing"):
        find("ijepa").build(encoder(), "image", targets=0)
