"""Pretraining on tables as a transformer of scikit-learn."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from polysense.deployment.folder import (
    ENVIRONMENT,
    check_folder,
    environment,
    open_folder,
    write_attachments,
    write_config,
    write_json,
    write_weights,
)
from polysense.deployment.run import load
from polysense.errors import PolysenseError
from polysense.front import pretrain
from polysense.tabular.reading import to_frame


class SelfSupervisedEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Learns from the rows of a table without their labels, and gives each row's embedding.

    It takes DataFrames with columns of any kind, and arrays of numbers; gaps may stay. Training is that of
    :func:`polysense.pretrain`, which all parameters but the last two go to; what has no parameter here
    can be had there. ``fit`` ignores ``y``, and a column named ``label``, which polysense reads as one.

    Args:
        method: the recipe; ``polysense methods`` lists them.
        encoder: the name of the encoder; by default what the method needs, or a small MLP.
        steps: steps of training, by default from the data's size.
        batch_size: rows per step, by default 256 or what the data allow.
        lr: the learning rate at this batch, instead of the recipe's.
        options: the method's own options.
        encoder_options: the encoder's own options.
        views: settings of the views.
        kinds: what columns are, where it would be inferred wrongly, by their names.
        unseen: whether a level that was not there in training is "missing" or an "error".
        verbose: show how training goes.
        random_state: makes fitting repeatable.

    Attributes:
        run_: the trained encoder with its modality, a :class:`polysense.Run`.

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> frame = pd.DataFrame({"carat": [0.3, 1.2, 0.4, 1.5], "cut": ["Good", "Fair", None, "Fair"]})
    >>> model = make_pipeline(SelfSupervisedEncoder(steps=2, random_state=0), LogisticRegression())
    >>> model.fit(frame, [0, 1, 0, 1])[:-1].transform(frame).shape
    (4, 256)
    """

    def __init__(
        self,
        method: str = "scarf",
        encoder: str | None = None,
        *,
        steps: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        options: Mapping[str, Any] | None = None,
        encoder_options: Mapping[str, Any] | None = None,
        views: Mapping[str, Any] | None = None,
        kinds: Mapping[str, str] | None = None,
        unseen: Literal["error", "missing"] = "missing",
        verbose: bool = False,
        random_state: int | None = None,
    ) -> None:
        self.method = method
        self.encoder = encoder
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.options = options
        self.encoder_options = encoder_options
        self.views = views
        self.kinds = kinds
        self.unseen = unseen
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> SelfSupervisedEncoder:
        """Train a new encoder on the rows of ``X``, ``[n, columns]``; torch's random state stays as it was.

        Raises:
            PolysenseError: for a parameter or table that ``pretrain`` refuses.
            ValueError: for an array that scikit-learn refuses.
        """
        frame = self._frame(X, reset=True)
        with (
            TemporaryDirectory() as folder,
            torch.random.fork_rng(range(torch.cuda.device_count())),
            contextlib.nullcontext() if self.verbose else contextlib.redirect_stderr(io.StringIO()),
        ):
            run = pretrain(
                frame,
                method=self.method,
                encoder=self.encoder,
                out=Path(folder) / "run",
                modality="table",
                modality_options={"kinds": self._kinds(frame), "unseen": self.unseen},
                steps=self.steps,
                batch_size=self.batch_size,
                lr=self.lr,
                options=_plain(self.options),
                encoder_options=_plain(self.encoder_options),
                views=_plain(self.views),
                judge=False,
                seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
            )
        if run is None:
            raise PolysenseError("the training was stopped before its end: fit again")
        self.run_ = run
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """The embeddings of rows, ``[n, D]``.

        Raises:
            PolysenseError: for rows that are not of the table that it was fitted on.
            ValueError: for an array or column names that scikit-learn refuses.
        """
        check_is_fitted(self)
        rows = self.run_.modality.read(self._frame(X, reset=False))
        embedded: NDArray[np.float32] = torch.cat([part for _, part in self.run_.stream(rows)]).numpy()
        return embedded

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write a run folder, without a pickle; ``load`` reads it, and so does :func:`polysense.load`.

        Raises:
            PolysenseError: when the folder holds something else, or cannot be written.
        """
        check_is_fitted(self)
        place, config = Path(folder), dict(self.run_.config)
        check_folder(place, overwrite=overwrite)
        open_folder(place)
        names = getattr(self, "feature_names_in_", None)
        config["estimator"] = {
            "parameters": self.get_params(deep=False),
            "columns": None if names is None else list(names),
            "width": self.n_features_in_,
        }
        write_config(place, config)
        write_attachments(place, self.run_.modality.attachments())
        write_json(place / ENVIRONMENT, environment(config["seed"]))
        about = {"format": "pt", "method": config["method"], "encoder": config["encoder"]["name"]}
        write_weights(place, self.run_.encoder.state_dict(), about=about)
        return place

    @classmethod
    def load(cls, folder: str | Path) -> SelfSupervisedEncoder:
        """The fitted encoder that ``save`` wrote.

        Raises:
            PolysenseError: when the folder is not a run, or was not written by ``save``.
        """
        run = load(folder)
        if "estimator" not in run.config:
            raise PolysenseError(
                f"{folder} was not saved by a {cls.__name__}; open it with polysense.load, and call embed"
            )
        saved = run.config["estimator"]
        fitted = cls(**saved["parameters"])
        fitted.run_, fitted.n_features_in_ = run, saved["width"]
        if saved["columns"] is not None:
            fitted.feature_names_in_ = np.array(saved["columns"], dtype=object)
        return fitted

    def __sklearn_tags__(self) -> Tags:
        """Gaps are welcome; the embedding is float32, whatever comes in."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    @property
    def _n_features_out(self) -> int:
        width: int = self.run_.encoder.dim
        return width

    def _frame(self, X: Any, *, reset: bool) -> pd.DataFrame:
        """The rows as a DataFrame, as scikit-learn wants them checked."""
        least = 2 if reset else 1
        if hasattr(X, "columns"):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return to_frame(X, least=least)
        numbers = validate_data(
            self, X, reset=reset, dtype="numeric", ensure_all_finite="allow-nan", ensure_min_samples=least
        )
        names = getattr(self, "feature_names_in_", None)
        columns = [f"x{place}" for place in range(numbers.shape[1])] if names is None else list(names)
        return pd.DataFrame(numbers, columns=columns)

    def _kinds(self, frame: pd.DataFrame) -> dict[str, str]:
        """What the columns are declared to be: those of an array are numbers, whatever they look like."""
        named = hasattr(self, "feature_names_in_")
        numbers = [] if named else [name for name in frame.columns if frame[name].notna().any()]
        return {**dict.fromkeys(numbers, "number"), **(self.kinds or {})}


def _plain(options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if options is None else dict(options)
