"""Building a site from a leaderboard's folder, fully or incrementally."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lthbench.io.paths import PACKAGE, canonical_json, digest, shipped, write_whole
from lthbench.leaderboard.board import ledger as ledgers
from lthbench.leaderboard.board.copies import Likeness, likenesses
from lthbench.leaderboard.board.entries import LEDGER, Entry
from lthbench.leaderboard.board.standings import standings
from lthbench.leaderboard.citation.works import citation_file
from lthbench.leaderboard.site import parallel, record_cache
from lthbench.leaderboard.site.labels import many
from lthbench.leaderboard.site.pages import api, plan
from lthbench.leaderboard.site.pages.plan import Contents
from lthbench.leaderboard.site.pages.protocol import Protocol, protocols
from lthbench.leaderboard.site.record_cache import KEPT, Source
from lthbench.leaderboard.site.staging import Site, building
from lthbench.protocol.task import load_task

SIZES = "sizes of "  # key prefix of a task's kept tensors, before its digest


@dataclass(frozen=True)
class Built:
    """Summary of a build."""

    out: Path
    entries: int
    files: int
    written: int
    removed: int

    def text(self) -> str:
        """Return two lines for the terminal."""
        gone = f", {many(self.removed, 'stale one')} removed" if self.removed else ""
        return (
            f"{self.out}: {many(self.entries, 'entry', 'entries')}, {many(self.files, 'file')}, "
            f"{self.written:,} written{gone}\n"
            f"open {self.out / 'index.html'}, or run `lthbench leaderboard serve {self.out}`"
        )


def build(out: Path, folder: Path | None = None) -> Built:
    """Write the whole site into a folder; existing files are replaced only if they changed.

    Args:
        out: The site's folder.
        folder: A leaderboard's folder, the shipped one by default.

    Raises:
        RecordError: If a record, the ledger or a reference is invalid.
        UsageError: If the folder holds other things.
        ResourceError: If the folder cannot be written, or another build is writing it.
    """
    out, folder = out.absolute(), folder or shipped("leaderboard")
    sources = record_cache.sources(folder)
    with building(out) as site:
        stamp = _stamp()
        told = protocols()
        kept = record_cache.read_kept(out, stamp)
        lean = _records(site, folder, sources, kept)
        contents = _contents(folder, sources, lean, told)
        alike = likenesses(contents.board.entries)
        _entry_pages(site, folder, sources, stamp, lean, told, alike)
        _pages(site, stamp, contents)
        needed = {source.raw for source in sources}
        wanted = {k: v for k, v in lean.items() if k in needed or k.startswith(SIZES)}
        if wanted.keys() != kept.keys():
            write_whole(out / KEPT, record_cache.packed(wanted, stamp))
    removed = len(site.before.keys() - site.now.keys())
    return Built(out, len(sources), len(site.now), len(site.written), removed)


def _stamp() -> str:
    """Return the digest of all code and templates, and of the package metadata that pages show.

    Output may depend on any of it: the version is in every page's footer; CITATION.cff is on the
    page of the rules and, as the work that an entry cites, on every entry's page.
    """
    paths = [*PACKAGE.rglob("*.py"), *PACKAGE.glob("**/templates/**/*")]
    paths += [*shipped("tasks").rglob("*.toml"), *shipped("baselines").glob("*.py")]
    parts = [(path.name, digest(path.read_bytes())) for path in sorted(paths) if path.is_file()]
    return digest(canonical_json([parts, citation_file(), version("lthbench")]))


# Entries


def _records(
    site: Site, folder: Path, sources: Sequence[Source], kept: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Copy every record; return what is kept of each, by its file's digest."""
    jobs, keys = [], {}
    for source in sources:
        copy = plan.record_path(source.path.parent.name, source.path.stem)
        keys[copy] = source.raw
        wanted = not site.keeps(copy, source.raw)
        if wanted or source.raw not in kept:
            job = _job(site, folder, source, checked=source.raw in kept)
            jobs.append(replace(job, copy=copy if wanted else ""))
    return {**kept, **_done(site, jobs, keys)}


