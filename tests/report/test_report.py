"""report.html: the page holds the record's numbers, whole, and nothing of others does harm."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lthbench.errors import RecordError, ResourceError
from lthbench.io.paths import PACKAGE
from lthbench.records.schema import Record, build, read_record, write_record
from lthbench.report import answers, figures, html, tables
from tests.synthetic import as_table, synthetic_record

SPARSEST = 0.8**23
ATTACK = '"><script>alert(1)</script><!--<img src=x onerror=alert(2)>\u202e\n{{7*7}}'
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """What stands on a page: tables cell by cell, JSON by id, and every element's attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.data: dict[str, Any] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self._id: str | None = None
        self._cell: list[str] | None = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td", "caption"):
            self._cell = []
        elif tag == "script":
            self._id = dict(attrs).get("id")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in ("th", "td") and self._cell is not None:
            self.tables[-1][-1].append("".join(self._cell))
        if tag in ("th", "td", "caption"):
            self._cell = None
        elif tag == "script":
            self._id = None

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            if self._id:
                self.data[self._id] = json.loads(data)
            return
        self.text += data
        if self._cell is not None:
            self._cell.append(data)


def page(*records: Record, folder: Path = Path("nowhere")) -> Page:
    return Page(html.html(folder, records))


def hostile() -> Record:
    """A record whose every free text tries to become markup."""
    bad = {("ticket", SPARSEST, 1): ("missing", ATTACK)}
    record = synthetic_record(
        task={"name": ATTACK}, options={ATTACK[:80]: ATTACK}, described={ATTACK: ATTACK}, bad=bad
    )
    table = json.loads(html.as_json(record))
    for cell in table["cells"]:
        cell["layers"] = {ATTACK: 1} if cell["layers"] else {}
        cell["own_shuffle"] = [ATTACK] if cell["own_shuffle"] else []
    table["environment"] |= {ATTACK: ATTACK[:100]}
    table["times"] |= {ATTACK: ATTACK[:100]}
    table["searches"][0] |= {"status": "failed", "reason": ATTACK}
    return build(table)


# Files


def test_the_report_is_written_whole_beside_its_scripts(tmp_path: Path) -> None:
    path = html.write_report(tmp_path, [synthetic_record(seeds=3)])
    assert path == tmp_path / "report.html"
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"report.html", "assets/plotly.min.js", "assets/figures.js"}
    assert (tmp_path / "assets" / "plotly.min.js").stat().st_size > 1_000_000
    sources = [a["src"] for tag, a in Page(path.read_text(encoding="utf-8")).elements if "src" in a]
    assert sources == ["assets/plotly.min.js", "assets/figures.js"]


def test_a_second_report_writes_no_script_again(tmp_path: Path) -> None:
    """Plotly's script is five megabytes; a damaged one is replaced."""
    record = synthetic_record(seeds=3)
    html.write_report(tmp_path, [record])
    script, own = (tmp_path / "assets" / name for name in ("plotly.min.js", "figures.js"))
    before = script.stat().st_mtime_ns
    own.write_text("")
    first = (tmp_path / "report.html").read_bytes()
    html.write_report(tmp_path, [record])
    assert script.stat().st_mtime_ns == before
    assert own.read_bytes() == (PACKAGE / "report" / "templates" / "figures.js").read_bytes()
    assert (tmp_path / "report.html").read_bytes() == first


def test_no_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no record to report on"):
        html.write_report(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write"):
        html.write_report(tmp_path / "file", [synthetic_record(seeds=2)])


def test_json_is_the_record(tmp_path: Path) -> None:
    """`--json` prints what a record's file holds, and what it leaves out as usual."""
    record = synthetic_record(seeds=2)
    write_record(tmp_path / "record.json", record)
    assert json.loads(html.as_json(record)) == as_table((tmp_path / "record.json").read_bytes())
    assert read_record(tmp_path / "record.json") == record


def test_a_record_beside_the_page_is_linked(tmp_path: Path) -> None:
    """But none that is not there, or whose name would need quoting."""
    record = synthetic_record(seeds=2)
    write_record(tmp_path / record.task.name / "record.json", record)
    links = [a["href"] for tag, a in page(record, folder=tmp_path).elements if tag == "a"]
    assert links == ["lenet300-mnist/record.json"]
    for other in (synthetic_record(kind="area", seeds=2), hostile()):
        assert [tag for tag, _ in page(other, folder=tmp_path).elements if tag == "a"] == []


# What it says


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"kind": "area"},
        {"seeds": 2, "final": False, "controls": "one rung"},
        {"seeds": 1, "reference": False},
        {"division": "rewind", "task": {"schedule": "constant"}},
        {"division": "reference"},
    ],
    ids=lambda kwargs: "-".join(map(str, kwargs)) or "final",
)
def test_every_table_stands_on_the_page(kwargs: dict[str, Any]) -> None:
    """The same cells as in the terminal, and the answers before all of them."""
    record = synthetic_record(**kwargs)
    found = page(record)
    for table in tables.tables(record):
        expected = [list(table.head), *map(list, table.rows)]
        assert expected in found.tables
    texts = [text for a in answers.answers(record) for text in (a.question, a.name, a.value)]
    places = [found.text.index(text) for text in texts if text]
    assert max(places) < found.text.index("Ticket against dense and the controls:")


