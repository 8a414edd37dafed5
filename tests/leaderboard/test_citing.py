"""citation.cite: citations that BibTeX, YAML and readers take, whatever strangers are called."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthbench.errors import LthbenchError, RecordError, TaskError, UsageError
from lthbench.io import paths
from lthbench.leaderboard.board import entries
from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.citation import formats, works
from lthbench.leaderboard.citation.cite import (
    FORMATS,
    cite,
    of_benchmark,
    of_data,
    of_entry,
    of_task,
)
from lthbench.leaderboard.citation.works import DATA, Author, Work
from lthbench.protocol.task import load_task, task_names
from tests.boards import board_record, entry_of

yaml = pytest.importorskip("yaml")  # of another package's; lthbench itself needs none
ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "</script>\u202eRTL\n\x1b[31m{}}|&%$#_~^\\\"'@ø and é\ufeff\U0001f600"

# Of the schema of CFF 1.2.0: what a file, and what a reference, must and may have.
FILE = {"cff-version", "message", "type", "title", "authors", "version", "doi", "url",
        "identifiers", "abstract", "license", "keywords", "references"}  # fmt: skip
REFERENCE = {"type", "title", "authors", "version", "doi", "url", "identifiers", "year", "journal",
             "conference", "institution", "publisher", "volume", "issue", "start", "end",
             "notes"}  # fmt: skip
KINDS = {"article", "conference-paper", "report", "data", "software"}


def entry(**changes: Any) -> Entry:
    return entry_of(board_record("mlp-modadd59", 1), **changes)


def described(**words: str) -> Entry:
    """An entry whose method says these things of itself."""
    found = entry()
    method = found.record.method.model_copy(update={"described": words})
    return replace(found, record=found.record.model_copy(update={"method": method}))


# A reader of BibTeX, as strict as BibTeX itself is


def bibtex(text: str) -> dict[str, dict[str, str]]:
    """Entries by their keys; fails where braces do not close or something is left over."""
    found: dict[str, dict[str, str]] = {}
    at = 0
    while at < len(text):
        if text[at] == "\n":
            at += 1
            continue
        head = re.compile(r"@([a-z]+)\{([A-Za-z0-9-]+),\n").match(text, at)
        assert head, text[at : at + 80]
        at, fields = head.end(), {"type": head[1]}
        while text[at] != "}":
            start = re.compile(r"  ([a-z]+) = \{").match(text, at)
            assert start, text[at : at + 80]
            depth, end = 1, start.end()
            while depth:
                depth += {"{": 1, "}": -1}.get(text[end], 0)
                end += 1
            fields[start[1]] = text[start.end() : end - 1]
            assert text[end : end + 2] == ",\n"
            at = end + 2
        assert head[2] not in found
        found[head[2]] = fields
        at += 2
    return found


def unescaped(value: str) -> list[str]:
    """Characters that LaTeX would act on, besides the commands that we write."""
    ours = r"\\[&%$#_]|\\[a-zA-Z]+\{\}|\{\\[a-zA-Z]+\}|\$(?:-|\\[a-z]+)\$"
    ours += r"|\\[`'^=.\"~]|\\[uvHdckr](?=\{)"  # accents
    return re.findall(r"[\\&%$#_^]", re.sub(ours, "", value))


def cff(text: str) -> dict[str, Any]:
    """A CFF document, its keys and types checked against the schema's."""
    table = yaml.safe_load(text)
    assert table["cff-version"] == "1.2.0" and set(table) <= FILE
    assert {"message", "title", "authors"} <= set(table)
    assert table.get("type", "software") in ("software", "dataset")
    for reference in table.get("references", []):
        assert set(reference) <= REFERENCE and {"type", "title", "authors"} <= set(reference)
        assert reference["type"] in KINDS
    for one in (table, *table.get("references", [])):
        assert one["authors"]
        for author in one["authors"]:
            assert set(author) in ({"name"}, {"family-names", "given-names"})
            assert all(isinstance(name, str) and name for name in author.values())
        for identifier in one.get("identifiers", []):
            assert set(identifier) == {"type", "value", "description"}
        assert isinstance(one.get("version", ""), str)
        assert isinstance(one.get("year", 0), int)
    return dict(table)


# The benchmark


