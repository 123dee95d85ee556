"""Write docs/recipes.md from the settings' own descriptions and the shipped recipes, so that the page cannot drift.

The settings in docs/generate.md are written in the same way. `make docs` runs this script, and a test compares both
pages with its output.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from submillion.budget.plan import Plan, make_plan
from submillion.config.generate import GenerateSettings
from submillion.config.run import RunConfig
from submillion.model.sources import load_base_config
from submillion.recipes import list_recipes, load_recipe

PAGE = Path(__file__).with_name("recipes.md")
GENERATE_PAGE = Path(__file__).with_name("generate.md")
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->"
NUM_LABELS = 4  # of AG News and of the shipped news items, which all shipped recipes classify

INTRODUCTION = """\
# Recipes

*This page is written by `make docs` from the settings themselves; edit `src/submillion/config/run.py` or the recipes.*

A recipe is one YAML file that describes a whole run. `submillion recipes` lists those below,
`submillion recipes show NAME` prints one, and `submillion recipes copy NAME` copies one into the current folder to
edit. `submillion train` takes a name or a path.

Settings that a recipe omits have the defaults shown here. `--set` changes one setting by its dotted path, and its value
is read as YAML: `--set train.epochs=2 --set adapter.targets='[query, value]'`. An unknown setting is an error that
gives the nearest known name. The run folder keeps the resolved `config.yaml` with every setting written out. It is
itself a recipe, which repeats the run.

```yaml
name: tickets
budget: 500000
data:
  source: tickets.csv
  text: [subject, body]
  label: queue
adapter:
  targets: [query, value]
train:
  epochs: 4
```
"""


def build_page() -> str:
    """Return the whole page as Markdown."""
    settings = _describe_settings(RunConfig.model_json_schema())
    return "\n".join([INTRODUCTION, _describe_recipes(), "## Settings\n", settings])


def build_generate_page(page: str) -> str:
    """Return docs/generate.md with its settings written again."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + _describe_settings(GenerateSettings.model_json_schema()) + END + after


def _describe_settings(schema: Mapping[str, Any]) -> str:
    parts = [_describe_section("", schema, schema)]
    for name, value in schema["properties"].items():
        section = _find_section(value, schema)
        if section is not None:
            parts.append(_describe_section(name, section, schema))
            for inner_name, inner in section["properties"].items():
                nested = _find_section(inner, schema)
                if nested is not None:
                    parts.append(_describe_section(f"{name}.{inner_name}", nested, schema))
    return "\n".join(parts)


def _describe_recipes() -> str:
    rows = ["| recipe | base | head | adapter | trainable parameters | in the head |", "|---|---|---|---|---:|---:|"]
    texts = []
    for name in list_recipes():
        config = load_recipe(name)
        plan = make_plan(
            load_base_config(config.model.base, config.model.revision),
            base=config.model.base,
            num_labels=NUM_LABELS,
            model=config.model,
            adapter=config.adapter,
            budget=config.budget,
        )
        rows.append(
            f"| [`{name}`](#{name}) | {config.model.base} | {plan.head} | {_describe_adapter(config, plan)} "
            f"| {plan.trainable_params:,} | {plan.head_params:,} |"
        )
        texts.append(f"### {name}\n\n{config.about.strip()}\n")
    return "\n".join(["## Shipped recipes\n", *rows, "", *texts])


def _describe_adapter(config: RunConfig, plan: Plan) -> str:
    ranks = sorted({module.rank for module in plan.modules})
    shown = "+".join(config.adapter.targets)
    if len(shown) > 40:
        shown = f"{len(plan.modules)} modules by name"
    bias = "" if plan.bias == "none" else f", bias {plan.bias}"
    return f"{plan.variant}, rank {'/'.join(map(str, ranks))} on {shown}{bias}"


def _describe_section(name: str, section: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    title = f"### `{name}`" if name else "### Top level"
    about = section.get("description", "")
    rows = ["| setting | values | default | meaning |", "|---|---|---|---|"]
    for key, value in section["properties"].items():
        if _find_section(value, schema) is not None and "description" not in value:
            continue
        default = _show_default(value) if "default" in value else "required"
        rows.append(f"| `{key}` | {_show_values(value)} | {default} | {value['description']} |")
    return "\n".join([title, "", about, "", *rows, ""])


def _find_section(value: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    options = [value, value.get("items", {}), *value.get("anyOf", [])]
    reference = next((option["$ref"] for option in options if "$ref" in option), None)
    if reference is None:
        return None
    section: Mapping[str, Any] = schema["$defs"][reference.rsplit("/", 1)[-1]]
    return section


def _show_values(value: Mapping[str, Any]) -> str:
    if "anyOf" in value:
        return " or ".join(_show_values(option) for option in value["anyOf"])
    for key, shown in (("$ref", "section"), ("oneOf", "[parameter](tune.md#the-space)")):
        if key in value:
            return shown
    choices = value.get("enum") or [value[key] for key in ("const",) if key in value]
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    kind = str(value["type"])
    if kind == "array":
        return _show_list(value)
    if kind == "object":
        return f"mapping of name to {_show_values(value['additionalProperties'])}"
    words = {"string": "text", "boolean": "`true`, `false`", "null": "`null`"}
    # A bar would end the cell of a table, in code too.
    pattern = [f"matching `{value['pattern']}`".replace("|", "\\|")] if "pattern" in value else []
    limits = [" and ".join(_show_limits(value))] if kind in {"integer", "number"} else []
    return " ".join([words.get(kind, kind), *limits, *pattern]).strip()


def _show_list(value: Mapping[str, Any]) -> str:
    if "prefixItems" in value:
        return f"list of {len(value['prefixItems'])}: {_show_values(value['prefixItems'][0])}"
    return "list of sections" if "$ref" in value["items"] else f"list of {_show_values(value['items'])}"


def _show_limits(value: Mapping[str, Any]) -> list[str]:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return [f"{sign} {value[key]:g}" for key, sign in signs.items() if key in value]


def _show_default(value: Mapping[str, Any]) -> str:
    default = value["default"]
    if default == "":
        return "empty"
    if isinstance(default, list):
        return f"`[{', '.join(map(str, default))}]`"
    if default is None or isinstance(default, (bool, dict)):
        return f"`{json.dumps(default)}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(build_page(), encoding="utf-8")
    GENERATE_PAGE.write_text(build_generate_page(GENERATE_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
