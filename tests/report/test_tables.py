"""report.tables: what a record says, and that each format says it safely."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthbench.records import iterations
from lthbench.records.schema import Record, build, read_record, write_record
from lthbench.records.scores import Estimate, Grokking
from lthbench.report import answers, formats, remarks, speed, tables, terms
from lthbench.report import latex as latex_module
from lthbench.report import markdown as markdown_module
from lthbench.report import terminal as terminal_module
from lthbench.report.html import as_json
from tests.synthetic import ACCURACY, synthetic_record

SPARSEST = 0.8**23
RECORDS: dict[str, dict[str, Any]] = {
    "final": {},
    "grokking": {"kind": "area"},
    "development": {"seeds": 2, "final": False, "controls": "one rung"},
    "grokking-development": {"kind": "area", "seeds": 2, "final": False},
    "no-reference": {"seeds": 2, "reference": False},
    "one-seed": {"seeds": 1},
    "rewind": {"division": "rewind", "task": {"schedule": "constant"}},
    "reference": {"division": "reference"},
    "small": {"sizes": {"held_out": 143}, "final": False, "seeds": 3},
    "long-ladder": {"task": {"ladder": [0.8**n for n in range(1, 19)]}, "controls": "one rung"},
    "no-ticket": {
        "bad": {("ticket", d, s): ("missing", "why") for d in ACCURACY["ladder"] for s in range(5)}
    },
}
HOSTILE = "</script><b>\u202eRTL\n\x1b[31m|&%$#_{}~^\\"


@pytest.fixture(scope="module", params=sorted(RECORDS))
def record(request: pytest.FixtureRequest) -> Record:
    return synthetic_record(**RECORDS[request.param])


def rebuilt(record: Record, **changes: Any) -> Record:
    """The record with other fields, its aggregates computed again."""
    return build({**json.loads(as_json(record)), **changes})


def line(text: str, start: str) -> str:
    """The paragraph of the terminal's text that starts with a word, on one line."""
    found = re.search(rf"^{start} .*(?:\n {{18}}.*)*", text, re.MULTILINE)
    assert found, f"{start} is not in\n{text}"
    return " ".join(found.group().split())


# Numbers


@pytest.mark.parametrize(
    ("value", "digits", "signed", "text"),
    [
        (-0.04, 1, False, "0.0"),
        (-0.04, 1, True, "0.0"),
        (0.05001, 1, True, "+0.1"),
        (-1.25, 2, True, "−1.25"),
        (12000, 0, False, "12,000"),
        (100, 0, False, "100"),
        (0, 0, True, "0"),
    ],
)
def test_numbers(value: float, digits: int, signed: bool, text: str) -> None:
    assert formats.number(value, digits, signed=signed) == text


def test_densities_have_three_figures() -> None:
    shown = [formats.percent(d) for d in (1.0, 0.512, 0.2097152, 0.0999, 0.0859, 0.0059, 0.9997)]
    assert shown == ["100", "51.2", "21.0", "9.99", "8.59", "0.59", "100"]


def test_probabilities() -> None:
    assert [formats.probability(p) for p in (None, 0.0004, 0.0312, 1.0)] == [
        "n/a",
        "<.001",
        ".031",
        "1.000",
    ]


def test_an_estimate_by_its_number_of_seeds() -> None:
    """One: its value. Two: both, no interval. More: the mean and half its interval, if any."""
    one = Estimate(0.98, None, None, 1, (0.98,))
    two = Estimate(0.975, None, None, 2, (0.97, 0.98))
    five = Estimate(0.98, 0.97, 0.99, 5, (0.98,) * 5)
    alike = Estimate(0.67, None, None, 3, (0.67,) * 3)
    assert [formats.estimate(found, 1) for found in (None, one, two, five, alike)] == [
        "n/a",
        "98.0",
        "97.0 / 98.0",
        "98.0 ±1.0",
        "67.0 (all 3)",
    ]


def test_foreign_text_is_made_harmless() -> None:
    shown = formats.plain("a\u202eb\nc\x1b[31m\ud800 \u2066")
    assert shown == "a<U+202E>b c<U+001B>[31m<U+D800> <U+2066>"
    assert len(formats.plain("x" * 1000)) == 200