def test_answers_come_first_for_all_tasks() -> None:
    """With several tasks the first screen tells of each of them."""
    both = [synthetic_record(), synthetic_record(kind="area")]
    text = page(*both).text
    first_table = text.index("Ticket against dense")
    for record in both:
        assert text.index(record.task.name) < first_table
    mean = sum(r.aggregates["retention"]["mean"] for r in both) / 2
    assert f"Mean retention over these 2 tasks: {mean:.2f}" in " ".join(text.split())
    assert "Mean retention" not in page(both[0]).text
    assert "Mean retention" not in page(both[0], synthetic_record(reference=False)).text


def test_warnings_stand_with_the_answers() -> None:
    bad = {("ticket", SPARSEST, 1): ("missing", "no such rung")}
    text = page(synthetic_record(final=False, seeds=3, bad={})).text
    assert text.index("not for publication") < text.index("Ticket against dense")
    text = page(synthetic_record(bad=bad)).text
    assert text.index("1 of 30 tickets missing or failed") < text.index("Ticket against dense")
    assert "no such rung" in text


def test_figures_are_the_records() -> None:
    record = synthetic_record()
    data = page(record).data
    by_name = {t["name"]: t for t in data["task0-density"]["traces"] if "name" in t}
    assert set(by_name) == {"ticket", *tables.CONTROLS, "dense", "reference, 10 seeds"}
    for kind in ("ticket", *tables.CONTROLS):
        means = [100 * rung[kind]["mean"] for rung in record.aggregates["rungs"]]
        assert by_name[kind]["y"] == pytest.approx(means)
        assert by_name[kind]["x"] == pytest.approx([100 * d for d in record.task.ladder])
    assert by_name["dense"]["y"][0] == pytest.approx(100 * record.aggregates["dense"]["mean"])
    bands = [t for t in data["task0-density"]["traces"] if t.get("fill") == "toself"]
    assert len(bands) == 7  # ticket, five controls, dense
    ticket = next(band for band in bands if band["legendgroup"] == "ticket")
    rungs = record.aggregates["rungs"]
    assert ticket["y"][: len(rungs)] == pytest.approx([100 * r["ticket"]["high"] for r in rungs])


def test_the_sparsest_is_at_the_right() -> None:
    axis = page(synthetic_record()).data["task0-density"]["layout"]["xaxis"]
    assert axis["type"] == "log"
    assert axis["range"][0] > axis["range"][1]
    assert axis["ticktext"] == ["51.2", "21.0", "8.59", "3.52", "1.44", "0.59"]
    long = synthetic_record(task={"ladder": [0.8**n for n in range(1, 19)]}, controls="one rung")
    named = page(long).data["task0-density"]["layout"]["xaxis"]["ticktext"]
    assert len(named) <= figures.TICKS
    assert named[-1] == "1.80"


def test_a_rung_of_equal_values_does_not_take_the_band_away() -> None:
    """A rung that is missing for every seed scores chance, without an interval."""
    bad = {("ticket", SPARSEST, seed): ("missing", "no such rung") for seed in range(5)}
    record = synthetic_record(bad=bad)
    assert record.aggregates["rungs"][-1]["ticket"]["low"] is None
    traces = page(record).data["task0-density"]["traces"]
    (band,) = [t for t in traces if t.get("fill") == "toself" and t["legendgroup"] == "ticket"]
    assert band["y"][5] == band["y"][6] == pytest.approx(10.0)


def test_two_seeds_are_points_without_a_band() -> None:
    data = page(synthetic_record(seeds=2)).data["task0-density"]["traces"]
    assert not [trace for trace in data if trace.get("fill")]
    ticket = [t for t in data if t.get("legendgroup") == "ticket" and t["mode"] == "markers"]
    assert len(ticket[0]["y"]) == 12


def test_a_control_on_one_rung_has_its_interval() -> None:
    data = page(synthetic_record(controls="one rung")).data["task0-density"]["traces"]
    erk = next(trace for trace in data if trace.get("name") == "erk")
    assert len(erk["x"]) == 1
    assert erk["error_y"]["array"][0] > 0


