"""What a page is made of: sections of blocks. The template knows how each looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias


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
    """A figure, an SVG element, and what to see in it."""

    kind: ClassVar[str] = "plot"
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side: (address of the image data, what is seen)."""

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
class Row:
    """Plots side by side."""

    kind: ClassVar[str] = "row"
    blocks: Sequence[Block]


Block: TypeAlias = Text | Heading | Facts | Plot | Gallery | Table | Fold | Row


@dataclass(frozen=True)
class Section:
    """A part of the page with an entry in the contents. anchor: its address within the page."""

    anchor: str
    title: str
    lead: str = ""
    blocks: list[Block] = field(default_factory=list)
