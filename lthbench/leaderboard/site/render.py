"""Template rendering: one environment per process, everything escaped, data as JSON blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lthbench.leaderboard.site.labels import BOARDS, DIVISIONS, level, many
from lthbench.report.formats import NA
from lthbench.report.html import embedded

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
CLASSES = {NA: ' class="na"', "yes": ' class="yes"'}
NAVIGATION = (
    ("Ranking", "index.html"),
    ("Entries", "entries.html"),
    ("Compare", "compare.html"),
    ("Evidence", "evidence.html"),
    ("Rules", "about.html"),
    ("Trust", "about.html#trust"),
    ("Cite", "about.html#cite"),
    ("Add yours", "about.html#submit"),
)


@dataclass(frozen=True)
class Page:
    """A page's path in the site, and the content of its head.

    Attributes:
        charts: Whether to load plotly's script.
        compares: Whether to load the script that compares two entries.
    """

    path: str
    title: str
    description: str
    charts: bool = False
    compares: bool = False

    @property
    def root(self) -> str:
        """Relative path from the page to the site's folder."""
        return "../" * self.path.count("/")


def render(template: str, page: Page, **values: Any) -> bytes:
    """Render a page."""
    return _environment().get_template(template).render(page=page, **values).encode()


def text_rows(rows: Iterable[Sequence[str]]) -> Markup:
    """Format rows of text as HTML; joined here, since an entry's page has thousands of cells.

    Everything is escaped, as in the templates.
    """
    from html import escape

    from markupsafe import Markup

    lines = []
    for first, *others in rows:
        cells = "".join(f"<td{CLASSES.get(t, '')}>{escape(t, quote=True)}</td>" for t in others)
        lines.append(f'<tr><th scope="row">{escape(first, quote=True)}</th>{cells}</tr>\n')
    return Markup("".join(lines))


@cache
def _environment() -> Environment:
    from importlib.metadata import version

    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters["embedded"] = embedded
    environment.filters["text_rows"] = text_rows
    environment.filters["many"] = many
    environment.globals.update(
        na=NA,
        policy=POLICY,
        navigation=NAVIGATION,
        boards=BOARDS,
        divisions=DIVISIONS,
        version=version("lthbench"),
        level_word=level,
    )
    return environment
