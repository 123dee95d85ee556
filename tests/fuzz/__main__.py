"""The driver: ``python -m tests.fuzz --cases 50000 --seed 1``; see `--help`."""

from __future__ import annotations

import argparse
import collections
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .execute import Outcome, Worker, make_case
from .run_targets import iter_run_targets, remove_world
from .targets import Target, iter_data_targets

RESULTS = ("read", "refused", "untyped", "silent", "hang", "crash", "memory", "terminal")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the driver; returns 1 where a case did not end as it should."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=50_000, help="cases in all, shared out over the targets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="targets by name or beginning, with commas: data/csv,run")
    parser.add_argument("--case", type=int, help="carry out this one case of the target named by --only, and show it")
    parser.add_argument("--keep", type=Path, help="folder for the damaged files that showed a fault, and faults.jsonl")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    options = parser.parse_args(arguments)
    targets = make_targets(tuple(filter(None, options.only.split(","))))
    if not targets:
        parser.error("no target has such a name")
    try:
        if options.case is not None:
            return _show_case(next(iter(targets.values())), options.seed, options.case, options.keep)
        return _run_all(targets, options)
    finally:
        remove_world()


def make_targets(only: Sequence[str]) -> dict[str, Target]:
    """Return the targets whose names begin with one of the given words, or all."""
    makers: dict[str, Callable[[], Target]] = dict([*iter_data_targets(), *iter_run_targets()])
    return {
        name: make()
        for name, make in makers.items()
        if not only or any(name == word or name.startswith(word.rstrip("/") + "/") for word in only)
    }


def share_out(targets: dict[str, Target], cases: int) -> dict[str, int]:
    """Return how many cases every target gets."""
    total = sum(target.weight for target in targets.values())
    return {name: max(1, round(cases * target.weight / total)) for name, target in targets.items()}


def _run_all(targets: dict[str, Target], options: argparse.Namespace) -> int:
    counts: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in targets}
    faults: dict[tuple[str, ...], list[Outcome]] = {}
    worker = Worker(targets, options.seed)
    started = time.monotonic()
    try:
        for name, share in share_out(targets, options.cases).items():
            began = time.monotonic()
            for index in range(share):
                outcome = worker.run(name, index)
                counts[name][outcome.result] += 1
                if not outcome.is_fine:
                    known = faults.setdefault(outcome.kind, [])
                    known.append(outcome)
                    if len(known) == 1:
                        _report(outcome, targets[name], options)
            print(f"{name}: {share} cases in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    finally:
        worker.close()
    seconds = time.monotonic() - started
    if options.json:
        print(
            json.dumps(
                {"counts": counts, "faults": [_describe(found) for found in faults.values()], "seconds": seconds}
            )
        )
    else:
        _print_table(counts, seconds)
        for found in faults.values():
            first = found[0]
            print(f"{len(found):5} x {first.result}: {first.place} {first.error[:150]!r}; {_command(first, options)}")
    return 1 if faults else 0


def _command(outcome: Outcome, options: argparse.Namespace) -> str:
    return f"python -m tests.fuzz --seed {options.seed} --only {outcome.target} --case {outcome.index}"


def _describe(found: Sequence[Outcome]) -> dict[str, object]:
    first = found[0]
    return {
        "count": len(found),
        "target": first.target,
        "index": first.index,
        "result": first.result,
        "error": first.error,
        "place": first.place,
        "trace": first.trace,
    }


def _report(outcome: Outcome, target: Target, options: argparse.Namespace) -> None:
    print(
        f"{outcome.result}: {outcome.place} {outcome.error[:200]!r}\n  {_command(outcome, options)}",
        file=sys.stderr,
        flush=True,
    )
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        content, action = make_case(target, options.seed, outcome.index)
        name = f"{outcome.target.replace('/', '-')}-{options.seed}-{outcome.index}"
        (options.keep / name).write_bytes(content)
        with (options.keep / "faults.jsonl").open("a") as file:
            entry = {**_describe([outcome]), "seed": options.seed, "file": name, "action": action}
            file.write(json.dumps(entry) + "\n")


def _print_table(counts: dict[str, collections.Counter[str]], seconds: float) -> None:
    print("| target | cases | " + " | ".join(RESULTS) + " |\n|---|" + "---|" * (len(RESULTS) + 1))
    total: collections.Counter[str] = collections.Counter()
    for name, found in sorted(counts.items()):
        total.update(found)
        print(f"| {name} | {sum(found.values())} | " + " | ".join(str(found[result]) for result in RESULTS) + " |")
    print(f"| all | {sum(total.values())} | " + " | ".join(str(total[result]) for result in RESULTS) + " |")
    print(f"{seconds:.0f} s")


def _show_case(target: Target, seed: int, index: int, keep: Path | None) -> int:
    content, action = make_case(target, seed, index)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        target.put(keep, content)
    worker = Worker({target.name: target}, seed)
    try:
        outcome = worker.run(target.name, index)
    finally:
        worker.close()
    print(f"{target.name}, case {index} of seed {seed}, action {action}: {len(content):,} bytes {content[:200]!r}")
    print(f"{outcome.result}: {outcome.error}\n{outcome.trace}")
    return 0 if outcome.is_fine else 1


if __name__ == "__main__":
    sys.exit(main())
