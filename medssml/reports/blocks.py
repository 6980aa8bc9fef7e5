"""What a page is made of: sections of blocks. The template knows how each looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from medssml.reports.figures import PHONE, WIDTH


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Facts:
    """A few large numbers: (what, number, note)."""

    kind: ClassVar[str] = "facts"
    items: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Plot:
    """A figure, an SVG element, and what to see in it. narrow: the same for a phone, where it is too wide for one."""

    kind: ClassVar[str] = "plot"
    svg: str
    caption: str = ""
    narrow: str = ""


def fitting(draw: Callable[[float], str], caption: str = "") -> Plot:
    """A figure that is drawn for the page and for a phone, from its width in inches."""
    return Plot(draw(WIDTH), caption, draw(PHONE))


@dataclass(frozen=True)
class Panels:
    """Small figures, as many to a row as fit."""

    kind: ClassVar[str] = "panels"
    plots: Sequence[Plot]


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side: (address of the image data, or a text that stands for a picture, what is seen)."""

    kind: ClassVar[str] = "gallery"
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Rows of texts under column names; `left` is how many columns hold words, the others hold numbers."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    left: int = 1


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown when asked for."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Pale:
    """Blocks that are shown without colour, and the reason why they are not to be relied on."""

    kind: ClassVar[str] = "pale"
    reason: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Judged:
    """Verdicts, one a line: (name, mark, sentence)."""

    kind: ClassVar[str] = "judged"
    items: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Terms:
    """Words and what they mean."""

    kind: ClassVar[str] = "terms"
    items: Sequence[tuple[str, str]]


Block: TypeAlias = Text | Heading | Facts | Plot | Panels | Gallery | Table | Fold | Pale | Judged | Terms


@dataclass(frozen=True)
class Section:
    """A part of the page with an entry in the contents. anchor: its address within the page."""

    anchor: str
    title: str
    lead: str = ""
    blocks: list[Block] = field(default_factory=list)
