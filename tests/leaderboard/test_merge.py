"""Evaluations of some seeds each, joined: as if they had run at once, or one line of why not."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lthbench.errors import LthbenchError, RecordError, ResourceError, UsageError
from lthbench.evaluation.layout import stored_runs
from lthbench.evaluation.pipeline import evaluate
from lthbench.io.paths import canonical_json
from lthbench.leaderboard.bundle.build import pack
from lthbench.leaderboard.submission.merge import joined, merge
from lthbench.leaderboard.submission.submit import submit
from lthbench.records.schema import Record, build, comparable, file_bytes, read_record, write_record
from lthbench.report.summary import environments
from tests import submitted
from tests.commands import run
from tests.submitted import DIGITS, MODADD, at_home, house
from tests.synthetic import synthetic_record

Table = dict[str, Any]


def of_seeds(record: Record, *seeds: int, **changes: Any) -> Record:
    """What an evaluation of these seeds alone would have recorded."""
    table = record.model_dump(mode="json", exclude={"aggregates", "scorer", "bundle"})
    for name in ("cells", "searches"):
        table[name] = [row for row in table[name] if row["seed"] in seeds]
    if table.get("transfer"):
        cells = [cell for cell in table["transfer"]["cells"] if cell["seed"] in seeds]
        table["transfer"] = {**table["transfer"], "cells": cells}
    table["sizes"] = {str(seed): table["sizes"][str(seed)] for seed in seeds}
    return build(table | {"seeds": list(seeds)} | changes)


def evaluated(kind: Any = "accuracy", seeds: int = 5) -> Record:
    """A synthetic record whose cells stand in the order of an evaluation's."""
    record = synthetic_record(kind=kind, seeds=seeds)
    cells = sorted(record.cells, key=lambda c: (c.seed, -c.density, c.kind, c.schedule))
    record = record.model_copy(update={"cells": tuple(cells)})
    return of_seeds(record, *record.seeds)


def parts(record: Record, *groups: tuple[int, ...]) -> list[tuple[Path, Record]]:
    return [(Path(f"{group[0]}.json"), of_seeds(record, *group)) for group in groups]


@pytest.mark.parametrize("kind", ["accuracy", "area"])
def test_records_of_some_seeds_give_the_record_of_all(kind: Any) -> None:
    """Whatever the seeds of each, in any order, and in two steps as well."""
    whole = evaluated(kind)
    one, two, three = parts(whole, (3, 4), (0, 2), (1,))
    assert comparable(joined([one, two, three])) == comparable(whole)
    first = (Path("first"), joined([three, one]))
    assert comparable(joined([first, two])) == comparable(whole)


def test_where_tickets_were_carried_their_cells_are_joined() -> None:
    """In the order of an evaluation; what was found at the targets only if all records have it."""
    share, whole = submitted.carried()
    with at_home(share, share):
        assert whole.transfer is not None
        assert comparable(joined(parts(whole, (1, 3), (0, 2, 4)))) == comparable(whole)
        found = [
            cell.model_copy(update={"kind": "direct"})
            for cell in whole.transfer.cells
            if cell.kind == "erk"
        ]
        cells = sorted(
            (*whole.transfer.cells, *found), key=lambda c: (c.seed, c.depth, -c.density, c.kind)
        )
        moved = whole.transfer.model_copy(update={"cells": tuple(cells)})
        direct = of_seeds(whole.model_copy(update={"transfer": moved}), *whole.seeds)
        assert comparable(joined(parts(direct, (1, 3), (0, 2, 4)))) == comparable(direct)
        (one, _), (_, two) = parts(direct, (1, 3), (0, 2, 4)), parts(whole, (1, 3), (0, 2, 4))
        assert comparable(joined([one, two])) == comparable(whole)


# Where each seed was evaluated


def elsewhere(record: Record, **changes: str) -> Record:
    return record.model_copy(update={"environment": {**record.environment, **changes}})


def test_a_record_says_of_each_seed_where_it_was_evaluated() -> None:
    whole = evaluated()
    (_, one), (_, two) = parts(whole, (1, 3), (0, 2, 4))
    record = joined([(Path("a"), elsewhere(one, processor="Other 9")), (Path("b"), two)])
    other = {**whole.environment, "processor": "Other 9"}
    assert record.environment == whole.environment
    assert record.environments == {"1": other, "3": other}
    assert [record.environment_of(seed) for seed in (0, 1)] == [whole.environment, other]
    assert environments(record)["processor, seed 3"] == "Other 9"
    assert comparable(record) == comparable(whole)
    assert Record.model_validate_json(file_bytes(record)) == record


