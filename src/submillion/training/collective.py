"""The processes that carry out a run together, started by torchrun or accelerate and joined through accelerate.

Processes send each other only tensors and JSON. Everything that may fail on a single process is done in
`Processes.acting_together`, so that no process waits for one that has failed.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import torch

from submillion.errors import ConfigError, RunError, SubmillionError, from_json

# Only the first process writes, fits the baseline and draws the report, which can take long on large data. Dead
# processes are noticed at once, by closed connections or by their launcher; this limit is for processes that hang.
_PATIENCE = timedelta(hours=2)

# Variables in which launchers give the number of processes: torchrun and accelerate, MPICH, Open MPI, MVAPICH.
_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_LAUNCHER_NAMES = {
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"),
    *("ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"),
}
_LAUNCHER_PREFIXES = ("TORCHELASTIC_", "ACCELERATE_", "PMI_", "OMPI_", "MV2_", "MPI_LOCAL")

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: Number of this process, from 0. The first one writes all files and prints.
        count: Number of processes on all machines.
        local_count: Number of processes on this machine, which share its CPUs.
        device: Device that tensors are sent from: the CPU (gloo) or this process's GPU (nccl).
    """

    rank: int = 0
    count: int = 1
    local_count: int = 1
    device: torch.device = _CPU

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes, with the same bits on each.

        Args:
            values: Tensor on `device`, with the same shape and dtype on every process.

        Raises:
            RunError: Another process is gone.
        """
        if self.count == 1:
            return values
        from accelerate.utils import reduce

        with _in_contact():
            summed: torch.Tensor = reduce(values, reduction="sum")
        return summed

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Return the tensors of all processes along a new first axis, in the order of ranks, on the CPU.

        Args:
            values: Tensor on any device, with the same shape and dtype on every process.

        Raises:
            RunError: Another process is gone.
        """
        if self.count == 1:
            return values[None].cpu()
        from accelerate.utils import gather

        with _in_contact():
            gathered: torch.Tensor = gather(values.to(self.device)[None].contiguous())
        return gathered.cpu()

    def exchange(self, value: object) -> list[Any]:
        """Return the values of all processes, in the order of ranks.

        Args:
            value: Any value that JSON can hold.

        Raises:
            RunError: Another process is gone.
        """
        if self.count == 1:
            return [value]
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = self.gather(torch.tensor(len(content))).tolist()
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(content)] = content
        rows = self.gather(padded)
        return [json.loads(bytes(row[:length].tolist())) for row, length in zip(rows, lengths, strict=True)]

    def share(self, value: object) -> Any:
        """Return the first process's value, which may be anything that JSON can hold.

        Raises:
            RunError: Another process is gone.
        """
        return self.exchange(value if self.is_first else None)[0]

    def require_same(self, values: Mapping[str, object], hint: str) -> None:
        """Raise an error if values that must be equal differ between processes.

        Args:
            values: Values that JSON can hold, each under its name in messages.
            hint: Advice for the error.

        Raises:
            RunError: Values differ. It is raised on every process, with the first difference.
        """
        told = self.exchange(dict(values))
        for rank, theirs in enumerate(told):
            for name, value in theirs.items():
                if value != told[0][name]:
                    raise RunError(
                        f"process {rank} of {self.count} has another {name} than the first: {value}, not "
                        f"{told[0][name]}",
                        hint=hint,
                    )

    @contextmanager
    def acting_together(self) -> Iterator[None]:
        """Let a block succeed on all processes or fail on all.

        Code in the block must not wait for other processes, some of which may do nothing in it.

        Raises:
            SubmillionError: Another process raised it or failed. An exception of this process is raised unchanged.
        """
        failure = None
        try:
            yield
        except Exception as error:
            failure = error
        self.fail_together(failure)

    def fail_together(self, failure: Exception | None) -> None:
        """Return if no process has failed; otherwise raise the same error on all.

        Args:
            failure: Exception that this process would raise.

        Raises:
            SubmillionError: The first failure in the order of ranks. An error of another kind is raised unchanged by
                its own process, and by the others as a RunError that names it.
        """
        if self.count == 1:
            if failure is not None:
                raise failure
            return
        try:
            told = self.exchange(None if failure is None else self._name(failure).to_json())
        except RunError:
            # Other processes are gone, but this process's failure comes first.
            if failure is not None:
                raise failure from None
            raise
        if failure is not None and not isinstance(failure, SubmillionError):
            raise failure
        for rank, words in enumerate(told):
            if words is None:
                continue
            if failure is not None and rank == self.rank:
                raise failure
            raise from_json(words)

    def _name(self, failure: Exception) -> SubmillionError:
        if isinstance(failure, SubmillionError):
            return failure
        return RunError(
            f"process {self.rank} of {self.count} failed: {type(failure).__name__}: {failure}",
            hint="The message of that process says more.",
        )


