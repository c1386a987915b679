"""A page on this machine that shows two clips side by side and stores which one a person prefers."""

from __future__ import annotations

import io
import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from polysense.errors import PolysenseError
from polysense.rl.trajectories import Trajectories

SHARES = {"first": 1.0, "tie": 0.5, "second": 0.0}
"""What the buttons mean; a pair that was skipped has no share."""

SHOWN_SIDE, MILLISECONDS = 256, 80
MOST_BYTES = 1000


class PairServer(ThreadingHTTPServer):
    """Asks a person on ``http://127.0.0.1:PORT`` about pairs of clips, from ``serve_forever()`` on.

    Each answer is a line of JSON in the file ``out``, with the number of the pair and the choice. Started
    again with the same file, it asks about the rest. Only this machine can reach the page.

    Args:
        trajectories: whose frames are shown.
        pairs: the rows of the clips, ``[N, 2, T]``, see :func:`~.preferences.clip_pairs`.
        out: the file of answers.
        port: 0 for a free one; ``url`` tells which.

    Raises:
        PolysenseError: for pairs of another shape, a file that holds no answers to them, or a taken port.
    """

    def __init__(
        self, trajectories: Trajectories, pairs: NDArray[np.int64], out: str | Path, *, port: int = 0
    ) -> None:
        if pairs.ndim != 3 or pairs.shape[1] != 2:
            raise PolysenseError(
                f"pairs of clips have the shape [pairs, 2, frames], not {list(pairs.shape)}; make them with"
                " polysense.rl.clip_pairs"
            )
        self.trajectories, self.pairs, self.out = trajectories, pairs, Path(out)
        self.lock = Lock()
        self.answered = set(_answers(self.out, len(pairs)))
        try:
            super().__init__(("127.0.0.1", port), _Page)
        except OSError as error:
            raise PolysenseError(f"port {port} cannot be used ({error.strerror}); choose another") from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}"

    def next_pair(self) -> int | None:
        """The first pair without an answer."""
        return next((number for number in range(len(self.pairs)) if number not in self.answered), None)

    def clip(self, number: int, side: int) -> bytes:
        """A clip as an animated GIF that begins again."""
        frames = self.trajectories.frames[self.pairs[number, side]]
        bands = frames[:, 0] if frames.shape[1] == 1 else frames.transpose(0, 2, 3, 1)
        pictures = [
            Image.fromarray(np.ascontiguousarray(band)).resize(
                (SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.NEAREST
            )
            for band in bands
        ]
        made = io.BytesIO()
        first, *rest = pictures
        first.save(made, "GIF", save_all=True, append_images=rest, duration=MILLISECONDS, loop=0)
        return made.getvalue()

    def store(self, number: Any, choice: Any) -> None:
        """Append an answer to the file."""
        if not isinstance(number, int) or not 0 <= number < len(self.pairs):
            raise PolysenseError(f"there is no pair {number!r}; the pairs are 0 to {len(self.pairs) - 1}")
        if choice not in (*SHARES, "skip"):
            raise PolysenseError(f"a choice is one of {', '.join(SHARES)} and skip, not {choice!r}")
        with self.lock, self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"pair": number, "choice": choice}) + "\n")
            self.answered.add(number)


def read_choices(out: str | Path, pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], Tensor]:
    """The pairs that were decided, ``[N, 2, T]``, and the share of each; a pair's latest answer counts.

    Raises:
        PolysenseError: for a file that is missing, holds no answers to these pairs, or no decision yet.
    """
    path = Path(out)
    if not path.is_file():
        raise PolysenseError(f"there are no answers {path}; collect them with polysense.rl.PairServer")
    shares = {
        number: SHARES[choice] for number, choice in _answers(path, len(pairs)).items() if choice != "skip"
    }
    if not shares:
        raise PolysenseError(f"{path} holds no decision yet; answer some pairs first")
    numbers = sorted(shares)
    return pairs[numbers], torch.tensor([shares[number] for number in numbers])


