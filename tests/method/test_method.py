"""A method's file is read as text: its options, its description, its digest."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from lthbench.errors import MethodError, UsageError
from lthbench.io.paths import shipped
from lthbench.method import source as methods
from lthbench.method.publishable import check_source
from lthbench.method.source import Method, baseline_names, load_method
from lthbench.method.template import new

OPTIONS = (
    '"""Prune what is small.\n\nThe rest of it."""\n'
    "def find_tickets(problem, *, rate: float = 1, rounds: int = 3, deep=True, rule='global'):\n"
    "    yield\n"
)
BARE = "def find_tickets(problem):\n    return []\n"


def load(folder: Path, text: str, settings: dict[str, str] | None = None) -> Method:
    path = folder / "mine.py"
    path.write_text(text)
    return load_method(str(path), settings)


def refused(folder: Path, text: str, settings: dict[str, str] | None = None) -> str:
    with pytest.raises((MethodError, UsageError)) as caught:
        load(folder, text, settings)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said.replace(str(folder), "")) < 200
    return said.replace(str(folder / "mine.py"), "mine.py")


# --- options ---------------------------------------------------------------------------------


def test_keyword_only_parameters_are_options(tmp_path: Path) -> None:
    found = load(tmp_path, OPTIONS)
    assert found.options == {"rate": 1.0, "rounds": 3, "deep": True, "rule": "global"}
    assert [type(value) for value in found.options.values()] == [float, int, bool, str]
    assert (found.name, found.summary) == ("mine", "Prune what is small.")
    assert load(tmp_path, BARE).options == {}


def test_settings_take_the_type_of_the_default(tmp_path: Path) -> None:
    given = {"rate": "1e-1", "rounds": "-7", "deep": "FALSE", "rule": "True"}
    found = load(tmp_path, OPTIONS, given).options
    assert found == {"rate": 0.1, "rounds": -7, "deep": False, "rule": "True"}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("rate", "fast", "--set rate=fast: the option wants float"),
        ("rate", "nan", "--set rate=nan: the option wants float"),
        ("rate", "1e999", "--set rate=1e999: the option wants float"),
        ("rounds", "2.5", "--set rounds=2.5: the option wants int"),
        ("deep", "1", "--set deep=1: the option wants true or false"),
        ("rat", "1", "--set rat: mine.py has no such option (did you mean rate?)"),
        ("colour", "1", "has no such option; it has rate, rounds, deep, rule"),
    ],
)
def test_a_wrong_setting_is_named(name: str, text: str, words: str, tmp_path: Path) -> None:
    assert words in refused(tmp_path, OPTIONS, {name: text})


def test_a_method_without_options_says_so(tmp_path: Path) -> None:
    assert "has no such option; it has none" in refused(tmp_path, BARE, {"rate": "1"})


@pytest.mark.parametrize(
    "parameter",
    ["rate", "rate=None", "rate=1/3", "rate=[0.1]", "rate=1e999", "rate: float='fast'", "rate=f()"],
)
def test_a_default_is_a_plain_value(parameter: str, tmp_path: Path) -> None:
    """The harness must know it without running the file, and a record must hold it."""
    text = f"\n\ndef find_tickets(problem, *,\n    {parameter}):\n    yield\n"
    said = refused(tmp_path, text)
    assert said.startswith("mine.py:4: option rate needs a default that is a number, a string")


# --- description -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "METHOD = dict(name='mine-2', paper='arXiv:1')",
        "METHOD = {'name': 'mine-2', 'paper': 'arXiv:1'}",
    ],
)
def test_a_method_describes_itself(text: str, tmp_path: Path) -> None:
    found = load(tmp_path, f"{BARE}{text}\n")
    assert found.name == "mine-2"
    assert found.described == {"name": "mine-2", "paper": "arXiv:1"}


@pytest.mark.parametrize(
    "value",
    [
        "dict(nme='x')",
        "{'name': 3}",
        "dict(**other)",
        "'imp'",
        "{1: 'x'}",
        f"dict(paper={'x' * 401!r})",
    ],
)
def test_a_wrong_description_is_named(value: str, tmp_path: Path) -> None:
    said = refused(tmp_path, f"{BARE}METHOD = {value}\n")
    assert said.startswith("mine.py:3: METHOD must hold strings")


@pytest.mark.parametrize("name", ["../other", "", "a b", "é", ".hidden", "x" * 62])
def test_a_name_is_one_that_folders_and_records_take(name: str, tmp_path: Path) -> None:
    """Told before hours of training, not after."""
    said = refused(tmp_path, f"{BARE}METHOD = dict(name={name!r})\n")
    assert said.startswith(f"mine.py: the name {name!r} needs a letter or digit")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("METHOD = {'name': 'a'}\nMETHOD = {'name': 'b'}\n", "mine.py:4: METHOD is there twice"),
        ("METHOD: dict = {'name': 'a'}\nMETHOD |= {}\n", "mine.py:4: METHOD is there twice"),
        ("METHOD = other(name='a')\n", "mine.py:3: METHOD must hold strings"),
        ("METHOD = dict([], name='a')\n", "mine.py:3: METHOD must hold strings"),
        ("METHOD = {[]: 'a'}\n", "mine.py:3: METHOD must hold strings"),
    ],
)
def test_a_description_is_what_a_reader_sees(text: str, words: str, tmp_path: Path) -> None:
    """One table of strings, in whatever way it is assigned."""
    assert refused(tmp_path, BARE + text).startswith(words)
    assert load(tmp_path, f"{BARE}METHOD: dict = {{'name': 'a'}}\n").name == "a"


# --- what is no store of tickets -------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "x = '{}'", "x = b'{}'", "x = f'{}{{x}}'", "x = ['{}']", "x = ('{}', 1)", "x = 0x{}",
        "x = {{'a': '{}'}}", "x = {{'{}'}}", "x = -0x{}", "x = '{}' % ()", "def f(a='{}'): ...",
        "x = '''{}'''", '"""{}"""', "class A:\n    def f(self):\n        return '{}'",
        "match x:\n    case '{}': ...", "x: '{}' = 1", "f('{}')", "@f('{}')\ndef g(): ...",
        "[1 for i in '{}']", "lambda: '{}'", "del x['{}']", "x = f'{{x:{}}}'",
    ],
)  # fmt: skip
def test_a_store_of_tickets_is_no_source(text: str) -> None:
    """A literal of more than 4 kB, wherever it stands; the line says where, and how large."""
    check_source("\n" + text.format("1" * 4000), "mine.py")
    said = r"^mine\.py:[234]: a literal of 4,2\d\d bytes; at most 4 kB: a method computes"
    with pytest.raises(MethodError, match=said):
        check_source("\n" + text.format("1" * 4200), "mine.py")


@pytest.mark.parametrize(
    "text",
    [
        f"x = [{'1, ' * 2000}]", f"x = ({'1, ' * 2000})", f"x = {{{'1, ' * 2000}}}",
        f"x = {{{'1: 2, ' * 2000}}}", f"x = [\n{'1,' * 10}\n{'1, ' * 2000}]",
        f"x = [{'(1, -2), ' * 600}]", f"x = [y, {'1111111, ' * 600}]",
        f"x = '{'a' * 2500}' '{'b' * 2500}'", f"x = '{'a' * 2500}' + '{'b' * 2500}'",
        f"x = dict(a='{'a' * 2500}', b='{'b' * 2500}')", f"x = '{'é' * 2100}'",
        f"x = [{'[1], ' * 1000}]",
    ],
)  # fmt: skip
def test_many_small_constants_are_a_large_one(text: str) -> None:
    """Displays count by their source text, in bytes; no sum, call or name among them hides any."""
    with pytest.raises(MethodError, match=r"^mine\.py:[12]: a literal of [\d,]+ bytes; at most"):
        check_source(text, "mine.py")


def test_the_size_of_a_source_is_in_bytes() -> None:
    """And its literals, each small, may be many."""
    for whole in ("x = 'a'\r\n" * 7000, "#" * 2**16):
        check_source(whole, "mine.py")
    for larger in ("#" * (2**16 + 1), "#" + "é" * 2**15):
        with pytest.raises(MethodError, match=r"^mine\.py: 65,537 bytes; at most 64 kB: a method"):
            check_source(larger, "mine.py")


@pytest.mark.parametrize("name", baseline_names())
def test_baselines_are_far_below_the_limits(name: str) -> None:
    check_source(load_method(name).source, name)


RESERVED = ("con", "NUL", "aux", "prn", "com1", "LPT9", "com0", "con.v2", "nul.tar.gz", "imp.")


@pytest.mark.parametrize("name", RESERVED)
def test_a_name_that_a_system_reserves_is_refused(name: str, tmp_path: Path) -> None:
    """By METHOD, by the file, and where a file is begun; not what only begins like one."""
    said = refused(tmp_path, f"{BARE}METHOD = dict(name={name!r})\n")
    assert said.startswith(f"mine.py: the name {name!r}") and "Windows" in said
    path = tmp_path / f"{name}.py"
    path.write_text(BARE)
    with pytest.raises(MethodError, match="Windows"):
        load_method(str(path))
    path.write_text(f"{BARE}METHOD = dict(name='mine')\n")
    assert load_method(str(path)).name == "mine"
    with pytest.raises(UsageError, match="Windows"):
        new(tmp_path / "folder" / f"{name}.py")
    assert load(tmp_path, f"{BARE}METHOD = dict(name='con-2')\n").name == "con-2"


def test_a_file_is_not_begun_under_a_name_that_none_can_have(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"needs a letter or digit.*another file"):
        new(tmp_path / "my method.py")


@pytest.mark.parametrize("name", baseline_names())
def test_a_copy_of_a_baseline_names_no_authors_but_the_users(name: str, tmp_path: Path) -> None:
    new(tmp_path / "mine.py", name)
    copy, original = load_method(str(tmp_path / "mine.py")), load_method(name)
    changed = {"name": "mine", "authors": "", "licence": ""}
    assert copy.described == {**original.described, **changed}
    assert copy.source.partition("\n}\n")[2] == original.source.partition("\n}\n")[2]


# --- identity --------------------------------------------------------------------------------


def test_the_digest_is_that_of_the_source_alone(tmp_path: Path) -> None:
    found = load(tmp_path, OPTIONS)
    assert found.digest == sha256(OPTIONS.encode()).hexdigest()
    other = tmp_path / "other.py"
    other.write_text(OPTIONS)
    moved = load_method(str(other), {"rate": "0.5"})
    assert moved.digest == found.digest
    assert moved.identity != found.identity
    assert load_method(str(other)).identity == found.identity
    assert load(tmp_path, f"{OPTIONS}\n").digest != found.digest


def test_nothing_of_the_file_is_executed(tmp_path: Path) -> None:
    """Not its lines, nor its defaults, decorators, annotations and imports."""
    trace = tmp_path / "trace"
    text = (
        f"import pathlib\npathlib.Path({str(trace)!r}).touch()\n"
        "import a_package_that_nobody_has\n"
        "raise SystemExit(1)\n"
        "def touch(*a, **k): return 1/0\n"
        "@touch()\ndef find_tickets(problem: touch(), *, rate: float = 0.5) -> touch():\n"
        "    yield\n"
        "class Broken(metaclass=touch): pass\n"
    )
    assert load(tmp_path, text).options == {"rate": 0.5}
    assert not trace.exists()


# --- what is no method -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def find_tickets(problem)\n    yield\n", "mine.py:1: SyntaxError: expected ':'"),
        ("x = 1\n\ny = (\n", "mine.py:3: SyntaxError: '(' was never closed"),
        ("def find_tickets(problem):\nyield\n", "mine.py:2: IndentationError: "),
        (BARE + "x = 'a\0b'\n", "SyntaxError: source code string cannot contain null bytes"),
        (f"{BARE}x = {'-' * 100_000}1\n", "mine.py:"),
        ("", "mine.py: no find_tickets; define `def find_tickets(problem):`"),
        ("def find_ticket(problem): yield\n", "no find_tickets; define"),
        ("class A:\n    def find_tickets(self): yield\n", "no find_tickets; define"),
    ],
)
def test_a_file_that_is_no_method(text: str, words: str, tmp_path: Path) -> None:
    assert words in refused(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    ["from other import find_tickets\n", "find_tickets = make()\n", "find_tickets: object = 1\n",
     "import other as find_tickets\n", "class find_tickets: pass\n"],
)  # fmt: skip
def test_any_callable_of_that_name_will_do(text: str, tmp_path: Path) -> None:
    assert load(tmp_path, text).options == {}


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(MethodError, match="cannot be read as text"):
        load_method(str(path))


def test_a_file_with_a_byte_order_mark_is_valid_python(tmp_path: Path) -> None:
    """Its digest is that of its bytes, the mark's included; a child runs it too."""
    from lthbench.method.child import _load

    path = tmp_path / "mine.py"
    data = b"\xef\xbb\xbf" + OPTIONS.replace("\n", "\r\n").encode()
    path.write_bytes(data)
    found = load_method(str(path))
    assert found.options["rounds"] == 3 and found.summary == "Prune what is small."
    assert found.digest == sha256(data).hexdigest()
    assert found.source.encode() == data
    assert callable(_load(found.source, found.path)["find_tickets"])
    path.write_bytes(b"\xef\xbb\xbf" + data)  # two of them are none
    with pytest.raises(MethodError, match=r"mine\.py:1: SyntaxError"):
        load_method(str(path))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """No bundle takes it, and no child could be sent it."""
    path = tmp_path / "mine.py"
    path.write_text(BARE + "#" * (methods.SOURCE_LIMIT - len(BARE)))
    assert load_method(str(path)).options == {}
    with path.open("ab") as file:
        file.truncate(300 * 10**6)
    began = process_time()
    with pytest.raises(MethodError, match=r"mine\.py: 300,000,000 bytes; a method's file has at"):
        load_method(str(path))
    assert process_time() - began < 0.5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent.py", "absent.py: no such file; name a .py file or a baseline"),
        ("folder/absent", "folder/absent: no such file"),
        ("imb", "no baseline 'imb' and no such file (did you mean imp?)"),
        ("zzz", "no baseline 'zzz' and no such file; `lthbench baselines` lists them"),
        (".", ".: no such file"),
    ],
)
def test_a_method_that_is_not_there(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MethodError) as caught:
        load_method(name)
    assert str(caught.value).startswith(words)


def test_a_baseline_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("imp").write_text(BARE)  # a file of that name hides nothing
    found = load_method("imp", {"rate": "0.5"})
    assert found.path == str(shipped("baselines") / "imp.py")
    assert found.options == {"rate": 0.5}
    assert {"imp", "erk"} <= set(baseline_names())


def test_what_a_record_takes_of_a_method() -> None:
    """The two modules agree on names and descriptions without importing each other."""
    from lthbench.io import file_names
    from lthbench.leaderboard.bundle import archive
    from lthbench.records.schema import MethodEntry

    fields: dict[str, Any] = MethodEntry.model_json_schema()["properties"]
    assert fields["name"]["pattern"] == f"^{file_names.METHOD.pattern}$"
    assert methods.SOURCE_LIMIT == archive.SOURCE_LIMIT
    assert fields["described"]["additionalProperties"]["maxLength"] == methods.LONGEST
