"""The command line as a user meets it: bad input ends in one sentence, good input in the files promised."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import polysense
from polysense.errors import PolysenseError
from tests.cli_tools import (
    Outcome,
    Trap,
    assert_done,
    assert_refused,
    command,
    on_small_disk,
    paint,
    process,
    read_embeddings,
    small_disk,
)

SHORT = ("--steps", "2", "--batch-size", "8", "--size", "16", "--judge", "false", "--accelerator", "cpu")
FILES = {
    "config.yaml",
    "weights.safetensors",
    "checkpoint.ckpt",
    "metrics.jsonl",
    "environment.json",
    "evaluation.json",
    "gallery.npz",
    "report.html",
    "tensorboard",
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    run = tmp_path_factory.mktemp("runs") / "trained"
    words = (
        "--method",
        "simclr",
        "--steps",
        "4",
        "--batch-size",
        "8",
        "--size",
        "16",
        "--accelerator",
        "cpu",
    )
    return run, command("pretrain", pictures, *words, "--out", run)


@pytest.fixture
def run(trained: tuple[Path, Outcome], tmp_path: Path) -> Path:
    """A copy of the one trained run, to do harm to."""
    assert_done(trained[1])
    return Path(shutil.copytree(trained[0], tmp_path / "run"))


def pretrain(data: Path | str, out: Path, *words: object) -> Outcome:
    return command("pretrain", data, "--method", "simclr", *SHORT, "--out", out, *words)


# What is refused before anything is trained


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--method", "simcler"], ["unknown method 'simcler'", "'simclr'"]),
        (["--encoder", "resnt18"], ["unknown encoder 'resnt18'", "'resnet18'"]),
        (["--bacth-size", "8"], ["unknown option '--bacth-size'", "'--batch-size'"]),
        (["--options.temprature", "0.2"], ["unknown option of simclr 'temprature'", "'temperature'"]),
        (["--encoder-options.widht", "8"], ["'small' has no option 'widht'"]),
        (["--trackers", "tensorbord"], ["unknown tracker 'tensorbord'", "csv", "wandb", "mlflow"]),
        (["--precision", "8"], ["unknown precision '8'", "16", "32"]),
        (["--batch-size", "64"], ["batch of 64 is larger than the data (32 samples)", "batch-size 32"]),
        (["--batch-size", "many"], ["batch-size", "many"]),
        (["--encoder", "vit_nano", "--size", "6"], ["6×6 pixels", "patches of 4×4", "multiple of the patch"]),
        (["--method", "mae", "--encoder", "small"], ["cannot hide tokens", "'vit_nano'"]),
        (["--epochs", "3"], ["one budget", "steps and epochs"]),
        (["--steps", "0"], ["steps is 0", "more than zero"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--batch-size", "0"], ["batch"]),
        (["--accumulate", "0"], ["accumulate"]),
        (["--size", "0"], ["size is 0 pixels"]),
        (["--workers", "-1"], ["workers"]),
        (["--devices", "0"], ["devices"]),
        (["--accelerator", "abacus"], ["accelerator", "abacus", "cpu"]),
        (["--optimiser", "adamv"], ["optimiser", "adamv", "'adamw'"]),
        (["--modality", "imago"], ["imago", "'image'"]),
        (["--lr", "-1"], ["lr"]),
        (["--warmup", "2"], ["warmup"]),
        (["--label", "colour"], ["unknown column 'colour'"]),
        (["--views.scal", "[0.2, 1.0]"], ["'scal'", "'scale'"]),
        (["--views.scale", "3"], ["scale"]),
        (["--options.temperature", "hot"], ["temperature", "hot"]),
        (["--pretrained"], ["pretrained weights of 'small'"]),
        (["--checkpoint-steps", "0"], ["checkpoint"]),
        (["--encoder", "vit_nano", "--encoder-options.depth", "-1"], ["depth"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_an_option_that_does_not_fit_is_told(
    pictures: Path, tmp_path: Path, words: list[str], told: list[str]
) -> None:
    assert_refused(pretrain(pictures, tmp_path / "run", *words), *told)


def test_a_time_that_cannot_be_read_is_told(pictures: Path, tmp_path: Path) -> None:
    refused = command("pretrain", pictures, "--out", tmp_path / "run", "--max-time", "soon")
    assert_refused(refused, "cannot read the time 'soon'", "3min", "00:03:00")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pretain", "pictures"], ["unknown command 'pretain'", "'pretrain'"]),
        (["pretrain"], ["data"]),
        (["evaluate"], ["run"]),
        (["methods", "simcler"], ["unknown method 'simcler'", "'simclr'"]),
        (["pretrain", "builtin:emojis", *SHORT], ["'emojis'", "'emoji'"]),
    ],
)
def test_a_command_that_does_not_fit_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(command(*words), *told)


def test_a_refused_start_is_mended_by_the_same_command(pictures: Path, tmp_path: Path) -> None:
    """What was refused leaves nothing in the run folder that would then be in the way."""
    mistakes = (
        ("--batch-size", "64"),
        ("--precision", "8"),
        ("--trackers", "tensorbord"),
        ("--method", "mae", "--encoder", "small"),
    )
    for mistake in mistakes:
        assert_refused(pretrain(pictures, tmp_path / "run", *mistake))
        left = list((tmp_path / "run").iterdir()) if (tmp_path / "run").exists() else []
        assert left == [], mistake
    assert_done(pretrain(pictures, tmp_path / "run"))


def test_a_missing_folder_suggests_its_sibling(pictures: Path, tmp_path: Path) -> None:
    refused = pretrain(pictures.with_name("picturs"), tmp_path / "run")
    assert_refused(refused, "no such file or folder", "picturs", f"did you mean {pictures}?")


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(pretrain(tmp_path / "empty", tmp_path / "run"), "no picture in", "empty", ".png")


def test_one_picture_is_told(tmp_path: Path) -> None:
    refused = pretrain(paint(tmp_path / "one", count=1), tmp_path / "run")
    assert_refused(refused, "one sample is not enough", "at least two")


def test_corrupt_files_are_named_and_can_be_allowed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    for number in range(8):
        (data / "red" / f"broken {number}.png").write_bytes(b"no picture")
    refused = pretrain(data, tmp_path / "run")
    assert_refused(refused, "8 of 40 pictures (20.0 %)", "red/broken 0.png", "--max-bad 0.2")
    assert_done(pretrain(data, tmp_path / "run", "--max-bad", "0.9"))
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]["samples"] == 32


# The run folder


def test_a_run_is_only_replaced_when_asked(run: Path, pictures: Path) -> None:
    before = (run / "weights.safetensors").read_bytes()
    assert_refused(pretrain(pictures, run), f"{run} exists", "--overwrite")
    assert (run / "weights.safetensors").read_bytes() == before
    (run / "notes.txt").write_text("mine")
    assert_done(pretrain(pictures, run, "--overwrite"))
    assert (run / "weights.safetensors").read_bytes() != before
    assert not (run / "evaluation.json").exists()  # of the run before
    assert (run / "notes.txt").read_text() == "mine"


def test_a_folder_that_is_no_run_is_never_overwritten(pictures: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    (home / "report.html").write_text("not ours")
    assert_refused(
        pretrain(pictures, home, "--overwrite"), f"{home} is not a run folder", "choose another out"
    )
    assert sorted(path.name for path in home.iterdir()) == ["report.html", "thesis.tex"]


def test_a_mistake_beside_overwrite_does_not_cost_the_old_run(run: Path, pictures: Path) -> None:
    before = sorted(path.name for path in run.iterdir())
    assert_refused(pretrain(pictures.with_name("picturs"), run, "--overwrite"))
    assert_refused(pretrain(pictures, run, "--overwrite", "--batch-size", "64"))
    assert sorted(path.name for path in run.iterdir()) == before


def test_out_that_is_a_file_is_told(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for words in ((), ("--overwrite",)):
        assert_refused(pretrain(pictures, tmp_path / "file", *words), "is a file, not a folder")
    assert_refused(pretrain(pictures, tmp_path / "file" / "run"), "cannot make the folder", "Not a directory")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["resume", "evaluate", "embed", "report"])
def test_a_run_folder_that_is_none_is_told(tmp_path: Path, name: str) -> None:
    assert_refused(command(name, tmp_path), f"{tmp_path} is not a run folder")
    assert_refused(command(name, tmp_path / "nowhere"), "run folder", "nowhere")


def test_a_checkpoint_of_another_method_is_told(run: Path, pictures: Path, tmp_path: Path) -> None:
    assert_done(pretrain(pictures, tmp_path / "byol", "--method", "byol"))
    shutil.copy(tmp_path / "byol" / "checkpoint.ckpt", run / "checkpoint.ckpt")
    assert_refused(command("resume", run), "checkpoint", "is of 'byol'", "says 'simclr'")


def test_resume_without_a_checkpoint_is_told(run: Path) -> None:
    (run / "checkpoint.ckpt").unlink()
    assert_refused(command("resume", run), "holds no checkpoint.ckpt", "nothing to resume from")


@pytest.mark.parametrize("name", ["evaluate", "embed"])
def test_weights_that_are_missing_or_a_pickle_are_told(run: Path, tmp_path: Path, name: str) -> None:
    words = ("--out", tmp_path / "vectors.npz") if name == "embed" else ()
    torch.save({"weight": torch.zeros(2)}, run / "weights.safetensors")
    assert_refused(command(name, run, *words), "weights.safetensors is a pickle, not safetensors")
    (run / "weights.safetensors").unlink()
    assert_refused(command(name, run, *words), "training did not finish", "polysense resume")


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_malicious_pickle_is_not_executed(run: Path, tmp_path: Path, write: Callable[..., Any]) -> None:
    mark = tmp_path / "executed"
    pickle.loads(pickle.dumps(Trap(mark)))
    mark.rmdir()  # the trap works
    for name in ("checkpoint.ckpt", "weights.safetensors"):
        write({"state_dict": Trap(mark), "global_step": 2}, run / name)
    assert_refused(command("resume", run), "checkpoint.ckpt", "not loaded")
    assert_refused(command("evaluate", run), "weights.safetensors", "a pickle", "not loaded")
    assert not mark.exists()


# What goes wrong on the way


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    refused = pretrain(pictures, run, "--steps", "8", "--lr", "1e30", "--checkpoint-steps", "1")
    assert refused.code == 2
    message = refused.err.splitlines()[-1]
    assert message.startswith("error: the loss became ")
    assert "lower lr" in message
    step = torch.load(run / "checkpoint.ckpt", weights_only=True)["global_step"]
    assert 1 <= step < 8
    assert f" at step {step};" in message
    assert "Traceback" not in refused.err
    assert not (run / "weights.safetensors").exists()
    assert_refused(command("embed", run), "training did not finish")


@pytest.mark.parametrize(
    ("writer", "file", "size"),
    [
        ("pathlib.Path.write_text", "config.yaml", 100),
        ("lightning.Trainer.save_checkpoint", "checkpoint.ckpt", 60_000),
        ("safetensors.torch.save_file", "weights.safetensors", 60_000),
    ],
)
def test_a_disk_that_refuses_is_told(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, file: str, size: int
) -> None:
    monkeypatch.setattr(writer, on_small_disk(resolve_name(writer), size))
    refused = pretrain(pictures, tmp_path / "run")
    assert refused.code == 2, refused.err
    assert refused.err.splitlines()[-1].startswith(f"error: could not write {tmp_path / 'run' / file}: ")
    assert "make room" in refused.err
    assert "Traceback" not in refused.err
    assert not (tmp_path / "run" / file).exists()
    assert [path.name for path in (tmp_path / "run").iterdir() if ".part" in path.name] == []


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_and_what_was_there_is_kept(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (run / "evaluation.json").read_bytes()
    monkeypatch.setattr(os, "replace", full)
    assert_refused(command("evaluate", run), "evaluation.json", "No space left on device", "make room")
    assert (run / "evaluation.json").read_bytes() == before


def test_a_disk_too_full_for_metrics_is_told(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polysense.training.logs.JsonLines.log_metrics", full)
    refused = pretrain(pictures, tmp_path / "run")
    assert refused.code == 2
    assert refused.err.splitlines()[-1].startswith("error: ")
    assert "No space left on device" in refused.err


@pytest.mark.parametrize("suffix", ["parquet", "npz", "safetensors"])
def test_embeddings_that_do_not_fit_on_the_disk_are_told(run: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"vectors.{suffix}"
    with small_disk(2000):
        refused = command("embed", run, "--out", out)
    assert_refused(refused, f"could not write {out}", "make room or choose another out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_embed_refuses_other_suffixes_and_existing_files(run: Path, tmp_path: Path) -> None:
    refused = command("embed", run, "--out", tmp_path / "vectors.txt")
    assert_refused(refused, "cannot write embeddings as 'vectors.txt'", ".parquet, .npz, .safetensors")
    out = tmp_path / "vectors.npz"
    out.write_text("mine")
    assert_refused(command("embed", run, "--out", out), f"{out} exists", "--overwrite")
    assert out.read_text() == "mine"
    assert_done(command("embed", run, "--out", out, "--overwrite"))
    assert np.load(out)["embeddings"].shape[0] == 32


# Configuration files


def test_a_config_file_says_the_same_as_options(pictures: Path, tmp_path: Path) -> None:
    options = {
        "data": str(pictures),
        "method": "byol",
        "steps": 2,
        "batch_size": 8,
        "size": 16,
        "lr": 0.01,
        "judge": False,
        "accelerator": "cpu",
        "options": {"momentum": 0.9},
        "views": {"scale": [0.5, 1.0]},
    }
    (tmp_path / "byol.yaml").write_text(yaml.safe_dump(options))
    assert_done(command("pretrain", "--config", tmp_path / "byol.yaml", "--out", tmp_path / "file"))
    words = ("--method", "byol", "--lr", "0.01", "--options.momentum", "0.9", "--views.scale", "[0.5, 1.0]")
    assert_done(pretrain(pictures, tmp_path / "words", *words))
    written = (tmp_path / "words" / "config.yaml").read_text()
    assert (tmp_path / "file" / "config.yaml").read_text() == written
    config = yaml.safe_load(written)
    assert config["method"] == "byol"
    assert config["options"]["momentum"] == 0.9
    assert config["optimisation"]["lr"] == 0.01
    assert config["budget"] == {"steps": 2, "seconds": None}


def test_an_option_after_a_config_file_wins(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("steps: 50\nbatch_size: 16\n")
    words = ("--config", tmp_path / "some.yaml", *SHORT, "--out", tmp_path / "run")
    assert_done(command("pretrain", pictures, *words))
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["budget"]["steps"], config["training"]["batch"]) == (2, 8)


def test_an_unknown_key_in_a_config_file_is_told(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("metod: byol\n")
    refused = command("pretrain", pictures, "--config", tmp_path / "bad.yaml", "--out", tmp_path / "run")
    assert_refused(refused, "'metod'", "'method'")


# What works


def test_pretrain_leaves_the_promised_files(trained: tuple[Path, Outcome]) -> None:
    run, outcome = trained
    assert_done(outcome)
    assert {path.name for path in run.iterdir()} == FILES
    assert f"run: {run}" in outcome.told
    assert f"report: {run / 'report.html'}" in outcome.told
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert records
    assert json.loads((run / "environment.json").read_text())["seed"] == 0


def test_pretrain_without_out_numbers_the_runs(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert_done(command("pretrain", pictures, *SHORT))
    assert sorted(path.name for path in Path("runs").iterdir()) == ["simclr-small-1", "simclr-small-2"]


def test_resume_goes_on_to_the_end(run: Path) -> None:
    config = (run / "config.yaml").read_text()
    assert "\n  steps: 4\n" in config
    (run / "config.yaml").write_text(config.replace("\n  steps: 4\n", "\n  steps: 6\n"))
    before = (run / "weights.safetensors").read_bytes()
    assert_done(command("resume", run))
    assert torch.load(run / "checkpoint.ckpt", weights_only=True)["global_step"] == 6
    assert (run / "weights.safetensors").read_bytes() != before


def test_evaluate_compares_with_untrained_and_pixels(run: Path) -> None:
    (run / "evaluation.json").unlink()
    outcome = command("evaluate", run)
    assert_done(outcome)
    results = json.loads((run / "evaluation.json").read_text())["results"]
    for features in ("pretrained", "untrained", "pixels"):
        assert set(results[features]) >= {"knn", "linear", "rankme"}
    assert results["pixels"]["linear"] > 90  # colour tells the classes apart
    assert all(name in outcome.told for name in results)


def test_evaluate_on_other_data(run: Path, tmp_path: Path) -> None:
    assert_done(command("evaluate", run, paint(tmp_path / "other", count=20)))
    assert json.loads((run / "evaluation.json").read_text())["samples"] == 20


@pytest.mark.parametrize("suffix", ["parquet", "npz", "safetensors"])
def test_embed_writes_names_beside_vectors(run: Path, pictures: Path, tmp_path: Path, suffix: str) -> None:
    expected = {str(path.relative_to(pictures)): path for path in sorted(pictures.glob("*/*.png"))}
    vectors = polysense.load(run).embed(list(expected.values())).numpy()
    for data in ((), (pictures,)):  # the run's own, and given
        out = tmp_path / f"{len(data)}.{suffix}"
        assert_done(command("embed", run, *data, "--out", out, "--batch-size", "10"))
        names, found = read_embeddings(out)
        assert sorted(names) == sorted(expected)
        order = [names.index(name) for name in expected]
        np.testing.assert_allclose(found[order], vectors, atol=1e-5)
    assert np.ptp(vectors, axis=0).max() > 1e-3  # pictures differ


def test_report_is_written_anew(run: Path) -> None:
    (run / "report.html").unlink()
    outcome = command("report", run)
    assert_done(outcome)
    assert "report.html" in outcome.out.replace("\n", "")
    assert "<html" in (run / "report.html").read_text(encoding="utf-8")


def test_lists_are_printed() -> None:
    listed = {name: command(name) for name in ("methods", "encoders", "data")}
    for outcome in listed.values():
        assert_done(outcome)
        assert outcome.err == ""
    assert all(name in listed["methods"].told for name in polysense.recipes())
    assert all(name in listed["encoders"].told for name in ("small", "vit_nano", "timm resnet"))
    assert all(name in listed["data"].told for name in ("builtin:emoji", "3,822", "image"))


def test_a_method_is_shown_with_published_and_scaled_values() -> None:
    from polysense.methods.scaling import Circumstances, scaled_options

    outcome = command("methods", "byol")
    assert_done(outcome)
    published = polysense.recipes()["byol"].published
    scaled = scaled_options(published, Circumstances())
    changed = [name for name in scaled if scaled[name] != published[name]]
    assert changed
    for name in changed:
        row = next(line for line in outcome.out.splitlines() if line.strip("│ ").startswith(name))
        cells = [cell.strip() for cell in row.strip("│ ").split("│")]
        assert cells[:3] == [name, str(published[name]), str(scaled[name])]
    simclr = command("methods", "simclr").told
    assert all(word in simclr for word in ("temperature", "published", "arxiv.org/abs/2002.05709"))


def test_help_has_dashes_and_examples() -> None:
    shown = command("pretrain", "--help")
    assert_done(shown)
    options = {word.strip("[],") for word in shown.out.split() if word.strip("[],").startswith("--")}
    assert options >= {"--batch-size", "--max-time", "--max-bad", "--weight-decay", "--overwrite", "--config"}
    assert [option for option in options if "_" in option] == []
    assert "--data" not in options  # it has a place, not a name
    assert all(
        name in command("--help").told for name in ("pretrain", "resume", "evaluate", "embed", "report")
    )


def test_debug_shows_where_it_went_wrong(tmp_path: Path) -> None:
    with pytest.raises(PolysenseError, match="is not a run folder"):
        command("report", tmp_path, "--debug")


# As a process


def test_a_process_tells_the_same() -> None:
    refused = process("methods", "simcler")
    assert_refused(refused, "unknown method 'simcler'; did you mean 'simclr'")
    assert refused.out == ""


def test_a_process_on_a_small_disk(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    refused = process("pretrain", pictures, *SHORT, "--out", run, limit="ulimit -f 64;")
    assert refused.code == 2, refused.err
    last = refused.err.splitlines()[-1]
    assert last.startswith(f"error: could not write {run / 'checkpoint.ckpt'}: ")
    assert "Traceback" not in refused.err
    assert not (run / "weights.safetensors").exists()


def test_importing_is_quick_and_leaves_torch_alone() -> None:
    script = (
        "import sys, time; began = time.perf_counter(); import polysense;"
        "print(time.perf_counter() - began, 'torch' in sys.modules, 'lightning' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds, *heavy = printed.stdout.split()
    assert float(seconds) < 1
    assert heavy == ["False", "False"]
