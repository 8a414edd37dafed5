"""A method's file parsed to its source, options and digest, as text: nothing is run here."""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lthbench.errors import MethodError, UsageError, nearest
from lthbench.io import file_names
from lthbench.io.paths import canonical_json, digest, shipped
from lthbench.io.visible_text import unmarked

DESCRIBED = ("name", "version", "paper", "authors", "licence", "code")
LONGEST = 400  # characters of a description
Option = bool | int | float | str
SOURCE_LIMIT = 2**20  # bytes of a file; the limit of a bundle


@dataclass(frozen=True)
class Method:
    """A method as loaded: its source, and the options it takes and was given."""

    name: str
    path: str
    source: str
    options: Mapping[str, Option]
    described: Mapping[str, str] = field(default_factory=dict)
    summary: str = ""
    carries: bool = False  # whether it has its own transfer_ticket

    @property
    def digest(self) -> str:
        """The sha256 of the source."""
        return digest(self.source.encode())

    @property
    def identity(self) -> str:
        """The sha256 of source and options: what results belong to."""
        return digest(canonical_json({"source": self.digest, "options": dict(self.options)}))


def baseline_names() -> tuple[str, ...]:
    """Return the names of all baselines that ship with the package."""
    return tuple(sorted(path.stem for path in shipped("baselines").glob("*.py")))


@dataclass(frozen=True)
class Declared:
    """What a source says of its method.

    Attributes:
        described: METHOD.
        options: with their defaults.
    """

    described: Mapping[str, str]
    options: Mapping[str, Option]
    summary: str
    carries: bool


def load_method(name: str, settings: Mapping[str, str] | None = None) -> Method:
    """Load a method by its file's path or a baseline's name, with options set from strings."""
    path = _find(name)
    source = _text(path)
    found = declared(source, str(path))
    own = found.described.get("name", path.stem)
    if why := file_names.fault(own):
        raise MethodError(f"{path}: the name {own!r} {why}; rename the file or name it in METHOD")
    options = _with_settings(dict(found.options), settings or {}, path)
    return Method(own, str(path), source, options, found.described, found.summary, found.carries)


def declared(source: str, place: str) -> Declared:
    """Return what a source says of its method; `place` is what errors call it.

    Raises:
        MethodError: for a source that is not a method.
    """
    tree = parsed(source, place)
    bound = _bound(tree)
    if "find_tickets" not in bound:
        raise MethodError(
            f"{place}: no find_tickets; define `def find_tickets(problem):` that yields tickets "
            "(`lthbench new` writes an example)"
        )
    options, carries = _options(tree, place), "transfer_ticket" in bound
    return Declared(_described(tree, place), options, _summary(tree), carries)


def parsed(source: str, place: str) -> ast.Module:
    """Parse a source; MethodError if it is not Python."""
    try:
        with warnings.catch_warnings():  # about escapes, which the child's output repeats
            warnings.simplefilter("ignore")
            return ast.parse(unmarked(source), place)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        said = getattr(error, "msg", None) or str(error) or "too deeply nested"
        raise MethodError(f"{place}:{line}: {type(error).__name__}: {said}") from error


def _find(name: str) -> Path:
    if name in baseline_names():
        return shipped("baselines") / f"{name}.py"
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir() or path.suffix == ".py" or len(path.parts) > 1:
        raise MethodError(f"{name}: no such file; name a .py file or a baseline")
    hint = nearest(name, baseline_names()) or "; `lthbench baselines` lists them"
    raise MethodError(f"no baseline {name!r} and no such file{hint}")


def _text(path: Path) -> str:
    """Read a file's text, exactly as its digest covers it, up to the limit of a bundle."""
    try:
        size = path.stat().st_size
        if size > SOURCE_LIMIT:
            raise MethodError(
                f"{path}: {size:,} bytes; a method's file has at most {SOURCE_LIMIT:,}: take out "
                "what is no source"
            )
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise MethodError(f"{path}: cannot be read as text ({error})") from error


def _bound(tree: ast.Module) -> set[str]:
    """Return names bound at the top level: functions, classes, assignments, imports."""
    bound: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            bound.update(t.id for t in targets if isinstance(t, ast.Name))
    return bound


def _options(tree: ast.Module, place: str) -> dict[str, Option]:
    """Return find_tickets' keyword-only parameters and their defaults, which must be literals."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    functions = [function for function in functions if function.name == "find_tickets"]
    if not functions:
        return {}
    arguments = functions[-1].args
    options = {}
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        try:
            value = ast.literal_eval(default) if default is not None else None
            annotated = argument.annotation.id if isinstance(argument.annotation, ast.Name) else ""
            value = float(value) if annotated == "float" and value is not None else value
        except (ValueError, TypeError, OverflowError):
            value = None
        if not isinstance(value, (bool, int, float, str)) or not _finite(value):
            raise MethodError(
                f"{place}:{argument.lineno}: option {argument.arg} needs a default that is a "
                "number, a string, True or False"
            )
        options[argument.arg] = value
    return options


def _with_settings(
    options: dict[str, Option], settings: Mapping[str, str], path: Path
) -> dict[str, Option]:
    for name, text in settings.items():
        if name not in options:
            known = f"; it has {', '.join(options)}" if options else "; it has none"
            raise UsageError(
                f"--set {name}: {path.name} has no such option{nearest(name, options) or known}"
            )
        options[name] = _parsed(name, text, type(options[name]))
    return options


def _parsed(name: str, text: str, kind: type[Option]) -> Option:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        value = kind(text)
        if _finite(value):
            return value
    except (ValueError, KeyError):
        pass
    wanted = "true or false" if kind is bool else f"{kind.__name__}"
    raise UsageError(f"--set {name}={text}: the option wants {wanted}")


def _finite(value: object) -> bool:
    """Return whether a value contains no infinite or undefined number, which no record can hold."""
    return not isinstance(value, float) or math.isfinite(value)


def _described(tree: ast.Module, place: str) -> dict[str, str]:
    """Return METHOD = dict(name=…, paper=…, …), if the file has it; literals only."""
    found = [(node, value) for node in tree.body if (value := _method_of(node)) is not None]
    if len(found) > 1:  # which of them counts is for a reader to see, not for a rule to say
        raise MethodError(f"{place}:{found[1][0].lineno}: METHOD is there twice; keep one")
    for node, value in found:
        try:
            if isinstance(value, ast.Call):
                table = {str(k.arg): ast.literal_eval(k.value) for k in value.keywords}
                ok = isinstance(value.func, ast.Name) and value.func.id == "dict" and not value.args
            else:
                table = ast.literal_eval(value)
                ok = True
            ok = ok and all(
                k in DESCRIBED and isinstance(v, str) and len(v) <= LONGEST
                for k, v in table.items()
            )
        except (ValueError, AttributeError, TypeError, RecursionError, MemoryError):
            ok = False
        if not ok:
            raise MethodError(
                f"{place}:{node.lineno}: METHOD must hold strings of at most {LONGEST} "
                f"characters under {', '.join(DESCRIBED)}"
            )
        return dict(table)
    return {}


def _method_of(node: ast.stmt) -> ast.expr | None:
    """Return what a statement assigns to METHOD; None if nothing."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
        targets = [node.target]
    named = any(isinstance(t, ast.Name) and t.id == "METHOD" for t in targets)
    return node.value if named else None  # type: ignore[attr-defined]


def _summary(tree: ast.Module) -> str:
    """Return the first line of the file's docstring."""
    return (ast.get_docstring(tree) or "").split("\n")[0]
