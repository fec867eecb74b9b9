"""The words of the product: a name means one thing, says it without its module, and sentences name their subjects."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = [path for plane in ("coordinator/blockjobs", "workers/blockworker") for path in (ROOT / plane).rglob("*.py")]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
MAY_BE_COMMON = {"main", "remove"}  # what programs begin with; commands of three groups
POINTING = re.compile(
    r"\b(?:its?|they|them|their|that|those|which|who|whom|whose|whoever|what|whatever|one|each|others?|another"
    r"|(?:no|some|any|every)body|he|him|his|so|such|there|here|all)\b"
)
MOST_POINTING = 0.05  # of all words
MOST_OF_ONE_WORD = 0.55  # of all names of functions
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def homes(kinds: type | tuple[type, ...]) -> dict[str, list[str]]:
    """Each public name of these kinds at the top of a module, and the modules that have it."""
    found = defaultdict(list)
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, kinds) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(ROOT)))
    return found


def prose(path: Path) -> str:
    """The docstrings and comments of a file."""
    documented = (ast.Module, ast.ClassDef, *FUNCTION)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(TREES[path]) if isinstance(node, documented)]
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return " ".join([*texts, *(text for text in comments if not re.search("noqa|fmt:|type:", text))])


def pointing(text: str) -> float:
    """Which part of the words of a text are pronouns and words that only point."""
    words = re.findall(r"[A-Za-z']+", text.lower())
    assert len(words) > 1000
    return len([word for word in words if POINTING.fullmatch(word)]) / len(words)


def test_no_two_classes_have_one_name():
    classes = homes(ast.ClassDef)
    assert len(classes) > 300
    assert {name: files for name, files in classes.items() if len(files) > 1} == {}


def test_no_function_of_a_module_has_the_name_of_functions_of_two_others():
    functions = homes(FUNCTION)
    assert len(functions) > 500
    assert {name for name, files in functions.items() if len(files) > 2} == MAY_BE_COMMON


def test_names_of_functions_say_more_than_a_word():
    names = [node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, FUNCTION)]
    one = [name for name in names if len(name.strip("_").split("_")) == 1]
    assert len(one) / len(names) <= MOST_OF_ONE_WORD


def test_docstrings_and_comments_name_what_they_speak_of():
    assert pointing(" ".join(map(prose, FILES))) <= MOST_POINTING


def test_documents_name_what_they_speak_of():
    documents = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    text = " ".join(path.read_text(encoding="utf-8") for path in documents)
    assert pointing(re.sub(r"```.*?```", " ", text, flags=re.DOTALL)) <= MOST_POINTING
