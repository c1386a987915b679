"""States of games: frames from environments, encoders of them, and agents that learn with those."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from polysense.rl.collect import collect
from polysense.rl.curves import Curve, draw_curves, learning_curve
from polysense.rl.offline import import_minari
from polysense.rl.preference_page import PairServer, read_choices
from polysense.rl.preferences import (
    Preferences,
    RewardModel,
    best_of,
    clip_pairs,
    reward_function,
    scripted_choices,
)
from polysense.rl.probing import probe_states, supervised_encoder
from polysense.rl.reading import import_frames
from polysense.rl.trajectories import Trajectories, read_trajectories

_ON_AGENTS = {
    "CURL": "curl_agent",
    "AugmentedReplay": "augmented",
    "DrawnFrames": "wrappers",
    "EmbeddedFrames": "wrappers",
    "PreferenceReward": "wrappers",
    "ReturnLog": "wrappers",
    "features": "extractor",
    "pixels": "wrappers",
}
"""These build on classes of Stable-Baselines3 and are imported when they are first used."""

__all__ = [
    "CURL",
    "AugmentedReplay",
    "Curve",
    "DrawnFrames",
    "EmbeddedFrames",
    "PairServer",
    "PreferenceReward",
    "Preferences",
    "ReturnLog",
    "RewardModel",
    "Trajectories",
    "best_of",
    "clip_pairs",
    "collect",
    "draw_curves",
    "features",
    "import_frames",
    "import_minari",
    "learning_curve",
    "pixels",
    "probe_states",
    "read_choices",
    "read_trajectories",
    "reward_function",
    "scripted_choices",
    "supervised_encoder",
]

if TYPE_CHECKING:
    from polysense.rl.augmented import AugmentedReplay
    from polysense.rl.curl_agent import CURL
    from polysense.rl.extractor import features
    from polysense.rl.wrappers import DrawnFrames, EmbeddedFrames, PreferenceReward, ReturnLog, pixels


def __getattr__(name: str) -> Any:
    if name not in _ON_AGENTS:
        raise AttributeError(f"module 'polysense.rl' has no attribute {name!r}")
    from polysense.errors import require

    require("stable_baselines3", "rl", f"polysense.rl.{name}")
    return getattr(importlib.import_module(f"polysense.rl.{_ON_AGENTS[name]}"), name)
