"""One line that tells how training goes."""

from __future__ import annotations

from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from polysense.training.journal import Journal
from polysense.training.module import Pretraining
from polysense.training.probes import OnlineProbes


class ProgressLine(L.Callback):
    """A rich progress bar with loss, kNN, effective rank and pace, from what others have measured.

    Off a terminal it prints one plain line each tenth of training.
    """

    def __init__(self, journal: Journal, probes: OnlineProbes, console: Console | None = None) -> None:
        self.journal = journal
        self.probes = probes
        self.console = console if console is not None else Console(stderr=True)
        self._bar: Progress | None = None
        self._task: Any = None
        self._told = 0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Draw the bar."""
        if not (trainer.is_global_zero and self.console.is_terminal):
            return
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
            console=self.console,
        )
        self._task = self._bar.add_task("pretraining", total=1.0, state="")
        self._bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        assert isinstance(module, Pretraining)
        if self._bar is not None:
            self._bar.update(self._task, completed=module.progress, state=self._state(trainer))
        elif trainer.is_global_zero and int(10 * module.progress) > self._told:
            self._told = int(10 * module.progress)
            self.console.print(f"{10 * self._told:>3} %  {self._state(trainer)}", highlight=False)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Leave the full bar standing."""
        if self._bar is not None:
            self._bar.update(self._task, completed=1.0, state=self._state(trainer))
        self._close()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _state(self, trainer: L.Trainer) -> str:
        known = {**self.journal.latest, **self.probes.latest}
        shown = [f"step {trainer.global_step:,}"]
        for name, form in (
            ("loss", "loss {:.3f}"),
            ("knn", "kNN {:.1f} %"),
            ("rankme", "rank {:.0f}"),
            ("samples_per_second", "{:,.0f}/s"),
        ):
            if name in known:
                shown.append(form.format(known[name]))
        return "  ".join(shown)
