"""The site in a browser: as files and served, at two widths, in both themes, by keyboard alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from lthbench.leaderboard.board import entries as board_entries
from lthbench.leaderboard.site import serve
from lthbench.leaderboard.site.build import build
from lthbench.records import intervals
from tests.browsers import WAIT, chromium, launched
from tests.sites import HOSTILE_NAME, few_draws, site_board

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_lite")]  # of a browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

TASK = "lenet300-mnist"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched(chromium()) as found:
        yield found


@pytest.fixture(scope="module")
def board(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return site_board(tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="module")
def site(board: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "site"
    with pytest.MonkeyPatch.context() as patch:
        few_draws(patch)
        build(out, board)
    return out


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site, served."""
    with serve.listening(site, 0) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://{serve.HERE}:{server.server_port}"
        server.shutdown()
        thread.join()


def kinds(site: Path) -> dict[str, str]:
    """One page of each kind, the hostile entry's among them."""
    entries = sorted((site / "entries" / TASK).glob("*.html"))
    hostile = next((site / "entries").rglob(f"{HOSTILE_NAME}*.html"))
    return {
        "index": "index.html",
        "suite": "boards/lite.html",
        "entries": "entries.html",
        "task": f"tasks/{TASK}.html",
        "area": "tasks/mlp-modadd59.html",
        "empty task": "tasks/conv4-cifar10.html",
        "entry": entries[0].relative_to(site).as_posix(),
        "hostile": hostile.relative_to(site).as_posix(),
        "compare": f"compare/{TASK}.html",
        "compare index": "compare.html",
        "evidence": "evidence.html",
        "pair": next((site / "evidence").rglob("*.html")).relative_to(site).as_posix(),
        "about": "about.html",
    }


@dataclass
class Watched:
    """What pages of one context complained of, and asked for."""

    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def demand(self, *homes: str) -> None:
        """Nothing complained, and nothing but these was asked."""
        assert self.complaints == []
        known = (*homes, "file:", "data:", "blob:")
        assert [url for url in self.requests if not url.startswith(known)] == []


def watched(context: BrowserContext) -> tuple[Page, Watched]:
    context.set_default_timeout(WAIT)
    page, seen = context.new_page(), Watched()
    page.on("console", lambda message: seen.complaints.append(message.text))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("dialog", lambda dialog: seen.complaints.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("requestfailed", lambda request: seen.complaints.append(f"failed: {request.url}"))
    return page, seen


@contextmanager
def opened(browser: Browser, *homes: str, **options: Any) -> Iterator[Page]:
    """A page whose complaints and requests are looked at in the end."""
    context = browser.new_context(**options)
    page, seen = watched(context)
    yield page
    context.close()
    seen.demand(*homes)


def visit(page: Page, address: str, *, scripts: bool = True) -> None:
    page.goto(address)
    if scripts:
        ready(page)
        if page.locator("[data-figure]").count():
            page.locator("html[data-drawn]").wait_for(state="attached")


def ready(page: Page) -> None:
    """Wait until scripts have run; the policy forbids what `wait_for_function` evaluates."""
    page.locator("html[data-ready]").wait_for(state="attached")


# Every page


@pytest.mark.parametrize("width", [320, 1280])
def test_the_first_screen_is_the_ranking(browser: Browser, site: Path, width: int) -> None:
    """Rank, method and score of the first rows, and who is first, before anything else."""
    with opened(browser, viewport={"width": width, "height": 700}) as page:
        visit(page, (site / "index.html").as_uri())
        assert page.locator("h1").inner_text().startswith("Early weights")
        rows = page.locator("#lite-early tbody tr")
        for place in range(3):
            cells = rows.nth(place).locator("> *")
            for column in range(3):
                box = cells.nth(column).bounding_box()
                assert box is not None
                assert box["y"] + box["height"] < 700 and box["x"] + box["width"] <= width
        assert rows.first.locator("td").first.inner_text()[0] == "1"
        assert page.locator(".verdict").first.is_visible()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "theme"), [(320, "dark"), (1280, "light")])
