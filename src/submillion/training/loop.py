"""The training loop: a generator that makes optimizer steps and yields the result of each.

The loop does not evaluate, write or print; its consumer does so between steps. The order of the records is a function
of (seed, epoch) and masks are functions of (seed, step, record), so a run can continue at any step as if it had never
stopped. A step's loss is the weighted mean over its records, over all forward passes and processes. Therefore
accumulation equals one large batch, and several processes equal one, up to rounding.
When a result is yielded, the parameters are those after its step; `Results` says when that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from submillion.config.run import TrainConfig
from submillion.encoding.text_encoder import Features
from submillion.model.encoder import Classifier
from submillion.training.collective import ALONE, Processes
from submillion.training.feed import count_steps, feed_steps
from submillion.training.gradients import (
    accumulate_gradients,
    clip_gradients,
    reduce_gradients,
    weigh_records,
    weigh_rows,
)
from submillion.training.optim import LearningRates, MovingAverage
from submillion.training.scaling import LossScaler
from submillion.training.step import Results, Step, StepResult, train_all_parts


def train_steps(
    classifier: Classifier,
    features: Sequence[Features],
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    *,
    seed: int,
    first_step: int = 0,
    average: MovingAverage | None = None,
    scaler: LossScaler | None = None,
    processes: Processes = ALONE,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Iterator[StepResult]:
    """Make optimizer steps from `first_step` to the end of the run.

    Args:
        classifier: The model.
        features: Features of the labelled training rows.
        optimizer: Optimizer from `build_optimizer`.
        config: Training settings.
        seed: Seed for order and dropout.
        first_step: Number of steps made before, on resume.
        average: Moving average, if any; it is updated after every step, also after one that is left out.
        scaler: Loss scaler for fp16 weights. A step whose gradients overflow is left out, but counts as a step.
        processes: Processes that share each step's records; parameters, optimizer and average are the same on all.
        is_stopping: Returns whether this process was asked to stop; called in each step if there are several.

    Raises:
        DivergedError: A loss or the gradients are not finite, on all processes alike; the step is not made.
    """
    per_epoch, num_steps = count_steps(len(features), config)
    learning_rates = LearningRates(optimizer, config, num_steps)
    device = next(classifier.parameters()).device
    weights = weigh_rows(features, classifier.plan.num_labels, config)
    on_device = None if weights is None else weights.to(device)
    parameters = list(classifier.trainable_parameters().values())
    results = Results(device, per_epoch)
    for given in feed_steps(features, config, seed=seed, first_step=first_step, device=device, processes=processes):
        train_all_parts(classifier)
        sums = accumulate_gradients(
            classifier,
            given,
            weights=on_device,
            total_weight=weigh_records(given.items, weights),
            label_smoothing=config.label_smoothing,
            seed=seed,
            scaler=scaler,
        )
        yield from results.read_waiting()
        rates = learning_rates.set(given.step)
        totals = reduce_gradients(parameters, sums, processes, is_stopping)
        norm = clip_gradients(parameters, config.clip_norm, scaler)
        step = Step(given, sums, totals=totals, norm=norm, rates=rates, scaler=scaler, processes=processes)
        step.make(optimizer, unread=results.are_late)
        if average is not None:
            average.update()
        yield from results.add(step)
    yield from results.read_waiting()