ALONE = Processes()
"""The single process of a run without a launcher."""


@contextmanager
def _in_contact() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RunError(
            f"another process of this run is gone: {str(error).splitlines()[0]}",
            hint="Look at its output and the launcher's; --resume continues from the last checkpoint.",
        ) from error


def is_first_process() -> bool:
    """Return whether this process prints, without joining the others."""
    is_launched = any(name in os.environ for name in _WORLD_SIZES)
    return not is_launched or os.environ.get("RANK", "0") == "0"


def open_processes() -> Processes:
    """Join the processes that a launcher started together with this one, or return `ALONE` without a launcher.

    Raises:
        ConfigError: The launcher's variables are incomplete, or accelerate sees another number of processes than the
            launcher has started. Each would then train alone, and all would write the same files.
    """
    given = [name for name in _WORLD_SIZES if name in os.environ]
    if not given:
        _refuse_lone_launch()
        return ALONE
    from accelerate.utils.environment import get_cpu_distributed_information

    try:
        told = get_cpu_distributed_information()
    except ValueError as error:
        raise ConfigError(f"the launcher's variables cannot be read: {error}", where=given[0]) from None
    if told.world_size <= 1:
        return ALONE
    if torch.cuda.is_available() and 1 < torch.cuda.device_count() < told.local_world_size:
        raise ConfigError(
            f"{told.local_world_size} processes on a machine with {torch.cuda.device_count()} GPUs",
            where="LOCAL_WORLD_SIZE",
            hint=f"Start one process per GPU: torchrun --nproc_per_node {torch.cuda.device_count()}",
        )
    state = _join(told.world_size)
    if state.num_processes != told.world_size:
        raise ConfigError(
            f"{told.world_size} processes were started, but accelerate sees {state.num_processes} in this one",
            where=given[0],
            hint="Start the command with torchrun: torchrun --nproc_per_node 2 -m submillion train RECIPE. In your "
            "own program, make no Accelerator before training: on CPUs it treats every process as the only "
            "one. For a run in one process, unset the launcher's variables.",
        )
    return Processes(state.process_index, state.num_processes, told.local_world_size, state.device)


@cache
def _join(count: int) -> Any:
    from accelerate.state import PartialState

    # Without it, accelerate warns and sets torch's threads, which open_device does here.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    was_joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    try:
        state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(
            f"this process cannot join the {count} that were started: {str(error).splitlines()[0]}",
            where="RANK, MASTER_ADDR, MASTER_PORT",
            hint="Start it with torchrun, which sets these; for a run in one process, unset WORLD_SIZE.",
        ) from error
    if not was_joined:
        # gloo's threads abort a process that ends while its group is open.
        atexit.register(state.destroy_process_group)
    return state


def _refuse_lone_launch() -> None:
    # `accelerate launch` sets an address only if several processes were requested. On CPUs it nevertheless starts only
    # one, without a message.
    if "ACCELERATE_USE_CPU" in os.environ and "MASTER_ADDR" in os.environ:
        raise ConfigError(
            "accelerate launch was asked for several processes and has started one",
            where="accelerate launch",
            hint="It always does so on CPUs. Use torchrun: torchrun --nproc_per_node 2 -m submillion train RECIPE",
        )


def make_lone_environment() -> dict[str, str]:
    """Return this process's environment for a child process that must not join the others."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _LAUNCHER_NAMES and not name.startswith(_LAUNCHER_PREFIXES)
    }