def test_every_page_is_whole(browser: Browser, site: Path, width: int, theme: Any) -> None:
    """As files: nothing overflows, charts are drawn, ink and paper are of the theme."""
    viewport = {"width": width, "height": 800}
    with opened(browser, viewport=viewport, color_scheme=theme) as page:
        for name, path in kinds(site).items():
            visit(page, (site / path).as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            charts = page.locator("[data-figure]").count()
            assert page.locator(".plot .plot-container").count() == charts, name
            paper, ink = (
                page.evaluate(f"getComputedStyle(document.body).{what}")
                for what in ("backgroundColor", "color")
            )
            bright = [sum(map(int, colour[4:-1].split(","))) > 384 for colour in (paper, ink)]
            assert bright == ([True, False] if theme == "light" else [False, True]), name
            for summary in page.locator("summary:visible").all():
                summary.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name


# By how much each name of the legends is wider than the room that plotly left for it.
CUT = """() => [...document.querySelectorAll('.plot .legend')].flatMap((legend) => {
  const room = legend.querySelector('.bg').getBoundingClientRect();
  return [...legend.querySelectorAll('.legendtext')].map((text) => {
    const own = text.getBoundingClientRect();
    return [text.textContent, Math.max(own.right - room.right, own.bottom - room.bottom)];
  });
})"""


def test_words_of_a_ledger_are_whole(browser: Browser, site: Path) -> None:
    """Though a long sentence stands beside them on a narrow screen."""
    tops = "cell => { const r = document.createRange(); r.selectNodeContents(cell); "
    tops += "return new Set([...r.getClientRects()].map(box => box.top)).size }"
    told = (p for p in (site / "entries").rglob("*.html") if "; drawn by " in p.read_text("utf-8"))
    with opened(browser, viewport={"width": 375, "height": 900}) as page:
        visit(page, next(told).as_uri())
        longer = "cell => { cell.textContent += ' and so on'.repeat(40) }"
        page.locator("#trust table.text tbody td:last-child").last.evaluate(longer)
        acts = page.locator("#trust table.text tbody td:nth-child(2)").filter(
            has_text=re.compile("^(accepted|verified)$")
        )
        assert acts.count() > 1
        assert {act.evaluate(tops) for act in acts.all()} == {1}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_table_shows_that_it_scrolls(browser: Browser, site: Path, theme: Any) -> None:
    """Its edge is shaded until its end is in sight."""
    size = {"width": 375, "height": 900}
    with opened(browser, viewport=size, color_scheme=theme) as page:
        visit(page, (site / f"tasks/{TASK}.html").as_uri())
        region = page.locator(".scroll:has(#every)")
        # What is in the table is hidden, so that the edge differs by its shadow alone.
        region.evaluate("r => { r.firstElementChild.style.visibility = 'hidden' }")
        assert region.evaluate("r => r.scrollWidth > r.clientWidth + 100")
        start = region.screenshot()
        region.evaluate("r => { r.scrollLeft = r.scrollWidth }")
        end = region.screenshot()
        region.evaluate("r => { r.style.background = 'none' }")
        bare = region.screenshot()
        assert start != end and bare not in (start, end)


@pytest.mark.parametrize("width", [375, 1280])
def test_no_name_of_a_legend_is_cut_off(browser: Browser, site: Path, width: int) -> None:
    """It is measured in the type that it is drawn in."""
    with opened(browser, viewport={"width": width, "height": 800}) as page:
        for name in ("task", "area", "entry"):
            visit(page, (site / kinds(site)[name]).as_uri())
            found = page.evaluate(CUT)
            assert found, name
            assert [text for text, over in found if over > 0] == [], name


@pytest.mark.slow
def test_every_page_is_served_as_well(browser: Browser, site: Path, address: str) -> None:
    with opened(browser, address) as page:
        for path in kinds(site).values():
            visit(page, f"{address}/{path}")
            assert page.locator("h1").is_visible()


@pytest.mark.slow
def test_it_reads_without_javascript(browser: Browser, site: Path) -> None:
    """Tables stand there; no control that would do nothing, no empty frame of a chart."""
    with opened(browser, java_script_enabled=False) as page:
        for name, path in kinds(site).items():
            visit(page, (site / path).as_uri(), scripts=False)
            if name not in ("empty task", "compare index"):
                assert page.locator("table:visible").count(), name
            for control in ("button", "select", "input", ".plot"):
                assert page.locator(f"{control}:visible").count() == 0, f"{name}: {control}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theme", "rules"), [("light", "{}"), ("dark", "{runOnly: ['color-contrast']}")]
)
def test_axe_finds_nothing_serious(browser: Browser, site: Path, theme: Any, rules: str) -> None:
    """By all of its rules, and in the other theme by the one that is about colours."""
    script = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    found: list[str] = []
    # The policy keeps the page from running what a test brings.
    context = browser.new_context(color_scheme=theme, bypass_csp=True)
    page, _ = watched(context)
    for name, path in kinds(site).items():
        visit(page, (site / path).as_uri())
        page.evaluate(script)
        result = page.evaluate(f"axe.run({rules})")
        for violation in result["violations"]:
            if violation["impact"] in ("serious", "critical"):
                where = [node["target"] for node in violation["nodes"][:3]]
                found.append(f"{name}: {violation['id']}: {where}")
    context.close()
    assert found == []


