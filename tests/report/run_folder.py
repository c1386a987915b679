"""A run folder as a training and an evaluation would leave it, made in a moment."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image

import polysense

DATA = Path(polysense.__file__).parent / "data" / "emoji.parquet"
STEPS = 3000


def write_run(run: Path, samples: int = 200, pictures: bool = True) -> Path:
    """A whole run folder with `samples` emoji in its gallery."""
    run.mkdir(parents=True, exist_ok=True)
    config = {
        "method": "simclr",
        "encoder": {"name": "resnet18", "weights": None, "image_size": 64},
        "data": {"source": "polysense/data/emoji.parquet", "picture": "image", "label": "group"},
        "budget": {"steps": STEPS, "batch_size": 128},
        "seed": 7,
        "precision": "bf16-mixed",
        "options": {"temperature": 0.2, "projector": {"hidden": 2048, "out": 128}, "symmetric": True},
        "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05, "betas": [0.9, 0.999]},
        "something_new": {"nested": {"deeper": [1, 2, {"a": None}]}},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics()))
    environment = {
        "polysense": "0.1.0",
        "python": "3.11.9",
        "date": "2025-11-24T04:10:00+00:00",
        "seed": 7,
        "command": ["polysense", "pretrain", "emoji.parquet", "--method", "simclr", "--name", "a run"],
        "packages": {"torch": "2.14.0", "timm": "1.0.22", "lightning": "2.6.0", "numpy": "2.3.5"},
        "hardware": {"device": "NVIDIA H100 80GB HBM3", "cores": 16, "memory": "128 GiB"},
    }
    (run / "environment.json").write_text(json.dumps(environment))
    (run / "evaluation.json").write_text(json.dumps(evaluation()))
    np.savez(run / "gallery.npz", **gallery(samples, pictures))
    return run


def metrics() -> list[dict[str, object]]:
    """A noisy loss that falls, probes that rise, one warning of collapse."""
    random = np.random.default_rng(0)
    lines: list[dict[str, object]] = []
    for step in range(10, STEPS + 1, 10):
        done = step / STEPS
        match, spread = 5.2 * np.exp(-3 * done) + 1.1, 0.4 * np.exp(-done)
        line: dict[str, object] = {
            "step": step,
            "loss/match": match + random.normal(0, 0.15),
            "loss/spread": spread + random.normal(0, 0.02),
            "lr": 1e-3 * min(1, done / 0.1) * 0.5 * (1 + np.cos(np.pi * max(0, done - 0.1) / 0.9)),
            "samples_per_second": 1850 + random.normal(0, 60) - (500 if step == 1500 else 0),
            "seconds": step * 0.069,
            "epoch": step // 30,
        }
        line["loss"] = line["loss/match"] + line["loss/spread"]
        lines.append(line)
        if step % 200 == 0:
            lines.append(
                {
                    "step": step,
                    "knn": 24 + 34 * (1 - np.exp(-3 * done)) + random.normal(0, 0.6),
                    "linear": 20 + 45 * (1 - np.exp(-3 * done)) + random.normal(0, 0.6),
                    "rankme": 12 + 60 * done + random.normal(0, 2),
                    "spread": 0.35 + 0.6 * (1 - np.exp(-5 * done)),
                }
            )
        if step == 400:
            lines.append({"step": step, "warning": "the embeddings are collapsing (spread 0.31 < 0.4)"})
    return lines


def evaluation() -> dict[str, object]:
    """Results in which pretraining wins most columns, and one it does not."""
    return {
        "results": {
            "pretrained": {"knn_group": 56.1, "linear_group": 61.3, "knn_vendor": 88.0, "rankme": 71.4},
            "untrained": {"knn_group": 38.4, "linear_group": 44.0, "knn_vendor": 86.9, "rankme": 18.2},
            "pixels": {"knn_group": 36.0, "linear_group": 33.5, "knn_vendor": 90.2},
            "majority": {"knn_group": 20.2, "linear_group": 20.2, "knn_vendor": 50.0},
        },
        "intervals": {
            "pretrained": {
                "knn_group": [54.0, 58.2],
                "linear_group": [59.2, 63.4],
                "knn_vendor": [86.1, 89.4],
            },
            "untrained": {
                "knn_group": [36.2, 40.5],
                "linear_group": [41.9, 46.2],
                "knn_vendor": [85.2, 88.3],
            },
            "pixels": {"knn_group": [33.9, 38.1], "linear_group": [31.4, 35.6], "knn_vendor": [88.7, 91.5]},
        },
        "protocol": {"neighbours": 20, "held_out": 955, "interval": "95 % bootstrap over held-out samples"},
        "notes": ["Both drawings of an emoji lie on the same side of the split."],
    }


def gallery(samples: int, pictures: bool) -> dict[str, np.ndarray]:
    """Emoji with a made-up map in which labels form clusters, and neighbours by distance in it."""
    table = pd.read_parquet(DATA).iloc[:: max(1, 3822 // samples)].head(samples)
    random = np.random.default_rng(1)
    thumbs = np.stack([decoded(image["bytes"]) for image in table["image"]])
    codes = pd.factorize(table["group"])[0]
    colour = thumbs.mean((1, 2)) / 40
    features = np.c_[2.2 * random.normal(size=(codes.max() + 1, 5))[codes], colour, np.zeros((samples, 3))]
    features += random.normal(size=features.shape)
    features = features - features.mean(0)
    flat = features @ np.linalg.svd(features, full_matrices=False)[2][:2].T
    distance = np.linalg.norm(features[:, None] - features[None], axis=-1)
    near = distance.argsort(1)[:: max(1, samples // 12)][:12, :9]
    arrays = {
        "names": table["name"].to_numpy(str),
        "labels": table["group"].to_numpy(str),
        "map": flat,
        "neighbours": near,
        "similarity": np.exp(-np.take_along_axis(distance[near[:, 0]], near[:, 1:], 1) / 12),
        "method_name": np.array("simclr"),
    }
    if pictures:
        arrays["thumbnails"] = thumbs
        arrays["views"] = views(thumbs[:: max(1, samples // 5)][:5])
        arrays["view_names"] = np.array(["original", "global 1", "global 2", "local 1", "local 2", "masked"])
    return arrays


def views(originals: np.ndarray) -> np.ndarray:
    """Crude stand-ins for augmentations: flip, tint, two crops, a masked half."""
    flipped, tinted, masked = originals[:, :, ::-1], originals // 2 + 60, originals.copy()
    masked[:, ::8, :, :] = 128
    left = originals[:, :32, :32].repeat(2, 1).repeat(2, 2)
    right = originals[:, 16:48, 24:56].repeat(2, 1).repeat(2, 2)
    return np.stack([originals, flipped, tinted, left, right, masked], axis=1)


def decoded(png: bytes) -> np.ndarray:
    """A picture on white, 64 x 64."""
    picture = Image.open(io.BytesIO(png)).convert("RGBA").resize((64, 64))
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB"))