@pytest.mark.parametrize(
    "hidden",
    [
        *"\u200b\u200d\u00ad\ufeff\u2060\u3164\u115f\uffa0\u2800\ufe0f\u034f\u180e\U000e0101\U000e0041"
    ],
    ids=ascii,
)
def test_what_cannot_be_seen_is_shown(hidden: str) -> None:
    assert formats.plain(f"i{hidden}mp") == f"i<U+{ord(hidden):04X}>mp"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\u0456mp", "<U+0456>mp"),  # Cyrillic i
        ("J\u043en\u0430than Frankle", "J<U+043E>n<U+0430>than Frankle"),
        ("\u0440\u0430\u0443", "<U+0440><U+0430><U+0443>"),  # all of it looks Latin
        ("\u0395\u0396 and Frankle", "<U+0395><U+0396> and Frankle"),
        ("\uff29\uff4d\uff50", "<U+FF29><U+FF4D><U+FF50>"),  # full-width
        ("\U0001d422mp", "<U+1D422>mp"),  # mathematical bold
        ("\u212aen", "<U+212A>en"),  # Kelvin
    ],
)
def test_letters_that_pass_for_others_are_shown(text: str, shown: str) -> None:
    assert formats.plain(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "\u0410. \u0421. \u041f\u0443\u0448\u043a\u0438\u043d and Ann",  # A. S. Pushkin
        "\u0391\u03c1\u03b9\u03c3\u03c4\u03bf\u03c4\u03ad\u03bb\u03b7\u03c2",  # Aristotle
        "Łukasz Øystein Čech Ğüneş", "Ilkay I\u0307lhan, \u0131", "李雷，韩梅梅",
        "ℓ0 norm, O(n²), λ=½", "β-pruning ± 2", "naïve — “quoted”",
    ],
)  # fmt: skip
def test_names_of_every_script_stay_as_they_are(text: str) -> None:
    assert formats.plain(text) == text


SPECIAL = '\\{}&%$#_~^<>|"'


def test_nothing_acts_in_latex_once_it_is_normalised() -> None:
    """Of all characters: full-width, small, wavy ones that NFKC makes TeX's own."""
    alike = [
        c
        for c in map(chr, range(0x80, sys.maxunicode + 1))
        if set(unicodedata.normalize("NFKC", c)) & set(SPECIAL)
        or set(unicodedata.normalize("NFKD", c)) & set(SPECIAL)
    ]
    assert len(alike) > 24
    known = sorted({*latex_module.LATEX.values()}, key=len, reverse=True)
    for character in (*alike, *SPECIAL):
        said = latex_module.tex(f"a{character}b")
        assert unicodedata.normalize("NFKC", said) == said and said.isascii()
        for escaped in known:
            said = said.replace(escaped, "")
        assert not set(said) & set(SPECIAL), (character, said)
        assert latex_module.only_ascii(f"a{character}b").isascii()


@given(st.text(max_size=40))
def test_any_text_is_latex_that_does_nothing(text: str) -> None:
    said = latex_module.tex(formats.plain(text))
    assert said.isascii() and said.isprintable()
    for escaped in sorted({*latex_module.LATEX.values()}, key=len, reverse=True):
        said = said.replace(escaped, "")
    assert not set(said) & set(SPECIAL)


def test_latex_says_no_more_and_no_less() -> None:
    """No letter is dropped where another word would be left, and no stroke where none is."""
    assert latex_module.tex("Čech naïve I\u0307") == "Cech naive I"
    assert latex_module.tex("e\u0301") == "e"
    assert latex_module.tex("李") == r"\textless{}U+674E\textgreater{}"
    assert (
        latex_module.tex("a≠b ½")
        == r"a\textless{}U+2260\textgreater{}b \textless{}U+00BD\textgreater{}"
    )
    assert latex_module.only_ascii("0.5 ± 0.1 − 2\u00a0≥ …李") == "0.5 +- 0.1 - 2 >= ...<U+674E>"


# The terminal's table


def test_the_terminal_fits(record: Record) -> None:
    """100 columns, and characters that old code pages have."""
    text = terminal_module.terminal(record)
    assert max(map(len, text.splitlines())) <= 100
    text.encode("cp1252")


