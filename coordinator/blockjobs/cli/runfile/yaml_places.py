"""The line of a place in a YAML text, and the form of a value in a message to its author."""

from __future__ import annotations

import json
from typing import Final

from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

LONGEST: Final = 60  # characters of a value in a message
Path = tuple[int | str, ...]  # of keys and positions: ("jobs", 1, "speed")


class YamlLines:
    """The lines of a YAML text, by its nodes; a mapping is read once for every question."""

    def __init__(self, root: Node | None) -> None:
        self._root = root
        self._children: dict[int, dict[str, tuple[Node, Node]]] = {}

    def of(self, place: Path) -> int:
        """The line (from 1) of ``place``; if the text lacks the place, the line of the nearest thing around it."""
        if self._root is None:
            return 1
        node, line = self._root, self._root.start_mark.line
        for step in place:
            found = self._child(node, step)
            if found is None:
                break
            at, node = found
            line = at.start_mark.line
        return int(line) + 1

    def _child(self, node: Node, step: int | str) -> tuple[Node, Node] | None:
        """The node that names the child (its key; an item names itself), and the child."""
        match node, step:
            case SequenceNode(), int() if step < len(node.value):
                return node.value[step], node.value[step]
            case MappingNode(), _:
                if id(node) not in self._children:
                    self._children[id(node)] = {key.value: (key, value) for key, value in reversed(node.value)}
                return self._children[id(node)].get(str(step))
        return None


def yaml_text(value: object) -> str:
    """``value`` in YAML's form, on one line, shortened."""
    if isinstance(value, str):
        text = repr(value)
    else:  # piece by piece: aliases can make a value endless, or nearly
        text = ""
        encoder = json.JSONEncoder(ensure_ascii=False, check_circular=False, skipkeys=True, default=str)
        for piece in encoder.iterencode(value):
            text += piece
            if len(text) > LONGEST:
                break
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
