"""Who acts while frames are collected: chance, a function, or a trained Stable-Baselines3 agent."""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polysense.errors import PolysenseError, require

Policy = Callable[[Any], Any]
"""From an observation to an action."""

_POLICIES = {
    "stable_baselines3.common.policies": "ActorCriticPolicy",
    "stable_baselines3.dqn.policies": "DQNPolicy",
    "stable_baselines3.sac.policies": "SACPolicy",
    "stable_baselines3.td3.policies": "TD3Policy",
}


def make_policy(spec: Any, env: Any) -> Policy:
    """A policy for ``env``: "random", a function, a model with ``predict``, or the zip file of one.

    Raises:
        PolysenseError: for something else, or a file that is no model for this environment.
    """
    if spec == "random":
        return lambda observation: env.action_space.sample()
    if isinstance(spec, str | Path):
        spec = load_policy(Path(spec), env)
    if hasattr(spec, "predict"):
        return lambda observation: spec.predict(observation)[0]
    if callable(spec):
        return spec  # type: ignore[no-any-return]
    raise PolysenseError(
        f"a policy is 'random', a function from observations to actions, a Stable-Baselines3 model or its zip"
        f" file, not a {type(spec).__name__}"
    )


def load_policy(path: Path, env: Any) -> Any:
    """The policy of a saved Stable-Baselines3 model, for the spaces of ``env``.

    Only its weights are read. The rest of such a file is pickled Python, which would run whatever it holds;
    models with other than the usual policy and layers are therefore to be loaded by their owner.
    """
    require("stable_baselines3", "rl", "a policy from a file")
    import torch

    if not path.is_file():
        raise PolysenseError(f"there is no policy {path}; give 'random' or the zip file of a model")
    try:
        with zipfile.ZipFile(path) as archive:
            described = json.loads(archive.read("data"))
            with archive.open("policy.pth") as file:
                weights = torch.load(file, map_location="cpu", weights_only=True)
        module = described["policy_class"]["__module__"]
        maker = getattr(importlib.import_module(module), _POLICIES[module])
        layers = (described.get("policy_kwargs") or {}).get("net_arch")
        spaces = env.observation_space, env.action_space
        policy = maker(*spaces, lambda progress: 0.0, **({} if layers is None else {"net_arch": layers}))
        policy.load_state_dict(weights)
    except (KeyError, ValueError, TypeError, RuntimeError, zipfile.BadZipFile) as error:
        raise PolysenseError(
            f"{path} is not the saved model of a usual Stable-Baselines3 policy for this environment"
            f" ({str(error).splitlines()[0]}); load it yourself and give the model as policy"
        ) from error
    return policy