def test_a_narrow_terminal_gets_the_same_columns(record: Record) -> None:
    """Columns that do not fit go on below; nothing is lost."""
    wide, narrow = terminal_module.terminal(record), terminal_module.terminal(record, 60)
    grids = [row for row in narrow.splitlines() if re.match(r"\s+[\d.]+  ", row)]
    assert max(map(len, grids)) <= 60
    numbers = r"[+-]?\d+\.\d\d? ±\d+\.\d+"
    assert sorted(re.findall(numbers, wide)) == sorted(re.findall(numbers, narrow))


def test_the_answers_come_in_order() -> None:
    text = terminal_module.terminal(synthetic_record())
    order = ["How good", "Against dense", "Against controls", "  density", "At what cost"]
    order += ["Division", "Seeds", "Machine", "Reference"]
    places = [re.search(f"^{start}", text, re.MULTILINE) for start in order]
    starts = [found.start() for found in places if found]
    assert len(starts) == len(order)
    assert starts == sorted(starts)


def test_the_answers_are_the_records() -> None:
    record = synthetic_record()
    found, text = record.aggregates, terminal_module.terminal(record)
    retention, loss = found["retention"], found["loss"]
    good = line(text, "How good")
    assert f"retention {retention['mean']:.2f} [{retention['low']:.2f}" in good
    assert f"loss L {loss['mean']:.2f} [{loss['low']:.2f}, {loss['high']:.2f}] points" in good
    proved, open_to = found["matching"]["proved"], found["matching"]["not_refuted"]
    dense = line(text, "Against dense")
    assert f"down to {100 * proved:.2f} % density, proved" in dense
    assert f"{100 * open_to:.2f} % not refuted" in dense
    yes = sum(rung["identity_matters"] for rung in found["rungs"])
    assert f"identity matters on {yes} of 6 rungs" in line(text, "Against controls")
    assert "23.0 dense trainings a seed" in line(text, "At what cost")


def test_a_row_is_its_rungs() -> None:
    record = synthetic_record()
    for rung, row in zip(record.aggregates["rungs"], tables.against(record).rows, strict=True):
        expected = [f"{100 * rung[k]['mean']:.2f}" for k in ("ticket", *tables.CONTROLS)]
        assert [row[1].split()[0], *(text.split()[0] for text in row[3:])] == expected
        assert float(row[2].split()[0].replace("−", "-")) == pytest.approx(
            100 * rung["difference"]["mean"], abs=0.005
        )


def test_the_accuracy_is_the_cells() -> None:
    """From the counts to the table, computed here once more."""
    record = synthetic_record(seeds=2)
    cells = [c for c in record.cells if (c.kind, c.density) == ("ticket", SPARSEST)]
    expected = " / ".join(f"{c.correct['test'][-1] / 100:.2f}" for c in cells if c.schedule == 1)
    assert tables.against(record).rows[-1][1] == expected


def test_two_seeds_show_both_values_and_no_interval() -> None:
    text = terminal_module.terminal(synthetic_record(**RECORDS["no-reference"]))
    assert "±" not in text
    assert " / " in line(text, "How good")
    assert "needs 3 seeds" in line(text, "Against dense")
    assert "p " not in tables.identity(synthetic_record(seeds=2)).head


def test_what_is_not_available_is_no_zero() -> None:
    """Rungs without a control, and verdicts without seeds or a reference."""
    record = synthetic_record(**RECORDS["development"])
    assert tables.against(record).rows[0][3:] == ("n/a",) * 5
    assert tables.against(record).rows[-2][3] != "n/a"
    assert all(row[-3:-1] == ("n/a", "n/a") for row in tables.identity(record).rows)
    five = tables.identity(synthetic_record(reference=False))
    assert {row[-2] for row in five.rows} == {"n/a"}  # winning, where matching cannot be told


def test_development_seeds_are_not_for_publication() -> None:
    text = terminal_module.terminal(synthetic_record(final=False))
    assert "development seeds 1000 to 1004, held-out part: not for publication" in text
    assert "published seeds 0 to 4, test split" in terminal_module.terminal(synthetic_record())


