"""Two random views of a batch of pictures: polysense beside lightly, torchvision v2 and kornia.

    .venv-bench/bin/python -m benchmarks.views

Each starts from decoded 8-bit pictures in memory and ends with two normalised float batches, on one
thread, whose own time is counted, so that other jobs do not matter: random resized crop, flip, colour
jitter, grey, from 96 pixels on blur, normalisation, with the same probabilities and strengths. Each peer
runs as its users run it: lightly on Pillow images, one by one, then stacked; torchvision v2 one by one on
byte tensors, as its guide recommends, and on Pillow images, since either can be the faster; kornia on the
whole batch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.common import compare, environment, report
from polysense.modalities.vision.augment import RandomView, ViewSettings

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
JITTER: dict[str, Any] = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
SCALE, FLIP, JITTERED, GREY, SIGMA = (0.2, 1.0), 0.5, 0.8, 0.2, (0.1, 2.0)

CASES = ((64, 32, 0.0, 256), (64, 32, 0.0, 512), (128, 96, 0.5, 64), (256, 224, 0.5, 16))
"""Side of the pictures, side of the views, probability of blur, pictures in a batch."""

Case = Callable[[], list[Tensor]]


def polysense_views(pixels: Tensor, out: int, blur: float) -> Case:
    plain = ViewSettings(scale=SCALE, flip=FLIP, jitter=JITTERED, grey=GREY, blur=blur, blur_sigma=SIGMA)
    settings = replace(plain, **JITTER)
    view = RandomView(settings, out, MEAN, STD)
    size = torch.full((len(pixels), 2), pixels.shape[-1])
    return lambda: [view(pixels, size) for _ in range(2)]


def lightly_views(pixels: Tensor, out: int, blur: float) -> Case:
    from lightly.transforms import SimCLRTransform

    names = {"cj_bright": "brightness", "cj_contrast": "contrast", "cj_sat": "saturation", "cj_hue": "hue"}
    transform = SimCLRTransform(
        input_size=out,
        cj_prob=JITTERED,
        **{name: JITTER[ours] for name, ours in names.items()},
        min_scale=SCALE[0],
        random_gray_scale=GREY,
        gaussian_blur=blur,
        sigmas=SIGMA,
        hf_prob=FLIP,
        normalize={"mean": MEAN, "std": STD},
    )
    pictures = pillow_images(pixels)
    return lambda: [torch.stack(view) for view in zip(*map(transform, pictures), strict=True)]


def torchvision_views(pixels: Tensor, out: int, blur: float, pillow: bool = False) -> Case:
    from torchvision.transforms import v2

    steps: list[Any] = [
        v2.RandomResizedCrop(out, scale=SCALE, antialias=True),
        v2.RandomHorizontalFlip(FLIP),
        v2.RandomApply([v2.ColorJitter(**JITTER)], JITTERED),
        v2.RandomGrayscale(GREY),
    ]
    if blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(_kernel(out), SIGMA)], blur))
    steps += [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    transform = v2.Compose(steps)
    pictures = pillow_images(pixels) if pillow else list(pixels)
    return lambda: [torch.stack([transform(picture) for picture in pictures]) for _ in range(2)]


def kornia_views(pixels: Tensor, out: int, blur: float) -> Case:
    import kornia.augmentation as K

    steps: list[Any] = [
        K.RandomResizedCrop((out, out), scale=SCALE),
        K.RandomHorizontalFlip(FLIP),
        K.ColorJitter(**JITTER, p=JITTERED),
        K.RandomGrayscale(p=GREY),
    ]
    if blur:
        steps.append(K.RandomGaussianBlur((_kernel(out),) * 2, SIGMA, p=blur))
    transform = K.AugmentationSequential(*steps, K.Normalize(MEAN, STD))

    def views() -> list[Tensor]:
        batch = pixels.float() / 255
        return [transform(batch) for _ in range(2)]

    return views


def _kernel(out: int) -> int:
    """The odd number nearest to a tenth of the picture, as SimCLR's authors chose their blur's kernel."""
    return out // 10 // 2 * 2 + 1


def picture_batch(count: int, side: int) -> Tensor:
    """Smooth random pictures: photographs are smooth, and hue and blur do not depend on what they show."""
    coarse = torch.rand(count, 3, 8, 8)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    return (smooth * 255).to(torch.uint8)


def pillow_images(pixels: Tensor) -> list[Image.Image]:
    return [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pixels]


def measure(side: int, out: int, blur: float, count: int, repeats: int) -> dict[str, Any]:
    pixels = picture_batch(count, side)
    makers: dict[str, Callable[[Tensor, int, float], Case]] = {
        "polysense": polysense_views,
        "lightly": lightly_views,
        "torchvision": torchvision_views,
        "torchvision Pillow": partial(torchvision_views, pillow=True),
        "kornia": kornia_views,
    }
    cases = {name: make(pixels, out, blur) for name, make in makers.items()}
    timings = compare(cases, repeats, clock=time.process_time)
    seconds = {name: timing.median for name, timing in timings.items()}
    return {
        "view": f"{out} px",
        "from": f"{side} px",
        "blur": blur,
        "batch": count,
        **{f"{name} img/s": round(count / each) for name, each in seconds.items()},
        **{f"x {name}": each / seconds["polysense"] for name, each in list(seconds.items())[1:]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    record = environment(0, peers=["lightly", "torchvision", "kornia", "pillow"])
    report("views", [measure(*case, repeats) for case in CASES], record)


if __name__ == "__main__":
    main()