def test_training_curves_are_the_cells() -> None:
    record = synthetic_record(kind="area")
    traces = page(record).data["task0-training"]["traces"]
    dense = [t for t in traces if t["name"] == "dense"]
    assert [t["line"]["dash"] for t in dense] == ["dot", "solid"]  # training, then test
    axes = [
        page(synthetic_record(kind=kind)).data["task0-training"]["layout"]["xaxis"]
        for kind in ("area", "accuracy")
    ]
    assert [axis.get("type") for axis in axes] == ["log", None]
    cells = [c for c in record.cells if c.kind == "dense"]
    last = sum(c.correct["test"][-1] for c in cells) / 5 / 1541
    assert dense[1]["y"][-1] == pytest.approx(100 * last)
    assert (dense[1]["x"][0], dense[1]["x"][-1]) == (10, 1000)


def test_a_rewound_ticket_starts_late() -> None:
    """Steps count from the initial weights, as for the scores."""
    record = synthetic_record(division="rewind")
    traces = {t["name"]: t for t in page(record).data["task0-training"]["traces"]}
    assert traces["dense"]["x"][0] == 600
    assert traces["51.2 %"]["x"][0] == 1200
    assert traces["51.2 %"]["x"][-1] == traces["dense"]["x"][-1] == 12000


def test_a_record_without_a_single_ticket_has_a_page() -> None:
    """Every rung missing, and no cell of a ticket at all."""
    record = synthetic_record(seeds=3)
    ladder = record.task.ladder
    bad = {("ticket", d, s): ("missing", "why") for d in ladder for s in range(3)}
    assert "18 of 18 tickets" in page(synthetic_record(seeds=3, bad=bad)).text
    table = json.loads(html.as_json(record))
    table["cells"] = [cell for cell in table["cells"] if cell["kind"] != "ticket"]
    assert "18 of 18 tickets" in page(build(table)).text
    table["cells"] = []
    assert "n/a" in page(build(table)).text


# Safe, alone, readable


def test_nothing_of_others_becomes_markup() -> None:
    """Names, reasons, options: text on the page, in attributes and in the data of figures."""
    harmless = synthetic_record(bad={("ticket", SPARSEST, 1): ("missing", "why")})
    plain, attacked = page(harmless), page(hostile())
    scripts = [a for tag, a in attacked.elements if tag == "script"]
    assert len(scripts) == len([1 for tag, _ in plain.elements if tag == "script"])
    assert {tag for tag, _ in attacked.elements} == {tag for tag, _ in plain.elements}
    assert not [name for _, a in attacked.elements for name in a if name.startswith("on")]
    assert "alert(1)" in attacked.text
    assert "{{7*7}}" in attacked.text
    assert "\u202e" not in html.html(Path("nowhere"), [hostile()])


def test_data_cannot_leave_their_script() -> None:
    text = html.embedded({"a": "</script><!--&\u2028\u2029"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": "</script><!--&\u2028\u2029"}


def test_nothing_comes_from_another_host() -> None:
    """No address on the page or in our script, and a policy that would refuse it."""
    records = [synthetic_record(), synthetic_record(kind="area")]
    text = html.html(Path("nowhere"), records)
    own = (PACKAGE / "report" / "templates" / "figures.js").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|url\(|@import", text)
    assert not re.search(r"https?:|fetch|XMLHttp|import\(", own)
    policy = [a["content"] for t, a in Page(text).elements if "http-equiv" in a]
    assert len(policy) == 1
    assert (policy[0] or "").startswith("default-src 'none'; script-src 'self'; ")


def test_a_method_may_name_an_address() -> None:
    """A paper's address is text, not a link."""
    found = page(synthetic_record(described={"paper": "https://example.org/x"}))
    assert "https://example.org/x" in found.text
    assert not [a for _, a in found.elements if any("example" in (v or "") for v in a.values())]


def test_a_method_is_named_once_in_its_section() -> None:
    record = synthetic_record(described={"name": "mine", "paper": "A paper"})
    assert html.described(record)[:1] == [("paper", "A paper")]
    told = html.described(synthetic_record(described={"authors": "Ann"}))
    assert told[:1] == [("authors (unchecked)", "Ann")]


def test_tables_are_tables() -> None:
    """A caption each, scopes on heads, and a box that scrolls and can be reached by keyboard."""
    found = page(synthetic_record(), synthetic_record(kind="area"))
    tags = [tag for tag, _ in found.elements]
    assert tags.count("table") == tags.count("caption") == len(found.tables)
    assert all("scope" in a for tag, a in found.elements if tag == "th")
    boxes = [a for _, a in found.elements if a.get("class") == "scroll"]
    assert len(boxes) == tags.count("table")
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in boxes)
    charts = [a for _, a in found.elements if a.get("class") == "plot"]
    assert len(charts) == len(found.data) == 6
    assert all(a["role"] == "img" and a["aria-label"] for a in charts)
    ids = [a["id"] for _, a in found.elements if "id" in a]
    assert len(ids) == len(set(ids))
