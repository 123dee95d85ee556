"""The command line starts at once, and its commands, flags and exit codes are a contract."""

from __future__ import annotations

import inspect
import resource
import subprocess
import sys
from typing import Any

import pytest
from typer.main import get_command

import submillion
from submillion import api, errors
from submillion.cli.app import app
from submillion.recipes import list_recipes, load_recipe

HEAVY = ("torch", "transformers", "numpy", "pydantic", "yaml", "pyarrow", "sklearn", "matplotlib", "datasets", "optuna")

# Scripts and other programs rely on these flags; removing or renaming one needs a new major version.
COMMANDS = {
    "demo": {"--out"},
    "recipes show": {"NAME"},
    "recipes copy": {"NAME", "FILE"},
    "plan": {
        *("RECIPE_OR_ADAPTER_DIR", "--base", "--budget", "--set", "--data", "--json"),
        *("--text", "--label", "--id", "--numbers"),
    },
    "check": {
        *("DATA", "--against", "--text", "--label", "--id", "--numbers", "--recipe", "--base", "--set"),
        *("--strict", "--json"),
    },
    "train": {
        *("RECIPE", "--data", "--base", "--budget", "--seed", "--text", "--label", "--id", "--set"),
        *("--numbers", "--extra", "--out", "--from", "--resume", "--json"),
    },
    "augment synonyms": {
        *("DATA", "--out", "--copies", "--rate", "--rows", "--seed", "--lexicon", "--tagger"),
        *("--text", "--label", "--id", "--json"),
    },
    "curve": {
        *("RECIPE", "--budgets", "--seeds", "--data", "--base", "--seed", "--text", "--label", "--id", "--set"),
        *("--numbers", "--rows", "--steps", "--out", "--json"),
    },
    "tune": {
        *(
            "RECIPE",
            "--data",
            "--base",
            "--budget",
            "--seed",
            "--text",
            "--label",
            "--id",
            "--numbers",
            "--set",
            "--trials",
            "--rows",
        ),
        *("--validation-rows", "--steps", "--sampler", "--pruner", "--seeds", "--storage", "--study", "--workers"),
        *("--out", "--json"),
    },
    "evaluate": {"RUN", "DATA", "--labels", "--text", "--label", "--id", "--numbers", "--precision", "--json"},
    "compare": {"RUN", "DATA", "--labels", "--text", "--label", "--id", "--numbers", "--json"},
    "predict": {
        *("RUN", "INPUT", "--out", "--precision", "--labels", "--probabilities", "--defuse-formulas"),
        *("--text", "--id"),
    },
    "classify": {"RUN", "TEXT...", "--precision", "--json"},
    "export": {"RUN", "--format", "--out", "--json"},
    "report": {"RUN...", "--out", "--json"},
    "augment generate": {
        *("--out", "--target", "--classifier", "--data", "--test", "--prompts", "--model", "--from-scratch", "--full"),
        *("--conditional", "--keep", "--seed", "--text", "--set", "--json"),
    },
    "augment prompts": {"FILE"},
}


def walk(command: Any, path: str = "") -> dict[str, set[str]]:
    if hasattr(command, "commands"):
        found: dict[str, set[str]] = {}
        for name, inner in command.commands.items():
            found |= walk(inner, f"{path} {name}".strip())
        return found
    words = set()
    for parameter in command.params:
        if parameter.name != "help":
            words |= set(parameter.opts) if parameter.param_type_name == "option" else {parameter.metavar}
    return {path: words}


def test_commands_and_flags_are_frozen() -> None:
    assert walk(get_command(app)) == COMMANDS


def measure_cpu(arguments: list[str]) -> float:
    """Return the processor seconds of a process: unlike wall time, they do not grow where a machine is busy."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_help_is_there_at_once() -> None:
    assert min(measure_cpu(["-m", "submillion", "--help"]) for _ in range(5)) < 0.3


def test_the_package_is_imported_at_once() -> None:
    assert min(measure_cpu(["-c", "import submillion"]) - measure_cpu(["-c", ""]) for _ in range(5)) < 0.1


def list_loaded(code: str) -> list[str]:
    """Return the names of all modules that a process has loaded after running some code."""
    code = f"{code}; import sys; sys.stderr.write(' '.join(sys.modules))"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stderr.split()


@pytest.mark.parametrize("code", ["import submillion", "import submillion.cli; submillion.cli.main(['--help'])"])
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    loaded = list_loaded(code)
    assert "submillion" in loaded
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize("module", ["scoring.run_model", "encoding.text_encoder", "data.clean"])
def test_a_run_can_be_looked_for_before_anything_that_computes_is_imported(module: str) -> None:
    loaded = list_loaded(f"import submillion.{module}")
    assert f"submillion.{module}" in loaded
    heavy = ("torch", "transformers", "peft", "accelerate", "sklearn", "scipy", "pandas", "pyarrow", "matplotlib")
    assert [name for name in heavy if name in loaded] == []


def test_reports_wait_for_no_room_that_trains() -> None:
    loaded = list_loaded("import submillion.report.formatting")
    assert [name for name in HEAVY if name in loaded] == []
    loaded = list_loaded("from submillion.report import write_card, write_report")
    assert "matplotlib" in loaded
    rooms = {name.split(".")[1] for name in loaded if name.startswith("submillion.")}
    assert rooms & {"pipeline", "scoring", "training", "wordnet", "augment", "search"} == set()
    assert [name for name in ("torch", "transformers", "sklearn", "nltk") if name in loaded] == []


def test_the_python_api_is_there() -> None:
    names = {
        *("SubmillionClassifier", "__version__", "curve", "export", "load", "plan", "predict", "read_dataset"),
        *("read_records", "report", "train", "tune"),
    }
    assert set(submillion.__all__) == names
    assert all(getattr(submillion, name) for name in submillion.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(submillion, "nothing" + "")


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_plans_within_its_budget(name: str) -> None:
    # One recipe is for texts of one's own, and knows no classes.
    plan = api.plan(name, settings={"data.labels": ["a", "b", "c", "d"]} if name == "minilm" else {})
    assert plan.trainable_params < load_recipe(name).budget <= 1_000_000
    assert plan.num_labels == 4


def test_every_error_has_an_exit_code_of_its_own_that_help_explains() -> None:
    kinds: list[type[errors.SubmillionError]] = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.SubmillionError) and errors.SubmillionError in kind.__bases__
    ]
    codes = {kind.exit_code for kind in kinds}
    assert len(codes) == len(kinds) == 5
    assert app.info.epilog is not None
    assert [code for code in codes if f" {code} " not in str(app.info.epilog)] == []
