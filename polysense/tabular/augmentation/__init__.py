"""More rows, DataFrame in, DataFrame out: the columns keep their order, their types and their meaning."""

from typing import Any

from polysense.tabular.augmentation.by_name import HOWS, augment
from polysense.tabular.augmentation.corruption import corrupt
from polysense.tabular.augmentation.missing import hide
from polysense.tabular.augmentation.mixing import cutmix, mixup
from polysense.tabular.augmentation.noise import gaussian, swap
from polysense.tabular.augmentation.oversample import oversample
from polysense.tabular.augmentation.streaming import augment_file

__all__ = [
    "HOWS",
    "Augmenter",
    "augment",
    "augment_file",
    "corrupt",
    "cutmix",
    "gaussian",
    "helps",
    "hide",
    "mixup",
    "oversample",
    "swap",
]


def __getattr__(name: str) -> Any:
    if name in ("Augmenter", "helps"):  # they need scikit-learn, which takes a while to import
        from polysense.tabular.augmentation import augmenter

        return getattr(augmenter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