def test_hostile_entries_do_nothing(browser: Browser, site: Path) -> None:
    """No title is taken, no dialog opens, nothing is fetched, nothing leaves its place."""
    with opened(browser) as page:
        for name in ("hostile", "index", "entries"):
            visit(page, (site / kinds(site)[name]).as_uri())
            assert "taken" not in page.title()
            assert page.locator("img").count() == 0
        visit(page, (site / kinds(site)["hostile"]).as_uri())
        for summary in page.locator("summary").all():
            summary.click()
        assert page.get_by_text("document.title='taken'").first.is_visible()
        assert page.evaluate("document.querySelectorAll('main script:not([type])').length") == 0


# Sorting and filtering


def column(page: Page, table: str, index: int) -> list[str]:
    cells = page.locator(f"#{table} tbody tr:visible > :nth-child({index})")
    return [text.split("\n")[0].strip() for text in cells.all_inner_texts()]


def test_sorting_keeps_ranks_and_stands_in_the_address(browser: Browser, site: Path) -> None:
    with opened(browser) as page:
        visit(page, (site / "index.html").as_uri())
        before = {*zip(column(page, "lite-early", 1), column(page, "lite-early", 2), strict=True)}
        head = page.locator("#lite-early th", has_text="search cost")
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        costs = [float(cost.lstrip("<")) for cost in column(page, "lite-early", 4)]
        assert costs == sorted(costs)
        after = {*zip(column(page, "lite-early", 1), column(page, "lite-early", 2), strict=True)}
        assert after == before
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert "sort.lite-early=cost.desc" in page.url
        page.reload()
        ready(page)
        costs = [float(cost.lstrip("<")) for cost in column(page, "lite-early", 4)]
        assert costs == sorted(costs, reverse=True)


def test_filters_hold_and_stand_in_the_address(browser: Browser, site: Path) -> None:
    with opened(browser) as page:
        visit(page, (site / "entries.html").as_uri())
        total = page.locator("#entries tbody tr").count()
        page.get_by_label("task").select_option(TASK)
        page.get_by_label("verified").select_option("2")
        page.get_by_label("starts from").select_option("init")
        shown = page.locator("#entries tbody tr:visible")
        count = shown.count()
        assert 0 < count < total
        assert page.locator(".count").inner_text() == f"{count} of {total} entries"
        assert {*column(page, "entries", 2)} == {TASK}
        assert all(word[0] in "23" for word in column(page, "entries", 3))
        for part in (f"task={TASK}", "level=2", "division=init"):
            assert part in page.url
        page.reload()
        ready(page)
        assert shown.count() == count
        page.get_by_label("method").fill("no such method")
        assert page.locator(".count").inner_text() == f"0 of {total} entries"


def test_a_task_leaves_its_own_columns_on_the_boards(browser: Browser, site: Path) -> None:
    with opened(browser) as page:
        visit(page, f"{(site / 'index.html').as_uri()}?task={TASK}")
        heads = page.locator("#lite-early th:visible").all_inner_texts()
        assert any(TASK in head.replace("\n", "") for head in heads)
        assert not any("modadd" in head for head in heads)


def test_an_address_with_nonsense_does_nothing(browser: Browser, site: Path) -> None:
    with opened(browser) as page:
        query = "?sort.lite-early=__proto__.up&task=%3Cscript%3E&level=x&q=%00&a=1#none"
        visit(page, (site / "index.html").as_uri() + query)
        assert page.locator("#lite-early tbody tr").count()


# By keyboard