def test_of_one_machine_a_record_has_the_bytes_that_it_had() -> None:
    """No key is new in it, and so no digest."""
    whole = evaluated()
    record = joined(parts(whole, (0, 2), (1, 3, 4)))
    assert record.environments is None
    assert b"environments" not in file_bytes(record)
    assert record.times == {name: 2 * float(told) for name, told in whole.times.items()}
    assert file_bytes(record.model_copy(update={"times": whole.times})) == file_bytes(whole)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({}, "environments: of no seed"),
        ({"7": {"torch": "1"}}, "environments: of 7; tells of seeds of the record after the first"),
        ({"0": {"torch": "1"}}, "environments: of 0"),
        ({"1\u202e": {"torch": "1"}}, r"environments: of 1\\u202e"),
        ({"1": None}, "one is the record's own environment; leave it out"),
    ],
)
def test_a_machine_is_told_in_one_form_alone(told: Table, why: str) -> None:
    """A forger's ways to tell the same of a record twice, and so under two digests."""
    table = synthetic_record(seeds=3).model_dump(mode="json")
    table["environments"] = {k: v or table["environment"] for k, v in told.items()}
    with pytest.raises(ValueError, match=why):
        Record.model_validate(table)


# What does not go together


def with_(**changes: Any) -> Callable[[Record], Record]:
    """The same record with other entries in its tables."""

    def change(record: Record) -> Record:
        table = record.model_dump(mode="json", exclude={"aggregates", "scorer"})
        for name, value in changes.items():
            held = table[name]
            table[name] = {**held, **value} if isinstance(held, dict) and value else value
        return build(table)

    return change


