"""The machine-readable files: the list of entries, the standings, the records and their schemas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lthbench.io.paths import canonical_json
from lthbench.leaderboard.board.entries import Board, Entry
from lthbench.leaderboard.board.standings import Row, Standing
from lthbench.leaderboard.site.labels import LEVELS
from lthbench.leaderboard.site.pages.plan import entry_path, record_path
from lthbench.records.intervals import Interval
from lthbench.records.schema import Record

BASE = "api/v1"


class Strict(BaseModel):
    """A table of the interface."""

    model_config = ConfigDict(extra="forbid")


class Estimate(Strict):
    """A mean with its 95 % interval."""

    mean: float
    low: float | None
    high: float | None
    n: int


class ListedEntry(Strict):
    """One entry; the record has everything else."""

    id: str
    sha256: str
    task: str
    protocol: str
    method: str
    source: str
    level: Literal[0, 1, 2, 3]
    state: Literal["accepted", "listed", "superseded", "retracted"]
    superseded_by: str | None
    challenges: int
    division: str | None
    retention: Estimate | None
    above_erk: Estimate | None
    cost: float | None
    seeds: list[int]
    bundle: str | None
    record: str
    page: str


class Index(Strict):
    """Every entry of the leaderboard, and where the rest lies."""

    version: Literal[1]
    ledger: str
    levels: dict[str, str]
    entries: list[ListedEntry]
    standings: str
    schemas: dict[str, str]


class StandingRow(Strict):
    """One contender of a board; `rank` is the interval that is left open at 95 %."""

    contender: str
    method: str
    entries: dict[str, str]
    score: Estimate | None
    rank: tuple[int, int] | None
    why_unranked: str
    level: int
    division: str
    cost: float | None


class StandingTable(Strict):
    """One board of one suite.

    `p` are adjusted p values of pairs of ranked contenders.
    """

    suite: str
    board: Literal["init", "early", "open", "untrained"]
    title: str
    tasks: list[str]
    rows: list[StandingRow]
    p: list[tuple[str, str, float]]


class Standings(Strict):
    """Every board."""

    version: Literal[1]
    boards: list[StandingTable]


def all_of(board: Board, standings: Sequence[Standing]) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of every file of the interface except the records."""
    tables = [_table(standing) for standing in standings]
    made = {"index": index(board), "standings": Standings(version=1, boards=tables)}
    for name, table in made.items():
        yield f"{BASE}/{name}.json", canonical_json(table.model_dump(mode="json"))
    models: dict[str, type[BaseModel]] = {"record": Record, "index": Index, "standings": Standings}
    for name, model in models.items():
        yield f"{BASE}/{name}.schema.json", canonical_json(model.model_json_schema())


def index(board: Board) -> Index:
    """Build the list of entries."""
    return Index(
        version=1,
        ledger=board.ledger.head,
        levels={str(level.number): level.word for level in LEVELS},
        entries=[_listed(entry) for entry in board.entries],
        standings=f"{BASE}/standings.json",
        schemas={name: f"{BASE}/{name}.schema.json" for name in ("record", "index", "standings")},
    )


def _listed(entry: Entry) -> ListedEntry:
    record, told = entry.record, entry.record.scores
    return ListedEntry(
        id=entry.id,
        sha256=entry.digest,
        task=record.task.name,
        protocol=record.task.digest,
        method=record.method.name,
        source=record.method.digest,
        level=entry.level,  # type: ignore[arg-type]
        state=entry.state,
        superseded_by=entry.of,
        challenges=len(entry.challenges),
        division=told.division,
        retention=_interval(told.retention),
        above_erk=_interval(told.above_erk),
        cost=told.mean_cost,
        seeds=list(record.seeds),
        bundle=record.bundle.sha256 if record.bundle else None,
        record=record_path(record.task.name, entry.id),
        page=entry_path(record.task.name, entry.id),
    )


def _table(standing: Standing) -> StandingTable:
    return StandingTable(
        suite=standing.suite,
        board=standing.board,
        title=standing.title,
        tasks=list(standing.tasks),
        rows=[_row(row) for row in standing.rows],
        p=sorted((a, b, p) for (a, b), p in standing.p.items() if a < b),
    )


def _row(row: Row) -> StandingRow:
    return StandingRow(
        contender=row.contender.id,
        method=row.contender.name,
        entries={task: entry.id for task, entry in row.contender.entries.items()},
        score=_interval(row.score),
        rank=row.rank,
        why_unranked=row.why_unranked,
        level=row.level,
        division=row.division,
        cost=row.cost,
    )


def _interval(found: Interval | None) -> Estimate | None:
    if found is None:
        return None
    return Estimate(mean=found.mean, low=found.low, high=found.high, n=found.n)