def test_the_machine_and_the_reference() -> None:
    record = synthetic_record(final=False)
    assert "reproduces the reference" in line(terminal_module.terminal(record), "Machine")
    frozen = json.loads(as_json(record))["reference"]
    frozen |= {"provisional": True, "dense": [0.9, 0.9001, 0.9002, 0.9001]}
    moved = terminal_module.terminal(rebuilt(record, reference=frozen))
    assert "does not reproduce the reference" in line(moved, "Machine")
    assert "provisional: 4 dense seeds" in line(moved, "Reference")


def test_failures_are_told_with_their_reason() -> None:
    bad = {("ticket", SPARSEST, 1): ("missing", "the budget\nwas spent"),
           ("reinit", 0.8**3, 0): ("diverged", "loss is nan")}  # fmt: skip
    text = terminal_module.terminal(synthetic_record(bad=bad))
    assert "1 of 30 tickets missing or failed" in line(text, "Incomplete")
    assert "ticket, 0.59 % density, seed 1: missing: the budget was spent" in text
    assert "reinit, 51.2 % density, seed 0: diverged: loss is nan" in text


def test_controls_that_were_drawn_again_are_counted() -> None:
    record = synthetic_record()
    assert "Drawn again" not in terminal_module.terminal(record)
    cells = json.loads(as_json(record))["cells"]
    for cell in cells:
        if (cell["kind"], cell["density"], cell["seed"]) == ("shuffled", SPARSEST, 1):
            draws = [{"masks": digit * 64, "weights": cell["weights"]} for digit in "ab"]
            cell.update(attempt=2, failed_draws=draws)
    said = line(terminal_module.terminal(rebuilt(record, cells=cells)), "Drawn again")
    assert (
        "2 draws of 1 controls diverged before (shuffled, 0.59 % density, seed 1: draw 3)" in said
    )


def test_many_failures_are_counted() -> None:
    record = synthetic_record(**RECORDS["no-ticket"])
    text = terminal_module.terminal(record)
    assert text.count("\nFailed") == remarks.LISTED
    assert f"{len(remarks.failures(record)) - remarks.LISTED} more" in text


def test_a_collapsed_ticket_is_told() -> None:
    record = synthetic_record()
    cells = json.loads(as_json(record))["cells"]
    for cell in cells:
        if (cell["kind"], cell["density"], cell["seed"]) == ("ticket", SPARSEST, 0):
            cell["effective"] = cell["effective_nodes"] = 0
    text = terminal_module.terminal(rebuilt(record, cells=cells))
    assert "1 at 0.59 % density: no path is left" in line(text, "Collapsed")


def test_a_failed_search_is_told() -> None:
    record = synthetic_record()
    searches = json.loads(as_json(record))["searches"]
    searches[2] |= {"status": "failed", "reason": "method.py:7: ZeroDivisionError"}
    text = terminal_module.terminal(rebuilt(record, searches=searches))
    assert "search of seed 2: method.py:7: ZeroDivisionError" in text


@pytest.mark.parametrize("division", ["init", "rewind", "open", "reference"])
def test_the_division_is_told(division: Any) -> None:
    text = line(terminal_module.terminal(synthetic_record(division=division)), "Division")
    assert text == f"Division {terms.BOARDS[division]}"


# Arithmetic tasks


def test_arithmetic_tells_areas() -> None:
    """As accuracies are: mean, half its interval, points from dense; a note says what it is."""
    record = synthetic_record(kind="area")
    table = tables.against(record)
    for rung, row in zip(record.aggregates["rungs"], table.rows, strict=True):
        ticket, apart = rung["ticket"], rung["difference"]
        half = 50 * (ticket["high"] - ticket["low"])
        assert row[1] == f"{100 * ticket['mean']:.2f} ±{half:.2f}"
        assert row[2].replace("−", "-").startswith(f"{100 * apart['mean']:+.2f} ±")
    assert "area on the test split, %" in table.caption
    assert "ten times sooner has 50 points more" in table.note  # of two decades


def test_arithmetic_tells_step_and_delay() -> None:
    record = synthetic_record(kind="area")
    (table,) = speed.speed(record)
    assert table.head[1:3] == ("memorising step", "generalising step")
    found = record.aggregates["speed"]["grokking"]["1"]
    row = table.rows[0]
    assert row[0] == "dense"
    assert row[2] == f"{found['generalised']['mean']:.0f} ({found['generalised']['reached']}/5)"
    assert row[4] == f"{found['delay']['mean']:.0f} (5/5)"


