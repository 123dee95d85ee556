"""What draws the settings of a trial: a sampler of its own, so draws follow from seed, number and the trials before.

So two workers that ask at the same time draw different settings, and a search that is continued draws what an
uninterrupted one would have drawn.
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
        search: TPE or random, and how many trials TPE watches before it begins.
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
