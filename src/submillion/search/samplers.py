"""What draws the settings of trials, so that a draw follows from the seed, the trial's number and the trials before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from submillion.config.search import SearchConfig
from submillion.search.storage import experimental_allowed

_MAX_STARTUP = 10


class NumberedSampler(BaseSampler):
    """Draws each trial with a sampler of its own, seeded by the trial's number.

    So two workers that ask at the same time draw different settings, and a search that is continued draws what an
    uninterrupted one would have drawn.

    Args:
        search: TPE or random, and how many trials TPE watches before it begins.
        seed: Of the search.
    """

    def __init__(self, search: SearchConfig, seed: int) -> None:
        self._search = search
        self._seed = seed
        self._sampler: BaseSampler = optuna.samplers.RandomSampler(seed=seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Make the trial's sampler."""
        self._sampler = make_sampler(self._search, self._seed, trial.number)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what is drawn together."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw what is drawn together."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one parameter alone."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Tell the sampler of the trial's end."""
        self._sampler.after_trial(study, trial, state, values)


def make_sampler(search: SearchConfig, seed: int, number: int) -> BaseSampler:
    """Return the sampler of one trial."""
    drawn = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=drawn)
    startup = search.startup or min(_MAX_STARTUP, max(1, search.trials // 3))
    with experimental_allowed():
        # Grouped: settings that are drawn under a condition are modelled together where they occur together.
        return optuna.samplers.TPESampler(seed=drawn, multivariate=True, group=True, n_startup_trials=startup)
