"""What a notebook is shown is harmless, and needs nothing else."""

from dataclasses import dataclass

import pytest

from skyward.telemetry import notebook_html

NASTY = "</pre><script>alert(1)</script>"


@pytest.mark.parametrize(
    "shown",
    [
        notebook_html.tiles([(NASTY, NASTY)]),
        notebook_html.shares([(NASTY, 1.0)]),
        notebook_html.paragraph(NASTY),
        notebook_html.folded(NASTY, NASTY),
        notebook_html.table([NASTY], [[NASTY]]),
    ],
)
def test_what_comes_from_outside_never_becomes_markup(shown: str) -> None:
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown


def test_a_tile_is_a_label_with_its_value() -> None:
    assert ">Tasks</div>80</div>" in notebook_html.tiles([("Tasks", "80")])


def test_shares_are_as_wide_as_they_are() -> None:
    shown = notebook_html.shares([("work", 0.75), ("start", 0.25)])
    assert f"width:75.00%;background:{notebook_html.PALETTE[0]}" in shown
    assert "work 75.0%" in shown
    many = notebook_html.shares([(f"part {number}", 0.1) for number in range(10)])
    assert "part 9 10.0%" in many


@dataclass
class Node:
    number: int
    host: str = "gpu-box"
    instance: str = NASTY
    slots: int = 4


class Done:
    calls = 3

    def _repr_html_(self) -> str:
        return "<b>done</b>"


class Idle(Done):
    calls = 0


def test_a_pool_is_shown_with_its_nodes_and_what_it_did() -> None:
    shown = notebook_html.pool("<Compute local>", [Node(0), Node(1)], Done())
    assert shown.startswith("<code>&lt;Compute local&gt;</code><table>")
    assert shown.count("gpu-box") == 2
    assert "<script" not in shown
    assert shown.endswith("<b>done</b>")
    assert notebook_html.pool("<Compute local>", [], Idle()) == notebook_html.pool("<Compute local>", [], None)


def test_a_table_has_a_row_for_each() -> None:
    shown = notebook_html.table(("Node", "Host"), [(0, "a"), (1, "b")])
    assert shown.count("<tr>") == 3
    assert ">Host</th>" in shown
