"""From the text of a file to plain values: a true tree, without shared parts.

Rule: the content of an alias is counted (``limits``) before a copy is made, so that no text uses more memory than the
table allows.  YAML 1.2 without tags, a single document, words as keys; ``<<`` adds the keys missing in a mapping.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, Event, ScalarEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from blockjobs.cli.runfile import limits
from blockjobs.cli.runfile.yaml_places import yaml_text

MERGE: Final = "tag:yaml.org,2002:merge"
TEXT: Final = "tag:yaml.org,2002:str"
_HALF: Final = re.compile("[\ud800-\udfff]")  # half of a surrogate pair


class Malformed(Exception):
    """An error in a text, with its line and column (from 1; 0 if unknown)."""

    def __init__(self, wrong: str, line: int = 0, column: int = 0) -> None:
        super().__init__(wrong)
        self.where = "".join(f":{number}" for number in (line, column) if number)


@dataclass(frozen=True, slots=True)
class ExpandedSize:
    """The size of a node after expansion of the aliases inside."""

    nodes: int = 0
    characters: int = 0
    height: int = 0  # nested lists and mappings


class _Counting(Composer):
    """Compose nodes, and count their expanded sizes; an alias shares the node of its anchor."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader=loader)
        self.warn_double_anchors = False  # YAML lets a later anchor take over a name
        self._nodes = self._characters = 0
        self._heights = [0]  # of each open node, as far as read
        self._closed: dict[int, ExpandedSize] = {}  # of nodes with an anchor, by identity

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        if isinstance(event, AliasEvent):
            return self._alias(event, super().compose_node(parent, index))
        _check_event(event)
        before = self._nodes, self._characters
        leaf = isinstance(event, ScalarEvent)
        self._count(event, ExpandedSize(1, len(event.value) if leaf else 0, 0 if leaf else 1))
        self._heights.append(0)
        node = super().compose_node(parent, index)
        node.end_mark = None  # unused, and a third of the memory of a node
        height = self._heights.pop() + (not leaf)
        self._heights[-1] = max(self._heights[-1], height)
        if event.anchor is not None:
            self._closed[id(node)] = ExpandedSize(self._nodes - before[0], self._characters - before[1], height)
        return node

    def _alias(self, event: Any, node: Any) -> Any:
        size = self._closed.get(id(node))
        if size is None:
            _raise_malformed(
                event, f"alias '*{event.anchor[:60]}' stands within what it names; a value without itself was expected"
            )
        self._count(event, size)
        self._heights[-1] = max(self._heights[-1], size.height)
        return node

    def _count(self, event: Event, size: ExpandedSize) -> None:
        self._nodes += size.nodes
        self._characters += size.characters
        for found, most, what in (
            (self._nodes, limits.NODES, "keys and values"),
            (self._characters, limits.TEXT, "characters"),
        ):
            if found > most:
                _raise_malformed(
                    event, f"with all aliases expanded there are {found} {what} so far; at most {most} were expected"
                )
        depth = len(self._heights) - 1 + size.height
        if depth > limits.DEPTH:
            text = f"{depth} lists and mappings are inside one another; at most {limits.DEPTH} were expected"
            _raise_malformed(event, f"nested too deeply: {text}")


def _check_event(event: Any) -> None:
    """Refuse tags, long scalars and half surrogate pairs, which no run file may contain."""
    if event.tag is not None:
        tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
        _raise_malformed(event, f"tag {yaml_text(tag)} is not accepted; a value without a tag was expected")
    if not isinstance(event, ScalarEvent):
        return
    if len(event.value) > limits.SCALAR:
        _raise_malformed(event, f"a value of {len(event.value)} characters; at most {limits.SCALAR} were expected")
    if _HALF.search(event.value):
        _raise_malformed(event, "half of a surrogate pair is not a character; a text was expected")


def _raise_malformed(at: Event | Node, wrong: str) -> NoReturn:
    raise Malformed(wrong, at.start_mark.line + 1, at.start_mark.column + 1)


# --- from a text to nodes -----------------------------------------------------------------------------


def compose_nodes(text: str) -> tuple[Node | None, Callable[[ScalarNode], object]]:
    """The nodes of a text (None: an empty text), with lines, and the function from a scalar node to its value.

    Raises:
        Malformed: the text is no YAML, or too large.
    """
    reader = YAML(typ="safe", pure=True)  # pure: the C parser speaks YAML 1.1
    reader.Composer = _Counting
    try:
        root = cast("Node | None", reader.compose(text))
    except MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        what = " ".join(str(wrong.problem or wrong.context or "malformed YAML").split())
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise Malformed(f"{what}; YAML 1.2 was expected", line, column) from None
    except ReaderError as wrong:
        before = text[: wrong.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise Malformed(f"{str(wrong).splitlines()[0]}; YAML 1.2 was expected", line, column) from None
    except (YAMLError, ValueError, TypeError) as wrong:
        raise Malformed(f"{' '.join(str(wrong).split())}; YAML 1.2 was expected") from None
    return root, reader.constructor.construct_object


# --- from nodes to values -----------------------------------------------------------------------------


def values_of_nodes(node: Node | None, scalar: Callable[[ScalarNode], object]) -> Any:
    """The values of nodes, each alias as a separate copy.

    Raises:
        Malformed: a key that is no word or is repeated, a merge of something else than a mapping, a malformed number.
    """
    match node:
        case None:
            return None
        case SequenceNode():
            return [values_of_nodes(each, scalar) for each in node.value]
        case MappingNode():
            return _value_of_mapping(node, scalar)
    return _value_of_scalar(node, scalar)


def _value_of_mapping(node: MappingNode, scalar: Callable[[ScalarNode], object]) -> dict[Any, Any]:
    own: dict[Any, Any] = {}
    merged: dict[Any, Any] = {}
    merges = 0
    for key, value in node.value:
        if not isinstance(key, ScalarNode):
            _raise_malformed(key, "a list or a mapping is not accepted as a key; a word was expected")
        if key.tag == MERGE:
            merges += 1
            for each in _mappings_to_merge(value):
                for taken, said in _value_of_mapping(each, scalar).items():
                    merged.setdefault(taken, said)  # the first mapping with a key wins
        name = "<<" if key.tag == MERGE else _value_of_scalar(key, scalar)
        if merges > 1 if key.tag == MERGE else name in own:
            _raise_malformed(key, f'found duplicate key "{key.value[:60]}"; YAML 1.2 was expected')
        if key.tag != MERGE:
            own[name] = values_of_nodes(value, scalar)
    return merged | own


def _mappings_to_merge(value: Node) -> Iterator[MappingNode]:
    for each in value.value if isinstance(value, SequenceNode) else [value]:
        if not isinstance(each, MappingNode):
            _raise_malformed(
                value, "'<<' of what is no mapping is not accepted; a mapping, or a list of them, was expected"
            )
        yield each


def _value_of_scalar(node: Any, scalar: Callable[[ScalarNode], object]) -> object:
    if node.tag == TEXT:
        return node.value
    if len(node.value) > limits.NUMBER:
        _raise_malformed(
            node, f"a number is too long: {len(node.value)} characters; at most {limits.NUMBER} were expected"
        )
    try:
        return scalar(node)
    except (ValueError, ArithmeticError) as wrong:
        _raise_malformed(node, f"{' '.join(str(wrong).split())}; YAML 1.2 was expected")


def count_keys_and_values(value: object) -> int:
    """The keys and values of a tree."""
    match value:
        case dict():
            return 1 + sum(1 + count_keys_and_values(each) for each in value.values())
        case list():
            return 1 + sum(map(count_keys_and_values, value))
    return 1
