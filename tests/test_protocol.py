"""Citations of the protocol: each names a section of docs/protocol.md that is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEADINGS = re.findall(r"^#{2,3} ([\d.]+) ", (ROOT / "docs" / "protocol.md").read_text(), re.M)
SUBSECTIONS = {8: 8, 10: 3, 12: 1}

# Whatever names a part of the protocol, and the one way to do that.
CITED = re.compile(
    r'[Pp]rotocol,? (?:sections?\b|["“]|[A-Z]).{0,20}|[Ss]ections? [\d.]+ of the prot'
)
RIGHT = re.compile(r"[Pp]rotocol, section (\d+(?:\.\d+)?)(?![\d])")

FILES = sorted(
    chain(
        *((ROOT / folder).rglob("*.py") for folder in ("lthbench", "baselines", "tests")),
        (ROOT / "tasks").rglob("*.toml"),
        [ROOT / "README.md", ROOT / "CONTRIBUTING.md"],
        (path for path in (ROOT / "docs").glob("*.md") if path.name != "protocol.md"),
    )
)


def texts(path: Path) -> Iterator[str]:
    """What a file says in prose: docstrings and comments of Python, all of another file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield text
        return
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented):
            yield ast.get_docstring(node) or ""
    yield "\n".join(re.findall(r"(?:^|\s)# (.*)$", text, re.M))


def wrong(text: str) -> list[str]:
    """Citations that are in another form, or of a section that is not there."""
    found = []
    for match in CITED.finditer(" ".join(text.split())):
        right = RIGHT.match(match.group())
        if right is None or right.group(1) not in HEADINGS:
            found.append(match.group())
    return found


def test_the_sections_of_the_protocol() -> None:
    """Their numbers are cited, and must stay."""
    expected = [
        str(number) if part == 0 else f"{number}.{part}"
        for number in range(1, 16)
        for part in range(SUBSECTIONS.get(number, 0) + 1)
    ]
    assert expected == HEADINGS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_citations_name_a_section(path: Path) -> None:
    if path == Path(__file__):
        return
    assert [line for text in texts(path) for line in wrong(text)] == []


def test_the_protocol_is_cited() -> None:
    """The search finds what is there."""
    cited = " ".join(" ".join(text.split()) for path in FILES for text in texts(path))
    assert len(RIGHT.findall(cited)) > 30


@pytest.mark.parametrize(
    "text",
    [
        "Source: protocol, Scores.", 'see the protocol, "Tasks"', "protocol, section 16",
        "protocol, section 8.9", "protocol section 8", "protocol, sections 8 and 9",
        "Protocol, section\n 99", "section 8 of the protocol", "protocol, section 81",
    ],
)  # fmt: skip
def test_other_citations_are_found(text: str) -> None:
    assert wrong(text)


@pytest.mark.parametrize(
    "text", ["protocol, section 8.2.", "(protocol,\nsection 10)", "protocol, in"]
)
def test_right_citations_are_left_alone(text: str) -> None:
    assert not wrong(text)
