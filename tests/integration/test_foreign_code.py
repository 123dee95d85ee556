"""Untrusted folders: no command runs, requests, fetches or opens anything that they name.

Every command runs with "y" on its standard input under an audit hook, which its child processes get too.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import submillion
from tests.tiny_language_models import build_tiny_gpt2


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


AUDIT = Path(__file__).parents[1] / "audit"
# The package may lie outside of the environment, as that of a clone does, and its code may run.
PACKAGE = Path(submillion.__file__).parents[1]
EVIL = "from pathlib import Path\nPath({marker!r}).write_text('ran')\nraise SystemExit('ran')\n"
HUB_CODE = {
    "auto_map": {
        "AutoConfig": "evil.Evil",
        "AutoModel": "evil.Evil",
        "AutoModelForSequenceClassification": "evil.Evil",
        "AutoModelForCausalLM": "stranger/code--evil.Evil",
        "AutoTokenizer": ["evil.Evil", "evil.Evil"],
    },
    "custom_pipelines": {"text-classification": {"impl": "evil.Evil", "pt": ["AutoModel"]}},
    "trust_remote_code": True,
}


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@dataclass(frozen=True)
class Outcome:
    codes: list[int]
    problems: list[str]
    err: str


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Return the file that every piece of hostile code would write."""
    return tmp_path / "elsewhere" / "ran"


@pytest.fixture
def audited(tmp_path: Path, marker: Path) -> Callable[..., Outcome]:
    """Return `run(commands, *folders)`: the outcomes of commands, and their actions outside the named folders."""
    marker.parent.mkdir()
    (marker.parent / "secret.json").write_text('{"model_type": "bert"}')

    def run(commands: Sequence[Sequence[object]], *folders: Path) -> Outcome:
        work = tmp_path / "work"
        for name in ("home", "tmp", "cache", "huggingface", "here"):
            (work / name).mkdir(parents=True, exist_ok=True)
        (work / "commands.json").write_text(json.dumps([[str(word) for word in words] for words in commands]))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(AUDIT), str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")]))),
            "AUDIT_LOG": str(work / "audit.log"),
            "AUDIT_CACHE": str(work / "cache"),
            "AUDIT_FOLDERS": os.pathsep.join(map(str, (work, *folders))),
            "HOME": str(work / "home"),
            "TMPDIR": str(work / "tmp"),
            "SUBMILLION_CACHE": str(work / "cache"),
            "HF_HOME": str(work / "huggingface"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        environment.pop("XDG_CACHE_HOME", None)
        done = subprocess.run(
            [sys.executable, "-P", str(AUDIT / "audited_commands.py"), work / "commands.json", work / "codes.json"],
            input="y\n" * 50,
            capture_output=True,
            text=True,
            cwd=work / "here",
            env=environment,
            check=False,
            timeout=500,
        )
        assert (work / "codes.json").exists(), done.stderr
        return Outcome(
            json.loads((work / "codes.json").read_text()),
            (work / "audit.log").read_text().splitlines() if (work / "audit.log").exists() else [],
            done.stderr,
        )

    return run


def poison(folder: Path, marker: Path) -> None:
    """Add to a folder of a model everything that libraries run, fetch or open when they are given it."""
    (folder / "evil.py").write_text(EVIL.format(marker=str(marker)))
    for name in ("configuration_evil.py", "modeling_evil.py", "tokenization_evil.py", "handler.py", "__init__.py"):
        shutil.copyfile(folder / "evil.py", folder / name)
    if (folder / "config.json").exists():
        config = read_json(folder / "config.json")
        config |= HUB_CODE | {
            "_attn_implementation": "stranger/kernel",
            "_attn_implementation_internal": "stranger/kernel",
            "attn_implementation": "stranger/kernel",
            "quantization_config": {"quant_method": "quanto", "modules_to_not_convert": ["evil"]},
            "torchscript": True,
            "transformers_weights": "../elsewhere/weights.safetensors",
            "_name_or_path": "stranger/code",
            "per_layer_config": {"0": {"hidden_size": 3}},
        }
        write_json(folder / "config.json", config)
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    settings |= HUB_CODE | {"tokenizer_class": "Evil", "tokenizer_file": str(marker.parent / "secret.json")}
    write_json(folder / "tokenizer_config.json", settings)
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump(_Evil(marker), file)
    index = {"weight_map": {"embeddings.word_embeddings.weight": "../elsewhere/weights.safetensors"}}
    write_json(folder / "model.safetensors.index.json", index)
    write_json(folder / "generation_config.json", HUB_CODE)
    (folder / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}")


def drop_tokenizer_json(folder: Path) -> None:
    """Leave the vocabulary files of the family alone, as older checkpoints have it."""
    values = read_json(folder / "tokenizer.json")
    vocabulary = values["model"]["vocab"]
    if values["model"]["type"] == "WordPiece":
        (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=lambda token: vocabulary[token])) + "\n")
    else:
        write_json(folder / "vocab.json", vocabulary)
        merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in values["model"]["merges"]]
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    (folder / "tokenizer.json").unlink()


