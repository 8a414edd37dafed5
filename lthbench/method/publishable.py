"""What a method must satisfy for its results to appear on the leaderboard, whatever they are.

The source is read as text, not run. So the rules can be checked before anything is trained, and
again for a bundle, whose records must describe the method as its source does. No torch.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from lthbench.errors import MethodError, RecordError
from lthbench.io import file_names
from lthbench.io.paths import digest, shipped
from lthbench.io.untrusted import check_plain, check_table, shown
from lthbench.method.source import DESCRIBED, Declared, Method, baseline_names, declared, parsed
from lthbench.records.schema import MethodEntry

SOURCE_LIMIT, LITERAL_LIMIT = 64 * 2**10, 4 * 2**10  # bytes
NEXT = "a method computes what it needs, from the problem"
# Expressions that are literals if all their parts are.
BUILT = (ast.Tuple, ast.List, ast.Set, ast.Dict, ast.BinOp, ast.UnaryOp)
WHOLE = ("Constant", "JoinedStr", "TemplateStr")  # by name: only Python 3.14 has the last


def check(method: Method) -> None:
    """Check that nothing in a method's source or options would be refused after its evaluation.

    Raises:
        MethodError: naming the file, the place and the rule.
    """
    name = Path(method.path).name
    check_source(method.source, name)
    try:
        check_told(entry_of(method))
    except RecordError as error:
        raise MethodError(f"{name}: {error}") from error


def entry_of(method: Method) -> MethodEntry:
    """Return what a record would say of a method; schema-valid only after `check`."""
    return MethodEntry.model_construct(
        name=method.name,
        digest=method.digest,
        options=dict(method.options),
        described=dict(method.described),
    )


def remarks(entry: MethodEntry) -> Iterator[str]:
    """Yield what is allowed, but leaves an entry without an author, a licence or a unique name.

    Shown before an evaluation: each is corrected in the source, which is what is evaluated.
    """
    absent = [key for key in ("authors", "licence") if not entry.described.get(key, "").strip()]
    if absent:
        yield (
            f"METHOD of {entry.name} names no {' and no '.join(absent)}; add what you will submit "
            "before you evaluate: with another source it is another method"
        )
    if entry.name in baseline_names():
        path = shipped("baselines") / f"{entry.name}.py"
        if digest(path.read_bytes()) != entry.digest:
            yield f"{entry.name} is the name of a baseline of another source; choose your own"


def check_source(source: str, place: str) -> None:
    """Check that a source is a method and no store of tickets, by its size and its literals.

    Args:
        source: the text of the file.
        place: what errors call it.

    Raises:
        MethodError: naming the line, the size and the limit.
    """
    if (size := len(source.encode())) > SOURCE_LIMIT:
        raise MethodError(f"{place}: {size:,} bytes; at most {SOURCE_LIMIT >> 10} kB: {NEXT}")
    found = longest_literal(source, place)
    if found is not None:
        line, size = found
        raise MethodError(
            f"{place}:{line}: a literal of {size:,} bytes; at most {LITERAL_LIMIT >> 10} kB: {NEXT}"
        )


def longest_literal(source: str, place: str) -> tuple[int, int] | None:
    """Return line and bytes of an expression with more literal text than allowed; else None.

    Strings, numbers, and displays, sums and products of them count by their source text. Other
    parts of an expression, such as one name among a list's numbers, do not count.
    """
    tree = parsed(source, place)
    lines = source.replace("\r\n", "\n").replace("\r", "\n").encode().split(b"\n")
    begins = [0]
    for line in lines:
        begins.append(begins[-1] + len(line) + 1)
    literal: dict[ast.AST, int] = {}  # bytes of literals in each
    pure: set[ast.AST] = set()
    for node in reversed(list(ast.walk(tree))):  # parts before the whole
        if isinstance(node, (ast.stmt, ast.mod)):
            continue
        parts = [p for p in ast.iter_child_nodes(node) if not isinstance(p, ast.stmt)]
        literal[node] = sum(literal[part] for part in parts)
        built = isinstance(node, BUILT) and all(p in pure for p in parts if isinstance(p, ast.expr))
        if isinstance(node, ast.expr) and (built or type(node).__name__ in WHOLE):
            pure.add(node)
            literal[node] = _length(node, begins)
        if literal[node] > LITERAL_LIMIT and hasattr(node, "lineno"):
            return node.lineno, literal[node]
    return None


def _length(node: ast.expr, begins: list[int]) -> int:
    """Return the bytes of an expression's text; `begins` is the byte offset of each line."""
    last, column = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
    return begins[last - 1] + column - begins[node.lineno - 1] - node.col_offset


def check_told(entry: MethodEntry) -> None:
    """Check that what a record says of its method is plain text and consistent.

    Raises:
        RecordError: naming the place, the value and the rule.
    """
    if why := file_names.reserved(entry.name):
        raise RecordError(f"method.name: {entry.name} {why}; give the method another name")
    check_table("method.described", entry.described)
    check_table("method.options", entry.options)
    for key, value in entry.described.items():
        check_plain("method.described", key, value)
        if key not in DESCRIBED:
            raise RecordError(
                f"method.described.{key}: METHOD has no such key; it has {', '.join(DESCRIBED)}"
            )
    if entry.described.get("name", entry.name) != entry.name:
        raise RecordError("method.described.name: is not the method's name; they must be equal")


def check_says(entry: MethodEntry, source: Declared) -> None:
    """Check that a record describes its method as the method's source does.

    Raises:
        RecordError: naming the place, and what the source has there.
    """
    own = source.described.get("name", entry.name)
    if entry.name != own:
        raise RecordError(f"method.name: {entry.name}, but its source's METHOD says {own}")
    for key in sorted(entry.described.keys() | source.described.keys()):
        told, said = entry.described.get(key), source.described.get(key)
        if told != said:
            raise RecordError(
                f"method.described.{shown(key)}: {_told(told)}, but its source's METHOD says "
                f"{_told(said)}"
            )
    for key in sorted(entry.options.keys() | source.options.keys()):
        if key not in source.options:
            raise RecordError(f"method.options.{shown(key)}: its source has no such option")
        if key not in entry.options:
            raise RecordError(f"method.options: no {shown(key)}, which its source has")
        if type(entry.options[key]) is not type(source.options[key]):
            kind = type(source.options[key]).__name__
            raise RecordError(
                f"method.options.{shown(key)}: {_told(entry.options[key])}, but its source wants "
                f"{kind}"
            )


def check_shipped(entry: MethodEntry) -> None:
    """Check a record alone likewise, if its source is that of a shipped baseline.

    Raises:
        RecordError: naming the place, and what the source has there.
    """
    files = sorted(shipped("baselines").glob("*.py"))
    stamps = tuple((str(file), file.stat().st_mtime_ns) for file in files)
    known = _baselines(stamps).get(entry.digest)
    if known is not None:
        check_says(entry, known)


@lru_cache(maxsize=4)
def _baselines(stamps: tuple[tuple[str, int], ...]) -> dict[str, Declared]:
    """Return what each baseline's source says, by digest; reread when a file changes."""
    sources = [Path(path).read_bytes() for path, _ in stamps]
    places = [Path(path).name for path, _ in stamps]
    return {digest(s): declared(s.decode(), p) for s, p in zip(sources, places, strict=True)}


def _told(value: object) -> str:
    return "nothing" if value is None else shown(repr(value), 60)
