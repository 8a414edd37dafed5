"""report.html in a browser: opened from the file system, at two widths, in both themes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lthbench.report.html import write_report
from tests.browsers import WAIT, chromium, launched
from tests.synthetic import synthetic_record

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
SPARSEST = 0.8**23
CHARTS = 6  # two of each task, and their training curves


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched(chromium()) as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, one with a failed ticket whose reason is markup."""
    bad = {("ticket", SPARSEST, 1): ("missing", "</script><img src=x onerror=alert(1)>")}
    records = [synthetic_record(bad=bad), synthetic_record(kind="area")]
    return write_report(tmp_path_factory.mktemp("report"), records)


@contextmanager
def opened(browser: Browser, report: Path, **options: Any) -> Iterator[Page]:
    """The page, with what it complained of and asked for collected in its window's name."""
    context = browser.new_context(**options)
    context.set_default_timeout(WAIT)
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: requests.append(request.url))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.goto(report.as_uri())
    if options.get("java_script_enabled", True):
        page.wait_for_function("document.documentElement.dataset.drawn")
    yield page
    context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_the_page_is_whole(browser: Browser, report: Path, width: int, theme: Any) -> None:
    """Charts are drawn, nothing overflows, and the first screen holds the answers.

    On a phone these are the sentences and the first task's headline, else the whole first task.
    """
    viewport = {"width": width, "height": 800}
    with opened(browser, report, viewport=viewport, color_scheme=theme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator(".plot svg.main-svg").first.is_visible()
        assert page.locator(".plot .plot-container").count() == CHARTS
        assert page.locator(".plot .scatterlayer .trace").count() > 20
        answer = ".glance .figure" if width == 320 else ".glance"
        box = page.locator(answer).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 800
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = page.evaluate("getComputedStyle(document.querySelector('.plot .xtick text')).fill")
        bright = [sum(map(int, colour[4:-1].split(","))) > 384 for colour in (paper, ink)]
        assert bright == ([True, False] if theme == "light" else [False, True])


def test_tables_scroll_inside_their_boxes(browser: Browser, report: Path) -> None:
    with opened(browser, report, viewport={"width": 320, "height": 800}) as page:
        widths = page.evaluate(
            "[...document.querySelectorAll('.scroll')].filter(b => b.offsetWidth)"
            ".map(b => [b.getBoundingClientRect().right, b.scrollWidth > b.clientWidth])"
        )
        assert all(right <= 320 for right, _ in widths)
        assert any(scrolls for _, scrolls in widths)
        for summary in page.locator("summary").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_it_reads_without_javascript(browser: Browser, report: Path) -> None:
    """Tables and answers stand there; no empty frames of charts do."""
    with opened(browser, report, java_script_enabled=False) as page:
        assert page.locator("table").first.is_visible()
        assert page.get_by_text("identity matters on").first.is_visible()
        assert page.locator(".plot:visible").count() == 0
        assert page.locator("img").count() == 0


def test_a_page_without_its_scripts_says_so(browser: Browser, report: Path, tmp_path: Path) -> None:
    """Someone keeps the assets but for plotly's script: the tables stay, charts say what lacks."""
    shutil.copytree(report.parent, tmp_path / "copy")
    (tmp_path / "copy" / "assets" / "plotly.min.js").write_text("")
    context = browser.new_context()
    page = context.new_page()
    page.goto((tmp_path / "copy" / "report.html").as_uri())
    assert "assets/plotly.min.js" in page.locator(".plot").first.inner_text()
    assert page.locator("table").first.is_visible()
    context.close()