def _entry_pages(
    site: Site,
    folder: Path,
    sources: Sequence[Source],
    stamp: str,
    lean: dict[str, bytes],
    told: Mapping[str, Protocol],
    alike: Mapping[str, Sequence[Likeness]],
) -> None:
    """Write every entry's page, once data of all entries are known; keep their tensors' sizes."""
    count = Counter(source.path.parent.name for source in sources)
    jobs, keys, baselines = [], {}, _baselines()
    for source in sources:
        task, name = source.path.parent.name, source.path.stem
        page, baseline = plan.entry_path(task, name), baselines.get(name.rpartition("--")[0], "")
        shared = [(one.text, one.same) for one in alike.get(source.raw, ())]
        inputs = [source.raw, source.state, baseline, count[task] > 1, shared]
        keys[page] = digest(canonical_json([stamp, page, inputs]))
        if site.keeps(page, keys[page]):
            continue
        sizes = _sizes(told[task], lean) if task in told else {}
        job = replace(_job(site, folder, source, checked=True), page=page, baseline=baseline)
        jobs.append(replace(job, sizes=sizes, compares=count[task] > 1, alike=shared))
    _done(site, jobs, keys)


def _job(site: Site, folder: Path, source: Source, *, checked: bool) -> parallel.Job:
    """Describe a record to process."""
    return parallel.Job(
        folder=str(folder),
        staging=str(site.staging),
        path=str(source.path),
        raw=source.raw,
        standing=source.standing,
        lines=source.lines,
        checked=checked,
    )


def _done(site: Site, jobs: Sequence[parallel.Job], keys: Mapping[str, str]) -> dict[str, bytes]:
    """Process records and add their files to the site; return what is kept of each."""
    found = {}
    for done in parallel.over(jobs, site.scratch):
        if done.kept is not None:
            found[done.raw] = done.kept.encode()
        for path, made in done.files.items():
            site.take(path, keys[path], (made[0], made[1]))
    return found


def _baselines() -> dict[str, str]:
    """Return the digest of each shipped baseline's source, by name."""
    return {path.stem: digest(path.read_bytes()) for path in shipped("baselines").glob("*.py")}


def _sizes(protocol: Protocol, kept: dict[str, bytes]) -> Mapping[str, int]:
    """Return the sizes of a task's prunable tensors; torch is loaded only on first use."""
    key = f"{SIZES}{protocol.digest[:40]}"
    if key not in kept:
        from math import prod

        from lthbench.networks.families import shapes

        network = load_task(protocol.name).network
        made = {k: prod(shape) for k, shape in shapes(network, network.depth).items()}
        kept[key] = canonical_json(made).rstrip()
    sizes: Mapping[str, int] = json.loads(kept[key])
    return sizes


# Everything else


def _contents(
    folder: Path, sources: Sequence[Source], kept: Mapping[str, bytes], told: Mapping[str, Protocol]
) -> Contents:
    """Assemble the board, its tasks and standings, from what is kept of the records."""
    entries, ranked = [], []
    for source in sources:
        own = json.loads(kept[source.raw])
        entry = record_cache.entry_of(folder, source, record_cache.fattened(own["lean"]))
        entries.append(entry)
        ranked.append(_published(entry, own["published"]))
    ledger = ledgers.read(folder / LEDGER)
    board = record_cache.board(folder, entries, ledger)
    tasks: dict[str, list[Entry]] = {name: [] for name in told}
    tasks |= record_cache.by_task(board.entries)
    return Contents(
        folder=folder,
        board=board,
        tasks=tasks,
        protocols=told,
        standings=standings(replace(board, entries=tuple(ranked))),
    )


def _published(entry: Entry, found: Mapping[str, Any] | None) -> Entry:
    """Restrict an entry to the published seeds, the only ones that boards read."""
    if found is None:
        return entry
    published = entry.record.task.published
    seeds = tuple(seed for seed in entry.record.seeds if seed in published)
    trimmed = entry.record.model_copy(update={"seeds": seeds, "aggregates": dict(found)})
    return replace(entry, record=trimmed)


def _pages(site: Site, stamp: str, contents: Contents) -> None:
    """Write every page and file except the entries' own."""
    for planned in (*plan.all_of(contents), *api.all_of(contents.board, contents.standings)):
        key = digest(canonical_json([stamp, planned.path, planned.inputs]))
        if not site.keeps(planned.path, key):
            site.put(planned.path, key, planned.make())
