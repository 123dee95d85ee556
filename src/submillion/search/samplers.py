"""Each trial has its own sampler, so its draws depend on the seed, on its number and on the trials before it.

Two workers that ask at the same time draw different settings, and a search that is continued draws the same settings
as an uninterrupted one.
"""

from __future__ import annotations

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from submillion.config.search import SearchConfig
from submillion.search.storage import experimental_allowed

_MAX_STARTUP = 10


def make_sampler(search: SearchConfig, seed: int, number: int) -> BaseSampler:
    """Return the sampler of one trial.

    Args:
        search: Search with its sampler, TPE or random, and the number of trials before TPE begins.
        seed: Seed of the search.
        number: Number of the trial.
    """
    drawn = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=drawn)
    startup = search.startup or min(_MAX_STARTUP, max(1, search.trials // 3))
    with experimental_allowed():
        # Grouped: settings that are drawn under a condition are modelled together where they occur together.
        return optuna.samplers.TPESampler(seed=drawn, multivariate=True, group=True, n_startup_trials=startup)
