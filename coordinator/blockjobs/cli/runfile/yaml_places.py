"""Where in a YAML text something stands, and how a value is shown to the person who wrote it."""

from __future__ import annotations

import json
from typing import Final

from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

LONGEST: Final = 60  # characters of a value that are shown
Path = tuple[int | str, ...]  # of keys and positions: ("jobs", 1, "speed")


class YamlLines:
    """The lines of a YAML text, by its nodes; one look at each mapping serves all questions about it."""

    def __init__(self, root: Node | None) -> None:
        self._root = root
        self._children: dict[int, dict[str, tuple[Node, Node]]] = {}

    def of(self, place: Path) -> int:
        """The line (from 1) of ``place``; of the nearest thing around it where it is not in the text."""
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
        """What names the child (its key; an item names itself), and the child."""
        match node, step:
            case SequenceNode(), int() if step < len(node.value):
                return node.value[step], node.value[step]
            case MappingNode(), _:
                if id(node) not in self._children:
                    self._children[id(node)] = {key.value: (key, value) for key, value in reversed(node.value)}
                return self._children[id(node)].get(str(step))
        return None


def shown(value: object) -> str:
    """``value`` as YAML would have it, on one line, short."""
    if isinstance(value, str):
        text = repr(value)
    else:  # piece by piece: aliases make a value endless, or as good as that
        text = ""
        encoder = json.JSONEncoder(ensure_ascii=False, check_circular=False, skipkeys=True, default=str)
        for piece in encoder.iterencode(value):
            text += piece
            if len(text) > LONGEST:
                break
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
