"""The commands that work on runs: the front door's functions, and what a person is told afterwards."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from polysense import front, judging
from polysense.deployment.folder import EVALUATION
from polysense.deployment.run import Run, load
from polysense.encoders.towers import Towers
from polysense.errors import unknown
from polysense.report import write_report
from polysense.tasks import captions, localisation
from polysense.tasks import zeroshot as by_words

STOPPED = 143
"""The exit code of a run that a SIGTERM stopped at a checkpoint."""

console = Console()


@functools.wraps(front.pretrain)
def pretrain(*args: Any, **kwargs: Any) -> int:
    return _tell(front.pretrain(*args, **kwargs))


@functools.wraps(front.resume)
def resume(*args: Any, **kwargs: Any) -> int:
    return _tell(front.resume(*args, **kwargs))


@functools.wraps(judging.evaluate)
def evaluate(*args: Any, **kwargs: Any) -> None:
    _print_verdict(judging.evaluate(*args, **kwargs))


@functools.wraps(front.embed)
def embed(*args: Any, **kwargs: Any) -> None:
    line(f"wrote {front.embed(*args, **kwargs)}")


@functools.wraps(localisation.localise)
def localise(*args: Any, **kwargs: Any) -> None:
    line(localisation.localise(*args, **kwargs).to_json(orient="records", force_ascii=False))


@functools.wraps(by_words.zeroshot)
def zeroshot(*args: Any, **kwargs: Any) -> None:
    found = by_words.zeroshot(*args, **kwargs)
    for name, chosen, *shares in found.itertuples(index=False):
        line(f"{name}\t{chosen}\t{max(shares):.2f}")


@functools.wraps(by_words.search)
def search(*args: Any, **kwargs: Any) -> None:
    found = by_words.search(*args, **kwargs)
    for name, similarity in found.itertuples(index=False):
        line(f"{similarity:.3f}\t{name}")


@functools.wraps(captions.caption)
def caption(*args: Any, **kwargs: Any) -> None:
    for name, text in captions.caption(*args, **kwargs).itertuples(index=False):
        line(f"{name}\t{text}")
    if kwargs["out"] is not None:
        line(f"wrote {kwargs['out']}")


@functools.wraps(captions.filter_pairs)
def filter(*args: Any, **kwargs: Any) -> None:
    kept, fallen = captions.filter_pairs(*args, **kwargs)
    line(f"kept {len(kept):,} of {len(kept) + len(fallen):,} pairs")
    for rule, count in fallen["rule"].value_counts().items():
        line(f"{count:>8,}  {rule}")
    for path in (kwargs["out"], kwargs["why"]):
        if path is not None:
            line(f"wrote {path}")


def export(run: str, *, to: str, out: str) -> None:
    """Write a run as a folder that another library loads, with the same embeddings.

    Args:
        run: the folder of a joint run whose encoder they have (clip_nano, siglip_nano, open_clip:NAME), or of
            a run on texts.
        to: open_clip, transformers, or (texts) sentence_transformers.
        out: the folder.

    $ polysense export runs/clip --to open_clip --out clip_for_open_clip
    $ polysense export runs/sentences --to sentence_transformers --out sentences
    """
    from polysense.deployment.joint_export import export_open_clip, export_transformers
    from polysense.deployment.text_export import export_text

    loaded = load(run)
    joint = isinstance(loaded.encoder, Towers)
    writers = {
        "open_clip": export_open_clip,
        "transformers": export_transformers if joint else export_text,
        "sentence_transformers": export_text,
    }
    if to not in writers:
        raise unknown("library to export to", to, writers)
    line(f"wrote {writers[to](loaded, Path(out))}")


def report(run: str) -> None:
    """Write RUN/report.html anew from what the run folder holds.

    Args:
        run: the run folder.

    $ polysense report runs/demo
    """
    line(f"wrote {write_report(Path(run))}")


def _tell(run: Run | None) -> int:
    """The verdict, and where the run and its report lie."""
    if run is None:
        return STOPPED
    if (verdict := run.path / EVALUATION).exists():
        _print_verdict(json.loads(verdict.read_text(encoding="utf-8")))
        line(f"report: {(run.path / 'report.html').resolve()}")
    line(f"run:    {run.path.resolve()}")
    return 0


def _print_verdict(content: dict[str, Any]) -> None:
    from polysense.evaluation.judge import Judgement, table

    console.print(table(Judgement(content["results"], content["intervals"], content["notes"])))
    for note in content["notes"]:
        line(f"note: {note}")


def line(text: str) -> None:
    """Print a line as it is, neither folded nor coloured and with its tabs, so that it can be piped."""
    print(text)
