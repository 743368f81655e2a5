from typing import Literal

from skyward.events import Event, Logged, NodeHeard, Printed, RunEnded
from skyward.view.output_filter import (
    BAR_INTERVAL_S,
    BURST_LINES,
    MAX_CHARACTERS_PER_S,
    MAX_LINES_PER_S,
    NOTE_INTERVAL_S,
    OutputFilter,
    Show,
    prefix,
)

UP = "\x1b[A"


def printed(
    text: str, at: float = 0.0, node: int = 0, slot: int = 1, stream: Literal["stdout", "stderr"] = "stderr"
) -> Printed:
    return Printed(at, node, slot, stream, text)


def shown(prints: OutputFilter, *events: Event) -> list[str]:
    """What is shown, without the label of node 0, slot 1."""
    return [each.text.removeprefix(prefix(0, 1)) for each in prints.heard(events) if isinstance(each, Show)]


def test_each_line_says_where_it_is_from() -> None:
    events = [printed("a\nb\n", stream="stdout"), printed("c\n", node=3, slot=7), printed("d\n", slot=-1)]
    assert OutputFilter("there").heard(events) == [
        Show("stdout", "[node 0 slot 1] a"),
        Show("stdout", "[node 0 slot 1] b"),
        Show("stderr", "[node 3 slot 7] c"),
        Show("stderr", "[node 0] d"),
    ]


def test_nothing_happens_when_nothing_was_said() -> None:
    assert OutputFilter("there").heard([]) == []
    assert OutputFilter("there").heard([NodeHeard(0.0, 1)]) == []


def test_a_part_of_a_line_is_shown_as_a_line() -> None:
    assert shown(OutputFilter("there"), printed("wait"), printed(" is over\n"), printed("\n")) == [
        "wait",
        " is over",
        "",
    ]


def test_lines_that_end_as_on_windows_are_lines() -> None:
    assert shown(OutputFilter("there"), printed("a\r\nb\r\n")) == ["a", "b"]


def test_a_record_of_logging_keeps_its_place() -> None:
    logged = Logged(0.0, 0, 1, "lib", 20, "text")
    assert OutputFilter("there").heard([printed("a\n"), logged, printed("b\n")]) == [
        Show("stderr", "[node 0 slot 1] a"),
        logged,
        Show("stderr", "[node 0 slot 1] b"),
    ]


# ---------------------------------------------------------------- progress bars


def test_a_progress_bar_is_shown_now_and_then_and_at_its_end() -> None:
    events = [printed(f"\r{percent}%", percent / 10) for percent in range(100)]
    assert shown(OutputFilter("there"), *events, printed("\r100%\n", 10.0)) == ["0%", "50%", "100%"]
    assert BAR_INTERVAL_S == 5.0


def test_a_bar_whose_line_ends_later_is_shown_once_more() -> None:
    prints = OutputFilter("there")
    assert shown(prints, printed("\r0%"), printed("\r99%\r100%", 1.0)) == ["0%"]
    assert shown(prints, printed("\n", 1.1), printed("\n", 1.2)) == ["100%", ""]


def test_a_bar_that_did_not_move_is_not_shown_twice() -> None:
    assert shown(OutputFilter("there"), printed("\r0%"), printed("\r0%", 6.0), printed("\n", 7.0)) == ["0%"]


def test_what_is_printed_beside_a_bar_is_shown_at_once() -> None:
    assert shown(OutputFilter("there"), printed("\r0%"), printed("\r7%", 1.0), printed("note\n", 1.1)) == ["0%", "note"]


def test_a_bar_that_wipes_itself_is_gone() -> None:
    assert shown(OutputFilter("there"), printed("\r0%"), printed("\r99%\r      \r\n", 1.0)) == ["0%"]
    assert shown(OutputFilter("there"), printed("\r   \r")) == []


def test_bars_within_bars_are_shown_now_and_then() -> None:
    prints = OutputFilter("there")
    inner = [printed(f"\n\rinner {percent}%{UP}", percent / 10) for percent in range(100)]
    assert shown(prints, printed("\router 0%"), *inner) == ["outer 0%", "inner 0%", "inner 50%"]
    assert shown(prints, printed("\router 50%", 10.0), printed("done\n", 10.1)) == ["outer 50%", "done"]


def test_a_bar_that_never_ended_is_shown_when_the_run_has() -> None:
    prints = OutputFilter("there")
    shown(prints, printed("\r0%"), printed("\r8%", 1.0))
    assert shown(prints, RunEnded(2.0, "", (), {})) == ["8%"]


