"""Pages as one HTML file: templates of this folder, with one style and one way to show a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes
    ----------
    summary : str
        Opens the table where it is folded.
    caption : str
    heads : sequence of str
    rows : sequence of sequence of str
        The first cell of each is its name.
    """

    summary: str
    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def render(template: str, content: Mapping[str, Any]) -> str:
    """Fill a template of this folder; all text in it is escaped unless the template says otherwise."""
    environment = Environment(
        loader=FunctionLoader(source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(content)


def style() -> str:
    """The style sheet of the pages."""
    return source("page.css")


def source(name: str) -> str:
    """Text of a file of this folder."""
    return files("epvs_cohort.report").joinpath(name).read_text(encoding="utf-8")