def test_the_keyboard_reaches_everything(browser: Browser, site: Path) -> None:
    """The way to the content first; a column is sorted, a table scrolled, without a pointer."""
    with opened(browser, viewport={"width": 320, "height": 700}) as page:
        visit(page, (site / "index.html").as_uri())
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.url.endswith("#main")
        seen = []
        for _ in range(12):
            page.keyboard.press("Tab")
            seen.append(
                page.evaluate("[document.activeElement.tagName, document.activeElement.className]")
            )
            if seen[-1] == ["BUTTON", ""]:
                break
        assert ["SUMMARY", ""] in seen and ["DIV", "scroll board"] in seen
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
        page.keyboard.press("Enter")
        head = page.locator("#lite-early th[aria-sort=ascending]")
        assert head.count() == 1
        page.locator(".scroll.board").first.focus()
        page.keyboard.press("ArrowRight")
        for _ in range(200):
            if page.evaluate("document.querySelector('.scroll.board').scrollLeft") > 0:
                return
            page.wait_for_timeout(50)
        pytest.fail("the table does not scroll by keyboard")


# Five visitors' questions, each at most one click from the first page


def click(page: Page, text: str, exact: bool = True) -> None:
    page.get_by_role("link", name=text, exact=exact).first.click()
    page.wait_for_load_state()


def test_who_is_best_at_5_percent_and_is_it_certain(browser: Browser, site: Path) -> None:
    """Without a click for the nearest rung; with one for all."""
    with opened(browser) as page:
        visit(page, (site / "index.html").as_uri())
        row = page.locator("#tasks tbody tr", has_text=TASK).first
        density, best, _, certain = (row.locator("> *").nth(i).inner_text() for i in range(3, 7))
        assert float(density) == 3.52 and best
        assert certain.startswith(("yes", "no", "cannot be told"))
        assert "5 seeds are too few for a test" in certain
        click(page, TASK)
        told = page.locator("#best-early tbody tr", has_text="3.52").inner_text()
        assert best.split("\n")[0] in told and certain in told


def test_at_what_cost(browser: Browser, site: Path) -> None:
    with opened(browser) as page:
        visit(page, (site / "index.html").as_uri())
        imp = page.locator("#lite-early tbody tr", has_text="imp")
        assert imp.locator("> *").nth(3).inner_text() == "23.0"
        assert page.locator("#lite-early th", has_text="search cost").is_visible()
        click(page, TASK)
        assert page.get_by_role("heading", name="At what cost").is_visible()
        assert page.locator("#front tbody tr").count()


def test_can_i_trust_it(browser: Browser, site: Path) -> None:
    with opened(browser) as page:
        visit(page, (site / "index.html").as_uri())
        levels = [word.split("\n")[0] for word in column(page, "lite-early", 5)]
        words = {"not accepted", "0 reported", "1 artefacts checked", "2 retrained", "3 reproduced"}
        assert {*levels} <= words
        click(page, "Can I trust it?")
        assert page.get_by_role("heading", name="Can I trust it?").is_visible()
        assert page.get_by_role("heading", name="What is not promised").is_visible()


def test_how_do_i_cite_it(browser: Browser, site: Path) -> None:
    """One click to an entry's page; its citation is copied by one more."""
    with opened(browser) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        visit(page, (site / "index.html").as_uri())
        page.locator("#lite-early tbody th a").first.click()
        ready(page)
        text = page.locator("#text-bibtex").inner_text()
        assert text.startswith("@") and page.locator("#text-cff").is_visible()
        page.get_by_role("button", name="Copy: BibTeX").click()
        page.get_by_text("Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()").strip() == text.strip()


def test_how_do_i_add_mine(browser: Browser, site: Path) -> None:
    with opened(browser) as page:
        visit(page, (site / "index.html").as_uri())
        click(page, "Add yours")
        assert page.get_by_role("heading", name="Add yours").is_visible()
        for command in ("lthbench new", "lthbench evaluate", "lthbench submit"):
            assert page.get_by_text(command).first.is_visible()


# Two entries


def differences(a: Sequence[float], b: Sequence[float]) -> str:
    found = intervals.paired_interval(a, b)
    assert found.low is not None and found.high is not None
    texts = [f"{value:+.3f}".replace("-", "−") for value in (found.mean, found.low, found.high)]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def test_two_entries_are_compared_as_python_does(browser: Browser, site: Path, board: Path) -> None:
    """The script's interval is that of `stats`; the pair stands in the address."""
    whole = board_entries.load(board)
    mine = [e for e in whole.entries if e.record.task.name == TASK and e.state == "accepted"]
    a, b = [e for e in mine if e.record.aggregates["retention"]][:2]
    values = [e.record.aggregates["retention"]["values"] for e in (a, b)]
    with opened(browser) as page:
        visit(page, f"{(site / 'compare' / TASK).as_uri()}.html?a={a.id}&b={b.id}")
        row = page.locator("#difference tbody tr").first
        assert row.locator("td").last.inner_text() == differences(*values)
        page.get_by_role("button", name="swap").click()
        assert row.locator("td").last.inner_text() == differences(values[1], values[0])
        assert f"a={b.id}" in page.url and f"b={a.id}" in page.url
        assert "too few for a test" in page.locator("#comparison .verdict").inner_text()
        page.get_by_label("first").select_option(a.id)
        assert a.record.method.name in page.locator("#difference caption").inner_text()


