"""Callbacks of scikit-learn 1.9 and newer: `set_callbacks` with its ProgressBar, ScoringMonitor and others.

A fit is a task, and each epoch a subtask. With an older scikit-learn the estimators lack `set_callbacks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdrop.callbacks import Callback
from cdrop.network import History, Network

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # before scikit-learn 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands in for scikit-learn's."""

    def with_callbacks(method: Any) -> Any:
        """Return the method as it is."""
        return method


if TYPE_CHECKING:
    from cdrop.schedules import Epoch

__all__ = ["CALLBACK_STATE", "CallbackSupportMixin", "EpochTasks", "with_callbacks"]

# Attributes of a fit with callbacks, which copies and pickles must not have.
CALLBACK_STATE = ("_callback_fit_ctx", "_skl_callbacks_to_teardown")


class EpochTasks(Callback):
    """Passes a fit on to the callbacks that `set_callbacks` has set.

    Parameters
    ----------
    estimator : estimator
    epochs : int
        Largest number of epochs.
    **data
        Arguments of the hooks: `X` and `y` as given to the fit, and `metadata`.
    """

    def __init__(self, estimator: Any, epochs: int, **data: Any) -> None:
        self._estimator, self._data, self._left = estimator, data, epochs
        self._fit = estimator._init_callback_context(max_subtasks=epochs)
        self._epoch: Any = None

    def _begin(self, context: Any) -> None:
        context.call_on_fit_task_begin(estimator=self._estimator, **self._data)

    def _end(self, context: Any) -> bool:
        network = self._estimator.network_
        return bool(
            context.call_on_fit_task_end(
                estimator=self._estimator,
                reconstruction_attributes=lambda: {"network_": _copied(network)},
                **self._data,
            )
        )

    def _begin_epoch(self) -> None:
        if self._left > 0:
            self._left -= 1
            self._epoch = self._fit.subcontext(task_name="epoch")
            self._begin(self._epoch)

    def on_fit_begin(self, net: Network, total: int) -> None:
        """Begin the fit and its first epoch."""
        self._begin(self._fit)
        self._begin_epoch()

    def on_epoch_end(self, net: Network, epoch: Epoch) -> bool:
        """End an epoch and begin the next one, if there is one."""
        done, self._epoch = self._epoch, None
        stop = self._end(done)
        if not (stop or self._estimator._stopped):
            self._begin_epoch()
        return stop

    def finish(self) -> None:
        """End the fit, which was not ended by an error."""
        if self._epoch is not None:  # begun, and not trained to its end
            self._epoch.call_on_fit_task_end(estimator=self._estimator)
        self._end(self._fit)

    def state_dict(self) -> None:
        """Return None: scikit-learn's callbacks do not resume."""


def _copied(network: Network) -> Network:
    """Return a network that predicts as this one does now."""
    copied = Network(**network._settings_now(), threads=network.threads)
    copied.set_weights(network.coefs_, network.intercepts_)
    copied._set_background(network._background)
    history = network.history
    copied.history = History(
        list(history.loss),
        list(history.epoch_loss),
        list(history.validation_loss),
        list(history.validation_score),
    )
    return copied