@pytest.mark.timeout(600)
def test_a_base_of_a_stranger_runs_nothing(
    audited: Callable[..., Outcome],
    marker: Path,
    tiny_base: Callable[[str], Path],
    news_rows: Callable[..., Path],
    tmp_path: Path,
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base("bert"), base)
    drop_tokenizer_json(base)
    poison(base, marker)
    # Without its own model, transformers would take an adapter's base from wherever the adapter names it.
    write_json(base / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "stranger/code", "r": 1})
    model = tmp_path / "language-model"
    build_tiny_gpt2(model)
    drop_tokenizer_json(model)
    poison(model, marker)
    data = tmp_path / "data"
    news_rows(data / "train.csv", 80)
    news_rows(data / "test.csv", 16, start=1000)
    runs = tmp_path / "runs"
    settings = ("model.max_length=48", "train.max_steps=3", "adapter.rank=1", "threads=1", "baseline=false")
    fast = [word for setting in settings for word in ("--set", setting)]
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        f"name: small\ndata: {{source: {data}, validation_size: 0.25}}\nmodel: {{base: {base}, max_length: 48}}\n"
        "baseline: false\ntrain: {max_steps: 2, batch_size: 16, learning_rate: 5.0e-3}\n"
        "search: {trials: 1, rows: 40, validation_rows: 12, steps: 2, reports: 1, startup: 1, seeds: 1, "
        "confirm_steps: 2, space: {adapter.rank: {type: rank}}}\n"
    )
    sampling = ["finetune.epochs=1", "finetune.max_steps=1", "finetune.block_tokens=64", "sample.max_tokens=8"]
    sampling += ["sample.min_tokens=2", "screen.min_words=1", "screen.min_probability=0.25", "threads=1"]
    commands = [
        ["plan", "demo", "--base", base, "--set", "adapter.rank=1"],
        ["train", "demo", "--data", data, "--base", base, "--out", runs / "one", *fast],
        ["classify", runs / "one", "Bank cuts its rate"],
        ["export", runs / "one", "--format", "merged"],
        ["export", runs / "one", "--format", "adapter"],
        ["tune", recipe, "--out", runs / "search"],
        ["curve", recipe, "--budgets", "400", "--seeds", "1", "--out", runs / "curve"],
        [
            *("augment", "generate", "--target", data / "test.csv", "--classifier", runs / "one", "--model", model),
            *("--out", runs / "rows.jsonl", "--keep", "1"),
            *[word for setting in sampling for word in ("--set", setting)],
        ],
    ]
    outcome = audited(commands, base, model, data, runs, recipe)
    assert not marker.exists(), "hostile code ran"
    assert outcome.problems == []
    assert outcome.codes[:5] == [0] * 5, outcome.err
    assert all(code in {0, 2, 3, 4, 5, 6} for code in outcome.codes), outcome.err