@pytest.mark.parametrize("alike", [True, False], ids=["alike", "not alike"])
def test_columns_are_of_the_common_seeds(
    browser: Browser, site: Path, tmp_path: Path, alike: bool
) -> None:
    """Columns differ by the difference; of differences that are all alike there is no interval."""
    copy = shutil.copytree(site, tmp_path / "copy")
    path = copy / "compare" / f"{TASK}.html"
    head, opening, rest = path.read_text("utf-8").partition('id="compared">')
    block, closing, tail = rest.partition("</script>")
    data = json.loads(block)
    trained = [one for one in data["entries"].values() if one["kind"] == "trained"]
    a, b = [one for one in trained if one["headline"]][:2]
    a |= {"seeds": [0, 1, 2, 3, 4], "headline": [0.9, 0.3, 0.9, 0.5, 0.1]}
    b |= {"seeds": [3, 7, 2, 1], "headline": [0.4, 0.0, 0.8, 0.2 if alike else 0.1]}
    for one in (a, b):
        one["rungs"] = {key: one["headline"] for key in one["rungs"]}
    path.write_text(f"{head}{opening}{json.dumps(data)}{closing}{tail}", "utf-8")
    with opened(browser) as page:
        visit(page, f"{path.as_uri()}?a={a['id']}&b={b['id']}")
        assert "on the 3 common seeds" in page.locator("#difference caption").inner_text()
        rows = page.locator("#difference tbody tr")
        first, second, apart = rows.first.locator("td").all_inner_texts()
        assert first == "0.567" and second == ("0.467" if alike else "0.433")
        assert (apart == "+0.100") if alike else apart.startswith("+0.133 [")
        first, second, apart = rows.nth(1).locator("td").all_inner_texts()
        assert first == "56.67" and second == ("46.67" if alike else "43.33")
        assert (apart == "+10.00 points") if alike else apart.startswith("+13.33 [")
        said = page.locator("#comparison .verdict").inner_text()
        assert ("interval" in said) != alike and "too few for a test" in said


def test_trained_and_untrained_are_never_compared(
    browser: Browser, site: Path, board: Path
) -> None:
    whole = board_entries.load(board).entries
    mine = [e for e in whole if e.record.task.name == TASK and e.state == "accepted"]
    a = next(e for e in mine if "untrained" in e.record.aggregates)
    b = next(e for e in mine if "untrained" not in e.record.aggregates)
    with opened(browser) as page:
        visit(page, f"{(site / 'compare' / TASK).as_uri()}.html?a={a.id}&b={b.id}")
        assert "never compared" in page.locator("#comparison").inner_text()


def test_data_blocks_hold_the_same_as_the_tables(browser: Browser, site: Path) -> None:
    """A chart's points are the figures of its table."""
    with opened(browser) as page:
        visit(page, (site / f"tasks/{TASK}.html").as_uri())
        block = json.loads(page.locator("#figure-pareto").text_content() or "")
        costs = {round(x, 2) for trace in block["traces"] for x in trace["x"]}
        shown = {float(text) for text in column(page, "every", 6) if not text.startswith("<")}
        assert {cost for cost in shown if cost >= 10} <= {round(cost, 1) for cost in costs}


def test_it_prints_without_its_controls(browser: Browser, site: Path) -> None:
    with opened(browser) as page:
        visit(page, (site / "index.html").as_uri())
        page.emulate_media(media="print")
        assert page.locator(".filters:visible").count() == 0
        assert page.locator("nav:visible").count() == 0
        assert page.locator("#lite-early").is_visible()


@pytest.mark.slow
def test_a_page_without_plotly_says_so(browser: Browser, site: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(site, tmp_path / "copy")
    (copy / "assets" / "plotly.min.js").write_text("")
    context = browser.new_context()
    page = context.new_page()
    page.goto((copy / f"tasks/{TASK}.html").as_uri())
    assert "assets/plotly.min.js" in page.locator(".plot").first.inner_text()
    assert page.locator("table").first.is_visible()
    context.close()
