"""Settings as YAML text: plain values within bounds are read, and anything else is an error that names the line.

YAML from a stranger may refer to one list a billion times, nest without end or name Python objects. So a document is
measured while it is read, with every reference written out, and a value can only be text, a number, true, false, null,
a list or a section.
"""

from __future__ import annotations

from typing import Any

import yaml

from submillion.errors import ConfigError

MAX_CHARACTERS = 1 << 19
MAX_VALUES = 20_000
"""Largest number of values in a document with references written out; ten thousand take about a second."""
MAX_DEPTH = 32

_MAX_NUMBER = 64  # characters of a number
_PREFIX = "tag:yaml.org,2002:"
_TAGS = {f"{_PREFIX}{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null", "merge")}
# To every setting, a date and a lone = are text.
_TEXT_TAGS = {f"{_PREFIX}{name}" for name in ("timestamp", "value")}
_NUMBER_TAGS = {f"{_PREFIX}int", f"{_PREFIX}float"}


def parse_yaml(text: str, *, where: str) -> Any:
    """Return the one document of YAML text as plain values; None where it is empty.

    Args:
        text: The document.
        where: Source of the text, for the error message.

    Raises:
        ConfigError: The YAML is broken, repeats a key, has a tag of another kind of value, or exceeds the bounds.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read", where=where)
    try:
        return _BoundedLoader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f":{mark.line + 1}"
        raise ConfigError(f"not valid YAML: {error.problem or error.context}", where=f"{where}{line}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}", where=where) from None


class _BoundedLoader(yaml.SafeLoader):
    """Composes nodes as SafeLoader does, measures each complete node, and stops at one that is too large."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        # The number of values in each node and the depth below it, with references written out.
        self._measures: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML has no types
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _refuse(f"is nested more than {MAX_DEPTH} deep", event.start_mark)
        if len(self._measures) >= MAX_VALUES:
            raise _refuse(f"holds more than {MAX_VALUES:,} values", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._measures:
                raise _refuse("refers to a value from within that value", event.start_mark)
        else:
            _check_tag(node)
            self._measures[id(node)] = self._measure(node)
        return node

    def _measure(self, node: yaml.Node) -> tuple[int, int]:
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            inside = [part for pair in node.value for part in pair]
        else:
            inside = node.value if isinstance(node, yaml.SequenceNode) else []
        measures = [self._measures[id(part)] for part in inside]
        size = 1 + sum(size for size, _ in measures)
        depth = 1 + max((depth for _, depth in measures), default=0)
        if size > MAX_VALUES:
            raise _refuse(f"comes to more than {MAX_VALUES:,} values", node.start_mark)
        if depth > MAX_DEPTH:
            raise _refuse(f"is nested more than {MAX_DEPTH} deep", node.start_mark)
        return size, depth

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, OverflowError, AttributeError, TypeError):
            kind = node.tag.removeprefix(_PREFIX)
            raise _refuse(f"{str(node.value)[:60]!r} is not a valid {kind}", node.start_mark) from None


def _check_tag(node: yaml.Node) -> None:
    if node.tag in _TEXT_TAGS and isinstance(node, yaml.ScalarNode):
        node.tag = f"{_PREFIX}str"
    if node.tag not in _TAGS:
        shown = node.tag.replace(_PREFIX, "!!")[:60]
        raise _refuse(f"the tag {shown} is not used in settings; values are text, numbers or lists", node.start_mark)
    if node.tag in _NUMBER_TAGS and len(node.value) > _MAX_NUMBER:
        raise _refuse(f"a number of {len(node.value):,} characters; at most {_MAX_NUMBER} are read", node.start_mark)


def _check_keys(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _refuse("a key is a list or a section; keys are words", key.start_mark)
        if (key.tag, key.value) in seen and not key.tag.endswith(":merge"):
            raise _refuse(f"the key {key.value[:60]!r} appears twice in one section", key.start_mark)
        seen.add((key.tag, key.value))


def _refuse(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
