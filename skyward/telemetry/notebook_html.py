"""A pool and its report as a notebook shows them: HTML without scripts, in the notebook's own colors. Pure: no I/O."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Protocol

PALETTE = ("#2e8b57", "#e0a526", "#8b5fbf", "#c2558f", "#9aa3ad", "#5b8fb9", "#d1603d")
"""Colors of shares, in their order."""

_TILE = "border:1px solid #8884;border-radius:.3em;padding:.3em .7em"
_LEGEND = "margin-right:1em;white-space:nowrap"
_CELL = "text-align:left;padding:.15em .9em .15em 0"


class ShownNode(Protocol):
    """What is shown of a node."""

    @property
    def number(self) -> int: ...
    @property
    def host(self) -> str: ...
    @property
    def instance(self) -> str: ...
    @property
    def slots(self) -> int: ...


class ShownReport(Protocol):
    """What was done, as a notebook shows it, if anything was."""

    @property
    def calls(self) -> int: ...
    def _repr_html_(self) -> str: ...


def pool(title: str, nodes: Iterable[ShownNode], report: ShownReport | None) -> str:
    """Return a pool with the nodes that take calls, and what it has done."""
    rows = [(node.number, node.host, node.instance, node.slots) for node in nodes]
    shown = [f"<code>{escape(title)}</code>"]
    if rows:
        shown.append(table(("Node", "Host", "Machine", "Slots"), rows))
    if report is not None and report.calls:
        shown.append(report._repr_html_())
    return "".join(shown)


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """Return figures, each with its label."""
    shown = "".join(
        f'<div style="{_TILE}"><div style="opacity:.7;font-size:85%">{escape(label)}</div>{escape(value)}</div>'
        for label, value in pairs
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:.4em;margin:.4em 0">{shown}</div>'


def shares(parts: Sequence[tuple[str, float]]) -> str:
    """Return shares of a whole as a bar with its legend."""
    colored = [(escape(name), part, PALETTE[index % len(PALETTE)]) for index, (name, part) in enumerate(parts)]
    bar = "".join(f'<div style="width:{part:.2%};background:{color}"></div>' for _, part, color in colored)
    legend = "".join(
        f'<span style="{_LEGEND}"><span style="color:{color}">&#9632;</span> {name} {part:.1%}</span>'
        for name, part, color in colored
    )
    return (
        f'<div style="display:flex;height:1em;max-width:60em;border-radius:.3em;overflow:hidden" aria-hidden="true">'
        f'{bar}</div><div style="font-size:90%">{legend}</div>'
    )


def paragraph(text: str) -> str:
    """Return text as a paragraph."""
    return f'<p style="margin:.4em 0">{escape(text)}</p>'


def folded(title: str, text: str) -> str:
    """Return text that is shown after a click on its title."""
    body = f'<pre style="white-space:pre-wrap">{escape(text)}</pre>'
    return f'<details><summary style="cursor:pointer">{escape(title)}</summary>{body}</details>'


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows under the names of their columns."""
    head = "".join(f'<th style="{_CELL}">{escape(name)}</th>' for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td style="{_CELL}">{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