MISFITS: dict[str, tuple[Callable[[Record], Record], str]] = {
    "another method": (with_(method={"digest": "0" * 64}), "method .* 000000000000 .*one source"),
    "other options": (with_(method={"options": {"rate": 0.25}}), "the same options"),
    "another task": (with_(task={"digest": "0" * 64}), "task .* 000000000000, .*one version of"),
    "other controls": (with_(controls="alternate"), "controls alternate, .* --controls"),
    "other data": (with_(fingerprints={"x": "0" * 64}), "fingerprints .*lthbench data verify"),
    "another reference": (with_(reference={"digest": "0" * 64}), "reference 000000000000, .*again"),
    "no reference": (with_(reference=None), "reference none, .*what is trained is kept"),
    "development seeds": (with_(final=False), "final False, .*--final"),
    "an overlap": (lambda record: of_seeds(record, 1, 2), "b.json: seed 1 is in .*a.json too"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_misfit_is_one_line_and_writes_nothing(name: str, tmp_path: Path) -> None:
    change, why = MISFITS[name]
    whole = evaluated(seeds=3)
    write_record(tmp_path / "a.json", of_seeds(whole, 0, 1))
    second = whole if name == "an overlap" else of_seeds(whole, 2)
    write_record(tmp_path / "b.json", change(second))
    said = run("merge", "a.json", "b.json", "--out", "c.json", cwd=tmp_path)
    assert (said.returncode, said.stdout, said.stderr.count("\n")) == (2, "", 1)
    with pytest.raises(RecordError, match=why):
        merge([tmp_path / "a.json", tmp_path / "b.json"], tmp_path / "c.json")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "b.json"}


def test_transfer_is_in_all_records_or_in_none() -> None:
    share, whole = submitted.carried()
    with at_home(share, share):
        one, (place, two) = parts(whole, (1, 3), (0, 2, 4))
        bare = of_seeds(two, *two.seeds, transfer=None)
        with pytest.raises(
            RecordError, match=r"0.json: transfer is not as in 1.json; .*--transfer"
        ):
            joined([one, (place, bare)])


def test_paths_that_do_not_go_together(tmp_path: Path) -> None:
    """Each is told before anything is read."""
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    file, folder, new = tmp_path / "a.json", tmp_path / "folder", tmp_path / "new"
    for paths, out, why in (
        ([file], new, "two records or more"),
        ([file, file], file, "is there already"),
        ([folder, file], new, "a.json: no folder"),
        ([folder, folder], new, "folder: no evaluation"),
    ):
        with pytest.raises(UsageError, match=why):
            merge(paths, out)


def test_the_command_writes_a_record(tmp_path: Path) -> None:
    whole = evaluated(seeds=3)
    for name, seeds in (("a.json", (0, 2)), ("b.json", (1,))):
        write_record(tmp_path / name, of_seeds(whole, *seeds))
    done = run("merge", "b.json", "a.json", "--out", "c.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith("seeds 0, 1, 2")
    assert comparable(read_record(tmp_path / "c.json")) == comparable(whole)


# Folders


@functools.cache
def divided() -> tuple[Path, Path]:
    """The house's evaluation in two folders, of seed 0 and of seed 1: made once, not changed."""
    home = house()
    folder = home.out.parent / "divided"
    for seed in (0, 1):
        out = folder / str(seed)
        for name in (DIGITS, MODADD):
            shutil.copytree(home.out / name, out / name)
            (out / name / "record.json").unlink()
            shutil.rmtree(out / name / "tickets" / f"seed{1 - seed}")
        evaluate(
            str(home.out.parent / "out-method.py"),
            tasks=(DIGITS, MODADD),
            seeds=2,
            only_seeds=[seed],
            workers=0,
            final=True,
            transfer=False,
            out=out,
        )
    return folder / "0", folder / "1"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """Copies that a test may spoil; the cache that they were scored with is gone."""
    with at_home(house().share, house().cache):
        made = divided()
    for folder in made:
        shutil.copytree(folder, tmp_path / folder.name)
    monkeypatch.chdir(tmp_path)
    with at_home(house().share, tmp_path / "no-cache"):
        yield tmp_path / "0", tmp_path / "1"


def test_two_folders_are_submitted_as_one_evaluation(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """The same records and the same bundle as of all seeds at once."""
    done = run("merge", "1", "0", "--out", "all", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "next: lthbench submit all"
    records = [read_record(path) for path in sorted(Path("all").glob("*/record.json"))]
    for record, whole in zip(records, house().records, strict=True):
        assert comparable(record) == comparable(whole)
        bare = record.model_copy(update={"times": whole.times})
        assert file_bytes(bare) == file_bytes(whole)
    bundled = pack(Path("all"), [r.model_copy(update={"times": w.times}) for r, w in zip(
        records, house().records, strict=True)])  # fmt: skip
    assert bundled == house().bundle.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "all"}
    sent = submit(Path("all"), (), None)
    assert [read_record(path).seeds for path in sent.records] == [(0, 1), (0, 1)]


def test_of_two_machines_both_are_told(folders: tuple[Path, Path]) -> None:
    """In the record, in the list of packages, and so that neither goes on in the folder."""
    second = folders[1]
    for path in second.glob("*/record.json"):
        write_record(path, elsewhere(read_record(path), arithmetic="torch-9_AVX512"))
    for path in second.glob("*/task.json"):
        told = json.loads(path.read_bytes()) | {"arithmetic": "torch-9_AVX512"}
        path.write_bytes(canonical_json(told))
    packages = json.loads((second / "environment.json").read_bytes())["packages"]
    (second / "environment.json").write_bytes(
        canonical_json({"packages": packages | {"torch": "9"}})
    )
    records = merge(folders, Path("all"))
    for record in records:
        assert record.environment_of(1)["arithmetic"] == "torch-9_AVX512"
        assert record.environment_of(0)["arithmetic"] != "torch-9_AVX512"
    listed = json.loads(Path("all", "environment.json").read_bytes())["packages"]
    assert listed["torch"] == f"9, {packages['torch']}" or listed["torch"].endswith(", 9")
    submit(Path("all"), (), None)
    method = house().out.parent / "out-method.py"
    with pytest.raises(LthbenchError, match="all/tiny-digits: holds results of arithmetic"):
        evaluate(str(method), tasks=(DIGITS,), seeds=2, workers=0, final=True, out="all")


def test_a_task_of_one_folder_is_taken_as_it_is(folders: tuple[Path, Path]) -> None:
    shutil.rmtree(folders[1] / MODADD)
    of = {record.task.name: record.seeds for record in merge(folders, Path("all"))}
    assert of == {DIGITS: (0, 1), MODADD: (0,)}


def of_another_method(one: Path, two: Path) -> None:
    claim = json.loads((two / "evaluation.json").read_bytes())
    (two / "evaluation.json").write_bytes(canonical_json(claim | {"options": {"scale": 2.0}}))


def without_tickets(one: Path, two: Path) -> None:
    shutil.rmtree(two / DIGITS / "tickets")


def without_answers(one: Path, two: Path) -> None:
    key = next(run for run in stored_runs(two / DIGITS) if run.kind == "ticket").key
    (two / DIGITS / "cells" / f"{key}.safetensors").unlink()


def damaged(one: Path, two: Path) -> None:
    (two / DIGITS / "answers.json").write_bytes(b"[]")


def without_records(one: Path, two: Path) -> None:
    for path in two.glob("*/record.json"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "kind", "why"),
    [
        (of_another_method, RecordError, 'of options {"scale": 2.0}, .* of {"scale": 0.5}'),
        (without_tickets, RecordError, "seed1: not there, with the tickets of seed 1; copy it"),
        (without_answers, RecordError, "gone, with its answers"),
        (damaged, ResourceError, "answers.json: damaged"),
        (without_records, RecordError, "no task is finished"),
    ],
)
def test_a_folder_that_is_not_whole_leaves_nothing(
    folders: tuple[Path, Path], tmp_path: Path, spoil: Any, kind: Any, why: str
) -> None:
    spoil(*folders)
    with pytest.raises(kind, match=why) as caught:
        merge(folders, Path("all"))
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}