# ---------------------------------------------------------------- too much


def flood(count: int, at: float, node: int = 0) -> list[Printed]:
    return [printed("x\n", at, node) for _ in range(count)]


def test_a_flood_is_shown_in_part_and_the_rest_is_counted() -> None:
    prints = OutputFilter("runs/1.jsonl")
    assert shown(prints, *flood(BURST_LINES + 1234, 0.0)) == ["x"] * BURST_LINES
    assert shown(prints, NodeHeard(0.5, 0)) == []
    assert shown(prints, NodeHeard(1.0, 0)) == [note("1,234 lines are")]
    assert shown(prints, NodeHeard(2.0, 0)) == []


def note(lines: str, where: str = "runs/1.jsonl") -> str:
    return f"[node 0] {lines} not shown, as there were too many; all are in {where}"


def test_a_flood_that_goes_on_is_told_of_now_and_then() -> None:
    prints = OutputFilter("runs/1.jsonl")
    told = []
    for tenth in range(250):
        told += [text for text in shown(prints, *flood(MAX_LINES_PER_S, tenth / 10)) if text != "x"]
    assert len(told) == 3
    assert NOTE_INTERVAL_S == 10.0


def test_lines_are_shown_again_when_the_flood_is_over() -> None:
    prints = OutputFilter("runs/1.jsonl")
    shown(prints, *flood(BURST_LINES + 1, 0.0))
    assert shown(prints, printed("y\n", 1.5)) == [note("1 line is"), "y"]


def test_what_is_shown_of_a_flood_comes_back_with_time() -> None:
    prints = OutputFilter("there")
    shown(prints, *flood(BURST_LINES, 0.0))
    assert shown(prints, *flood(BURST_LINES, 2.0)).count("x") == 2 * MAX_LINES_PER_S
    assert shown(prints, *flood(BURST_LINES + 1, 60.0)).count("x") == BURST_LINES


def test_a_flood_of_one_node_takes_no_line_from_another() -> None:
    prints = OutputFilter("there")
    shown(prints, *flood(BURST_LINES + 1, 0.0))
    assert prints.heard(flood(1, 0.0, node=1)) == [Show("stderr", "[node 1 slot 1] x")]


def test_long_lines_count_as_many_but_one_is_always_shown() -> None:
    prints = OutputFilter("there")
    assert shown(prints, printed("x" * (MAX_CHARACTERS_PER_S + 1) + "\n"), printed("y\n")) == [
        "x" * (MAX_CHARACTERS_PER_S + 1)
    ]


def test_records_of_logging_count_as_lines() -> None:
    logged = Logged(0.0, 0, 1, "lib", 20, "text")
    assert OutputFilter("there").heard([logged] * (BURST_LINES + 5)) == [logged] * BURST_LINES


def test_what_was_not_shown_is_told_when_the_run_ends() -> None:
    prints = OutputFilter("runs/1.jsonl")
    shown(prints, *flood(BURST_LINES + 2, 0.0))
    assert shown(prints, RunEnded(0.1, "", (), {})) == [note("2 lines are")]


def test_control_sequences_are_shown_and_colors_stay() -> None:
    prints = OutputFilter("here")
    effects = prints.heard([Printed(1.0, 0, 0, "stdout", "\x1b[31mred\n\x1b[2Jgone\n10%\r\x1b[2Jx\n")])

    assert effects == [
        Show("stdout", "[node 0 slot 0] \x1b[31mred\x1b[0m"),
        Show("stdout", "[node 0 slot 0] \\x1b[2Jgone"),
        Show("stdout", "[node 0 slot 0] \\x1b[2Jx"),
    ]


def test_control_sequences_of_records_are_shown() -> None:
    record = Logged(1.0, 0, 0, "a\x1b[2J", 20, "t\x1b[H", "Trace\n\x1b[1A", "p\x07", 3, "f\x08")
    (shown,) = OutputFilter("here").heard([record])

    assert shown == Logged(1.0, 0, 0, r"a\x1b[2J", 20, r"t\x1b[H", "Trace\n\\x1b[1A", r"p\x07", 3, r"f\x08")
    assert OutputFilter("here", raw=True).heard([record]) == [record]


def test_who_wants_them_has_control_sequences_as_they_come() -> None:
    prints = OutputFilter("here", raw=True)

    assert prints.heard([Printed(1.0, 0, 0, "stdout", "\x1b[2Jgone\n")]) == [
        Show("stdout", "[node 0 slot 0] \x1b[2Jgone")
    ]