def test_what_was_there_at_the_first_evaluation_came_by_it() -> None:
    record = synthetic_record(kind="area", task={"every": 100})
    row = speed._grokking(record, grokking([400] * 5, [400] * 5)).rows[0]
    assert row[1:3] == ("≤ 100 (5/5)", "400 (5/5)")
    assert row[4] == "≥ 300 (5/5)"
    two = speed._grokking(record, grokking([400, None], [400, 500])).rows
    assert two[1][1:] == ("≤ 100 / ≤ 100", "400 / > 1,000", "≥ 1.41", "≥ 300 / > 900")
    one = grokking([400, 100], [400, 500])
    row_ = one["0.134218"]
    one["0.134218"] = replace(row_, memorised=replace(row_.memorised, steps=(200, 100)))
    rows = speed._grokking(record, one).rows
    assert rows[1][1:3] == ("200 / ≤ 100", "400 / ≤ 100")
    assert rows[1][4] == "300 / 0"  # of the helper's; neither is a bound


def weak(**given: Any) -> Record:
    """A record whose reference's random tickets lose too little to divide by."""
    table = synthetic_record(**given).model_dump(mode="json")
    if table["reference"] is not None:
        table["reference"]["loss_random"] = [0.5, 0.7, 0.6]
    return build(table)


@pytest.mark.parametrize("kind", ["accuracy", "area"])
@pytest.mark.parametrize("seeds", [1, 2, 5])
@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("controls", ["all", "one rung"])
def test_where_there_is_no_retention_the_word_is_not_said(
    kind: Literal["accuracy", "area"], seeds: int, reference: bool, controls: Any
) -> None:
    record = weak(kind=kind, seeds=seeds, reference=reference, controls=controls)
    above = record.aggregates["above_erk"]
    assert record.aggregates["retention"] is None
    (good, *_) = answers.answers(record)
    assert good.name == "ticket − erk"
    first = f"{above['mean'] if seeds > 2 else above['values'][0]:+.2f}".replace("-", "−")
    assert good.value.startswith(first)
    some = controls == "one rung" and not reference
    assert good.notes[0].startswith("mean over the rungs at" if some else "mean over the ladder")
    for text in (
        terminal_module.terminal(record),
        markdown_module.markdown(record),
        latex_module.latex(record),
    ):
        assert "etention" not in text
        assert "not ranked here" not in text


def test_without_reference_and_controls_the_sparsest_rung_is_told() -> None:
    table = synthetic_record(reference=False).model_dump(mode="json")
    table["cells"] = [cell for cell in table["cells"] if cell["kind"] != "erk"]
    record = build(table)
    (good, *_) = answers.answers(record)
    assert good.name == f"at {formats.percent(SPARSEST)} % density"
    assert good.notes == (
        "there is neither a frozen reference nor an erk control to set the ladder against",
    )
    assert "etention" not in terminal_module.terminal(record)


def test_fewer_seeds_than_a_ranked_suite_has_are_incomplete() -> None:
    def told(**given: Any) -> str:
        return " ".join(terminal_module.terminal(synthetic_record(**given)).split())

    assert "Incomplete 3 of the task's 5 published seeds" in told(seeds=3)
    assert "Incomplete" not in told()
    assert "Incomplete" not in told(seeds=2, final=False)
    assert "No transfer tickets were not carried to other depths" in told()
    assert "No transfer" not in told(final=False)


@pytest.mark.parametrize("kind", ["accuracy", "area"])
def test_a_record_reads_the_same_from_its_file(
    kind: Literal["accuracy", "area"], tmp_path: Path
) -> None:
    """A file has its keys in the order of their letters, tables theirs by density."""
    record = synthetic_record(kind=kind)
    write_record(tmp_path / "record.json", record)
    assert terminal_module.terminal(
        read_record(tmp_path / "record.json")
    ) == terminal_module.terminal(record)