def _answers(path: Path, count: int) -> dict[int, str]:
    answers: dict[int, str] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for place, line in enumerate(lines, 1):
        try:
            told = json.loads(line)
            number, choice = int(told["pair"]), told["choice"]
            known = 0 <= number < count and choice in (*SHARES, "skip")
        except (ValueError, TypeError, KeyError):
            known = False
        if not known:
            raise PolysenseError(
                f"line {place} of {path} is no answer to these {count} pairs; mend or remove the file"
            )
        answers[number] = choice
    return answers


class _Page(BaseHTTPRequestHandler):
    """What the browser asks for: the page, the next pair, a clip; and the answer it sends."""

    server: PairServer

    def do_GET(self) -> None:
        """The page and what it shows."""
        match self.path.strip("/").split("/"):
            case [""]:
                self._send(PAGE.encode(), "text/html; charset=utf-8")
            case ["next"]:
                self._tell_pair()
            case ["film", number, ("0" | "1") as side] if self._is_pair(number):
                self._send(self.server.clip(int(number), int(side)), "image/gif")
            case _:
                self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        """An answer. As JSON only: other pages in the same browser cannot send that without being asked."""
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != "/choice" or self.headers.get("Content-Type") != "application/json":
            return self._refuse(HTTPStatus.NOT_FOUND, "answers are sent to /choice as application/json")
        if length > MOST_BYTES:
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "an answer is short")
        try:
            told = json.loads(self.rfile.read(length))
            self.server.store(told["pair"], told["choice"])
        except (ValueError, TypeError, KeyError):
            return self._refuse(HTTPStatus.BAD_REQUEST, "an answer has a pair and a choice")
        except PolysenseError as error:
            return self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        self._tell_pair()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the file of answers tells what happened."""

    def _is_pair(self, number: str) -> bool:
        return number.isdecimal() and int(number) < len(self.server.pairs)

    def _tell_pair(self) -> None:
        told = {
            "pair": self.server.next_pair(),
            "done": len(self.server.answered),
            "all": len(self.server.pairs),
        }
        self._send(json.dumps(told).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(json.dumps({"error": why}).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Which is better?</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem;
         color: #222; background: #fff; text-align: center }
  #clips { display: flex; gap: 1rem; justify-content: center; flex-wrap: wrap }
  #clips img { width: 256px; height: 256px; border: 1px solid #bbb; image-rendering: pixelated }
  button { font: inherit; padding: .5rem 1rem; margin: .25rem; cursor: pointer }
  kbd { color: #666; font-size: .8em }
  progress { width: 100% }
</style>
<h1>Which is better?</h1>
<main id="ask" hidden>
  <div id="clips"><img id="left" alt="first clip"><img id="right" alt="second clip"></div>
  <p><button data-choice="first">Left <kbd>←</kbd></button>
     <button data-choice="tie">Equal <kbd>↓</kbd></button>
     <button data-choice="second">Right <kbd>→</kbd></button>
     <button data-choice="skip">Skip <kbd>space</kbd></button></p>
</main>
<p id="told" role="status">Loading …</p>
<progress id="bar" value="0"></progress>
<script>
  const at = id => document.getElementById(id)
  let pair = null
  const show = told => {
    pair = told.pair
    at("bar").max = told.all; at("bar").value = told.done
    at("told").textContent = pair === null ? `Done: all ${told.all} pairs are answered. Thank you.`
                                           : `${told.done} of ${told.all} answered`
    at("ask").hidden = pair === null
    if (pair !== null) { at("left").src = `/film/${pair}/0`; at("right").src = `/film/${pair}/1` }
  }
  const ask = async (path, options) => {
    try {
      const answer = await fetch(path, options), told = await answer.json()
      if (!answer.ok) throw new Error(told.error)
      show(told)
    } catch (error) { at("told").textContent = `Not stored: ${error.message}` }
  }
  const choose = choice => pair !== null && ask("/choice", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ pair, choice }) })
  document.querySelectorAll("button").forEach(b => b.onclick = () => choose(b.dataset.choice))
  const keys = { ArrowLeft: "first", ArrowDown: "tie", ArrowRight: "second", " ": "skip" }
  addEventListener("keydown", event => {
    if (keys[event.key] && !event.repeat) { event.preventDefault(); choose(keys[event.key]) } })
  ask("/next")
</script>
</html>
"""