def test_the_citation_file_is_the_single_source() -> None:
    """Our reader of a little YAML reads it as a reader of all of it does."""
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert of_benchmark("cff") == text
    whole, (scalars, lists) = cff(text), works.parse(text)
    assert scalars == {k: v for k, v in whole.items() if isinstance(v, str)}
    assert lists["authors"] == whole["authors"]
    assert [item[""] for item in lists["keywords"]] == whole["keywords"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    benchmark = works.benchmark()
    assert benchmark.version == project["version"] and whole["license"] == project["license"]
    assert [author.name for author in benchmark.authors] == [a["name"] for a in project["authors"]]
    (told,) = bibtex(of_benchmark()).values()
    assert told["title"] == f"{{{whole['title']}}}" and told["version"] == project["version"]


def test_persons_dates_and_addresses_are_read_too() -> None:
    scalars, lists = works.parse(
        'title: "a: b"\ndate-released: 2026-01-02\n# none\n\nauthors:\n  - family-names: Noone\n'
        "    given-names: Barbara\n  - name: A group\n"
    )
    assert scalars == {"title": "a: b", "date-released": "2026-01-02"}
    assert lists["authors"] == [
        {"family-names": "Noone", "given-names": "Barbara"}, {"name": "A group"},
    ]  # fmt: skip


def test_an_installed_package_finds_it_in_its_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a checkout there is no file beside the package."""

    class Installed:
        def read_text(self, name: str) -> str | None:
            return "title: here\n" if name == "extra_metadata/CITATION.cff" else None

    monkeypatch.setattr(works, "PACKAGE", tmp_path / "lthbench")
    monkeypatch.setattr(metadata, "distribution", lambda _: Installed())
    assert works.citation_file() == "title: here\n"
    monkeypatch.setattr(Installed, "read_text", lambda *_: None)
    with pytest.raises(LthbenchError, match="install lthbench again"):
        works.citation_file()


# Tasks and data


def test_every_source_of_data_is_cited() -> None:
    """A task with a new source needs its citation."""
    assert {load_task(name).data.source for name in task_names()} <= set(DATA)
    found = [work for several in DATA.values() for work in several]
    assert len({work.key for work in found}) == len(found)
    for work in found:
        assert work.authors and work.year and work.where
        assert work.doi or work.arxiv or work.url or work.kind in ("article", "report")


@pytest.mark.parametrize("name", task_names())
def test_a_task_is_cited_with_the_benchmark_and_its_data(name: str) -> None:
    task = load_task(name)
    keys = [f"lthbench-{name}", "lthbench", *(work.key for work in DATA[task.data.source])]
    told = bibtex(of_task(name))
    assert list(told) == keys
    assert task.digest in told[keys[0]]["note"]
    table = cff(of_task(name, "cff"))
    assert len(table["references"]) == len(keys) - 1
    assert table["identifiers"][0]["value"] == f"sha256:{task.digest}"
    assert of_task(name, "text").count("\n\n") == len(keys) - 1


def test_all_data_sets_are_cited_once() -> None:
    found = [work for several in DATA.values() for work in several]
    assert list(bibtex(of_data())) == [work.key for work in found]
    assert [one["title"] for one in cff(of_data("cff"))["references"]] == [w.title for w in found]
    mnist = bibtex(of_data())["lecun1998gradient"]
    assert mnist["author"].startswith(r"LeCun, Yann and Bottou, L{\'{e}}on and ")
    assert (mnist["type"], mnist["pages"], mnist["volume"]) == ("article", "2278--2324", "86")
    assert mnist["doi"] == "10.1109/5.726791"
    paragraph = of_data("text").split("\n\n")[0]
    assert paragraph == (
        "Yann LeCun, Léon Bottou, Yoshua Bengio and Patrick Haffner. Gradient-based learning "
        "applied to document recognition. Proceedings of the IEEE 86(11), pages 2278 to 2324, "
        "1998. doi:10.1109/5.726791."
    )


# Entries


def test_an_entry_is_cited_with_its_digest_level_and_line() -> None:
    found = entry(number=12, level=3)
    told = bibtex(of_entry(found))[f"lthbench-{found.id.replace('--', '-')}"]
    assert told["author"] == "{A. Nobody and B. Noone}"
    assert told["title"] == "{grasp-0001 on mlp-modadd59}"
    assert found.digest in told["note"] and found.record.method.digest in told["note"]
    assert "accepted at line 12 of the ledger, level 3 reproduced" in told["note"]
    assert "Wang et al. 2020, arXiv:2002.07376" in told["note"]
    assert told["howpublished"] == "lthbench 0.1.0"
    table = cff(of_entry(found, "cff"))
    assert table["type"] == "dataset" and table["version"] == found.digest[:8]
    assert table["references"][0]["title"] == works.benchmark().title
    assert f"Entry {found.id} of the leaderboard of lthbench" in of_entry(found, "text")


def test_what_the_ledger_says_of_an_entry_is_part_of_its_citation() -> None:
    assert "not accepted yet" in of_entry(entry(state="listed"), "text")
    replaced = replace(entry(level=2), state="superseded", of="snip--12345678")
    assert "level 2 retrained, superseded by snip--12345678" in of_entry(replaced, "text")
    line = {"n": 9, "act": "retract", "why": "a bug in its search"}
    gone = replace(entry(), state="retracted")
    gone = replace(gone, lines=(*gone.lines, line))
    for form in FORMATS:
        assert "RETRACTED at line 9 of the ledger: a bug in its search" in of_entry(gone, form)
    refuted = replace(entry(), challenges=({}, {}))
    assert "challenged 2 times" in of_entry(refuted, "text")


def test_who_made_a_method_is_never_guessed() -> None:
    told = bibtex(of_entry(described()))
    assert next(iter(told.values()))["author"] == "{The authors of grasp-0001}"
    code = described(authors="Ann", code="https://example.org/x_y", version="1.2", paper="P")
    assert next(iter(bibtex(of_entry(code)).values()))["url"] == "https://example.org/x_y"
    assert "method grasp-0001 (1.2); P" in of_entry(code, "text")
    for form in FORMATS:
        assert "authors as the method's source names them, unchecked" in of_entry(code, form)
        assert "unchecked" not in of_entry(described(), form)
    other = described(code="javascript:alert(1)")
    assert "url" not in next(iter(bibtex(of_entry(other)).values()))
    assert "code: javascript:alert(1)" in of_entry(other, "text")


@pytest.mark.parametrize("form", FORMATS)
def test_hostile_descriptions_stay_text(form: str) -> None:
    words = dict.fromkeys(("authors", "paper", "code", "version"), HOSTILE)
    said = of_entry(described(**words), form)
    assert "\u202e" not in said and "\x1b" not in said and "\ufeff" not in said
    if form == "cff":
        assert "<U+202E>RTL" in cff(said)["authors"][0]["name"]
    if form == "bibtex":
        author = next(iter(bibtex(said).values()))["author"]
        assert r"\textless{}U+202E\textgreater{}RTL" in author and r"{\'{e}}" in author
        assert r"\textbraceleft{}" in author and unescaped(author) == []


@given(st.text(max_size=60).filter(str.strip), st.text(max_size=60))
def test_any_name_is_one_field_of_bibtex(name: str, given_: str) -> None:
    """Braces close, nothing acts, and what stands behind is read as before."""
    work = Work("k", "software", (Author(name, given_), Author("Z")), name, 2000, note=given_)
    (told,) = bibtex(formats.bibtex([work])).values()
    assert told["author"].endswith(" and {Z}") and told["year"] == "2000"
    assert told["title"].startswith("{") and told["title"].endswith("}")
    for value in told.values():
        assert unescaped(value) == [] and "\n" not in value


@given(st.text(max_size=60).filter(str.strip), st.text(max_size=60))
def test_any_name_is_one_string_of_yaml(name: str, given_: str) -> None:
    """What YAML reads back is the text as it is shown."""
    from lthbench.report.formats import plain

    work = Work("k", "data", (Author(name, given_),), name, 2000, name, note=given_)
    table = cff(formats.cff(work, name, [work]))
    assert table["title"] == table["message"] == plain(name, formats.LIMIT)
    (author,) = table["references"][0]["authors"]
    assert plain(name, formats.LIMIT) in author.values()
    assert table["references"][0]["publisher"]["name"] == plain(name, formats.LIMIT)


@given(st.text(max_size=60))
def test_any_name_is_one_line_of_text(name: str) -> None:
    work = Work("k", "software", (Author(name), Author("Z")), name)
    assert formats.text([work]).count("\n") == 1


@given(st.text(max_size=60))
def test_a_key_is_letters_digits_and_hyphens(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", formats.key(name))


@given(st.text(max_size=60))
def test_an_address_cannot_end_its_field(address: str) -> None:
    assert not set(formats.address(address)) & set('{}\\" \n')


def test_letters_are_kept() -> None:
    """As LaTeX commands where there are some, else as they are."""
    assert formats.tex("Łukasz Øystein Čech Ğüneş") == (
        r"{\L}ukasz {\O}ystein {\v{C}}ech {\u{G}}{\"{u}}ne{\c{s}}"
    )
    assert formats.tex("李雷") == "李雷"
    assert formats.tex("\uff5b\ufe6a\uff3c") == r"\textbraceleft{}\%\textbackslash{}"
    assert formats.tex('a_b {c} "d" <e>') == (
        r"a\_b \textbraceleft{}c\textbraceright{} ''d'' \textless{}e\textgreater{}"
    )


# The command


def test_the_command_finds_what_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = entries.load().entries[0]
    assert cite(shipped.id) == of_entry(shipped) == cite(entry=shipped.digest[:8])
    assert cite(task="mlp-digits", format="cff") == of_task("mlp-digits", "cff")
    assert cite(data=True) == of_data()
    assert cite() == of_benchmark() and cite(format="cff") == of_benchmark("cff")


def test_what_cannot_be_cited_is_told() -> None:
    with pytest.raises(UsageError, match="--format 'apa': is none of bibtex, cff, text"):
        cite(format="apa")
    with pytest.raises(UsageError, match="--entry and --data: name one of them"):
        cite("imp", data=True)
    with pytest.raises(TaskError, match="no task 'mlp-digit'"):
        cite(task="mlp-digit")
    with pytest.raises(RecordError, match="no entry 'nobody'"):
        cite("nobody")
    assert paths.PACKAGE.name == "lthbench"