def test_what_never_came_is_told_as_more_than_t() -> None:
    """None of five, some, all; a difference of what was cut off says which way it errs."""
    record = synthetic_record(kind="area")
    rows = {row[0]: row for row in speed._grokking(record, grokking([None] * 5, [400] * 5)).rows}
    assert rows["13.4"][1:] == ("100 (5/5)", "> 1,000 (0/5)", "≥ 2.50", "> 900 (0/5)")
    some = [400, 400, 400, 400, None]
    rows = {row[0]: row for row in speed._grokking(record, grokking(some, [400] * 5)).rows}
    assert rows["13.4"][2:] == ("≥ 520 (4/5)", "≥ 1.20 [0.72, 2.00]", "≥ 420 (4/5)")
    rows = {row[0]: row for row in speed._grokking(record, grokking([400] * 5, some)).rows}
    assert rows["dense"][2] == "≥ 520 (4/5)"
    assert rows["13.4"][2:] == ("400 (5/5)", "≤ 0.83 [0.50, 1.38]", "300 (5/5)")
    rows = {row[0]: row for row in speed._grokking(record, grokking(some, some)).rows}
    assert rows["13.4"][3] == "≈ 1.00"
    nobody = speed._grokking(record, grokking([None] * 5, [None] * 5)).rows
    assert nobody[1][3] == formats.NA
    two = speed._grokking(record, grokking([400, None], [400, 500])).rows
    assert two[1][1:] == ("100 / 100", "400 / > 1,000", "≥ 1.41", "300 / > 900")
    text = terminal_module._text(speed._grokking(record, grokking(some, some)), 100)
    assert ">= 520 (4/5)" in text.translate(terminal_module.TERMINAL)


def grokking(ticket: Sequence[int | None], dense: Sequence[int | None]) -> dict[str, Grokking]:
    """What a record says of one rung whose runs memorised at 100 and generalised then."""
    found = {}
    early = tuple([100] * len(dense))
    for name, steps in (("1", dense), ("0.134218", ticket)):
        found[name] = Grokking(
            iterations._moment(early, early, 1000),
            iterations._moment(steps, dense, 1000),
            iterations._delay(early, steps, 1000),
        )
    return found


def test_steps_and_schedules() -> None:
    constant = synthetic_record(task={"schedule": "constant"})
    (steps,) = speed.speed(constant)
    assert len(steps.rows) == 6
    (compressed,) = speed.speed(synthetic_record())
    found = synthetic_record().aggregates["speed"]["compressed"]["ticket"]
    assert compressed.rows[0] == ("ticket", f"T/{found} = {12000 // found:,} steps")
    assert list(speed.speed(synthetic_record(reference=False))) == []


# Markdown and LaTeX


def test_markdown_tables_are_whole(record: Record) -> None:
    """As many cells as heads in every row."""
    text = markdown_module.markdown(record)
    grids = [row for row in text.splitlines() if row.startswith("|")]
    for table in tables.tables(record):
        assert sum(len(re.findall(r"(?<!\\)\|", g)) == len(table.head) + 1 for g in grids) >= 2


def test_latex_is_plain_and_balanced(record: Record) -> None:
    text = latex_module.latex(record)
    text.encode("ascii")
    bare = re.sub(r"\\[\\{}%&$#_]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert "%" not in bare.split("\n", 1)[1]  # the first line is a comment
    assert "#" not in bare
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") > 1
    assert "rule" not in text  # no booktabs
    for table in tables.tables(record):
        rows = [r for r in text.splitlines() if r.rstrip().endswith(r"\\") and "&" in r]
        cells = len(table.head)
        assert sum(len(re.findall(r"(?<!\\)&", row)) == cells - 1 for row in rows) >= len(
            table.rows
        )


def test_latex_has_intervals() -> None:
    text = latex_module.latex(synthetic_record())
    assert len(re.findall(r"\d\.\d\d \$\\pm\$\d", text)) > 36


def test_foreign_text_in_every_format() -> None:
    """A name or a reason breaks no table, and sends nothing to a terminal."""
    bad = {("ticket", SPARSEST, 1): ("missing", HOSTILE)}
    record = synthetic_record(bad=bad, task={"name": HOSTILE})
    terminal = terminal_module.terminal(record)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069]", terminal)
    markdown = markdown_module.markdown(record)
    assert "<" not in markdown
    assert "\\|" in markdown
    latex = latex_module.latex(record)
    latex.encode("ascii")
    bare = re.sub(r"\\[\\{}%&$#_]", "", latex)
    assert bare.count("{") == bare.count("}")
    assert len(latex.splitlines()[0]) < 300