@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_old", [False, True], ids=["tokenizer.json", "vocab.txt"])
def test_a_run_of_a_stranger_runs_nothing(
    audited: Callable[..., Outcome], marker: Path, trained: Any, tmp_path: Path, *, is_old: bool
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.folder, run)
    for folder in (run, run / "tokenizer", run / "adapter"):
        poison(folder, marker)
    if is_old:
        drop_tokenizer_json(run / "tokenizer")
    config = read_json(run / "adapter" / "adapter_config.json")
    config |= {
        "auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"},
        "megatron_config": {"x": 1},
        "megatron_core": "evil",
        "base_model_name_or_path": "stranger/code",
    }
    write_json(run / "adapter" / "adapter_config.json", config)
    test = trained.data / "test.csv"
    commands = [
        ["evaluate", run, test],
        ["predict", run, test, "--out", tmp_path / "out" / "predictions.csv"],
        ["classify", run, "Bank cuts its rate"],
        ["compare", run, run, test],
        ["report", run],
        ["export", run, "--format", "merged", "--out", tmp_path / "out" / "merged"],
        ["export", run, "--format", "adapter", "--out", tmp_path / "out" / "adapter"],
        ["train", "--resume", run],
    ]
    if is_old:
        # All commands that score load the tokenizer with one function; resuming proves the run again.
        commands = [words for words in commands if words[0] in {"classify", "report", "export"}]
    (tmp_path / "out").mkdir()
    base = Path(yaml.safe_load((run / "config.yaml").read_text())["model"]["base"])
    outcome = audited(commands, run, trained.data, base, tmp_path / "out")
    assert not marker.exists(), "hostile code ran"
    assert outcome.problems == []
    expected = [5, 0, 5, 5] if is_old else [0] * 8
    assert outcome.codes == expected, outcome.err


@pytest.mark.timeout(600)
def test_an_adapter_of_a_stranger_runs_nothing(
    audited: Callable[..., Outcome], marker: Path, tiny_bert: Path, trained: Any, tmp_path: Path
) -> None:
    import peft
    from transformers import AutoModelForSequenceClassification

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(tiny_bert, base)
    stock = AutoModelForSequenceClassification.from_pretrained(base, num_labels=4)
    settings: Any = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    with warnings.catch_warnings():
        # PEFT asks transformers by a name that it deprecates.
        warnings.simplefilter("ignore", FutureWarning)
        peft.get_peft_model(stock, settings).save_pretrained(str(adapter))
    poison(base, marker)
    poison(adapter, marker)
    with (adapter / "adapter_model.bin").open("wb") as file:
        pickle.dump(_Evil(marker), file)
    config = read_json(adapter / "adapter_config.json")
    config |= {"auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"}, "megatron_core": "evil"}
    config |= {"runtime_config": {"x": 1}, "base_model_name_or_path": str(base)}
    write_json(adapter / "adapter_config.json", config)
    test = trained.data / "test.csv"
    commands = [
        ["plan", adapter],
        ["classify", adapter, "Bank cuts its rate"],
        ["predict", adapter, test, "--out", tmp_path / "out" / "predictions.csv"],
    ]
    (tmp_path / "out").mkdir()
    outcome = audited(commands, base, adapter, trained.data, tmp_path / "out")
    assert not marker.exists(), "hostile code ran"
    assert outcome.problems == []
    assert outcome.codes == [0, 0, 0], outcome.err


@pytest.mark.timeout(600)
def test_code_of_the_current_folder_never_runs(
    marker: Path, news_rows: Callable[..., Path], train_words: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Hostile or harmless, files named like modules lie in the working directory of a run from end to end."""
    here = tmp_path / "here"
    here.mkdir()
    marker.parent.mkdir()
    for name in ("yaml", "sitecustomize", "usercustomize", "numpy", "torch", "submillion", "runpy"):
        (here / f"{name}.py").write_text(EVIL.format(marker=str(marker)))
    for name in ("random", "types", "json", "tokenizers", "queue"):
        (here / f"{name}.py").write_text("number = 4\n")
    news_rows(tmp_path / "data" / "train.csv", 80)
    news_rows(tmp_path / "data" / "test.csv", 16, start=1000)
    program = Path(sys.executable).with_name("submillion")
    words = train_words(tmp_path / "data", tmp_path / "run", "--set", "train.max_steps=2")
    done = subprocess.run([program, *words], cwd=here, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not marker.exists(), "hostile code ran"
    for name in ("random", "types", "json", "queue", "runpy", "sitecustomize", "submillion"):
        (here / f"{name}.py").unlink()
    # `python -m` makes its own imports from the working directory; after our first line, nothing is imported from
    # there.
    done = subprocess.run(
        [sys.executable, "-m", "submillion", "classify", tmp_path / "run", "Bank cuts its rate"],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert not marker.exists(), "hostile code ran"
