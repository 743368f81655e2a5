"""The progress of a run as lines of text for a terminal. Pure: no I/O, no clock, no actor.

A line is pieces of text, each with a style as `rich` names them.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

from skyward.formatting import clock, counted, dollars, in_seconds, rate, size
from skyward.telemetry.report import import_hint
from skyward.view.progress import Concern, NodeProgress, Progress

type StyledLine = tuple[tuple[str, str], ...]

EACH = 12
"""So many nodes have a line each; of more there is a summary."""

NAMED = 4
"""So many nodes that are not right are told one by one."""

WIDTH = 12
"""Characters of the bar,"""

BAR = "█", "░"
"""which are done, and which are not: readable without colors."""

HEAD = ("skyward", "bold cyan")
DOT = (" · ", "dim")
ORDER = ("launching", "reaching", "booting", "joining", "ready", "ending", "ended")
COLOURS = {"gone": "red", "lost": "red", "silent": "yellow", "leaving": "yellow", "full": "yellow", "slow": "yellow"}


def plain(line: StyledLine) -> str:
    """Return the text of a line."""
    return "".join(text for text, _ in line)


def live(progress: Progress, now: float) -> list[StyledLine]:
    """Return what is shown now: how nodes start, or how the work goes. Nothing where there is nothing to wait for."""
    if progress.ended is not None:
        return []
    if progress.open:
        lines = [work(progress, now), *troubles(progress, now)]
        if progress.coming and not progress.complete:
            lines.insert(1, starting(progress, now))
        return lines + watching(progress)
    if progress.complete:
        return []
    quoted: list[StyledLine] = [(("  ", ""), (quote.text, "dim")) for quote in progress.quotes[-1:]]
    begun = [starting(progress, now), *quoted, *nodes(progress, now), *troubles(progress, now, but="lost")]
    return begun + watching(progress)


def watching(progress: Progress) -> list[StyledLine]:
    """Say where the run can be watched."""
    return [(("  watch it at ", "dim"), (progress.link, "underline"))] if progress.link else []


def starting(progress: Progress, now: float) -> StyledLine:
    """Say how many nodes are ready, and what all of them cost."""
    wanted = max(progress.wanted, len(progress.nodes))
    text = f"{len(progress.ready)} of {counted(wanted, 'node')} ready"
    said = [(text, ""), (progress.provider, "dim"), (cost(progress), "green"), (clock(now - progress.began), "dim")]
    return (HEAD, ("  ", ""), *dotted(said))


def nodes(progress: Progress, now: float) -> list[StyledLine]:
    """Say where each node is; of many nodes, how many are where."""
    there = sorted(progress.nodes.values(), key=lambda node: node.number)
    if len(there) > EACH:
        found = Counter(where(node) for node in there)
        ranked = sorted(found.items(), key=lambda each: (ORDER.index(each[0].split(":")[0]), -each[1]))
        lines: list[StyledLine] = [((f"  {count:>5}  ", ""), (at, _colour(at))) for at, count in ranked[:EACH]]
        return lines
    digits = max((len(str(node.number)) for node in there), default=1)
    return [_node(node, digits, now) for node in there]


def where(node: NodeProgress) -> str:
    """Say where a node is: its stage, and the step of its bootstrap."""
    if node.gone:
        return "ended: given up"
    return f"{node.stage}: {node.step}" if node.step and node.stage == "booting" else node.stage


def work(progress: Progress, now: float) -> StyledLine:
    """Say in one line how the work goes, with a bar where it is known how much there is."""
    total, done = progress.total, progress.done
    if not progress.settled:
        return (HEAD, ("  ", ""), *dotted(going(progress, now)))
    filled = WIDTH * done // max(total, 1)
    bar = (BAR[0] * filled, "cyan"), (BAR[1] * (WIDTH - filled), "bright_black")
    return (HEAD, ("  ", ""), *bar, ("  ", ""), *dotted(going(progress, now)))


def going(progress: Progress, now: float) -> list[tuple[str, str]]:
    """Say how the work goes, in pieces: of how many tasks only where that is known."""
    total, done, counts = progress.total, progress.done, progress.counts
    so_far = f"{counted(done, 'task')} done, {progress.known - done:,} queued or running"
    return [
        (f"{done:,}/{total:,} tasks" if progress.settled else so_far, "bold"),
        (f"{progress.busy:,}/{progress.slots:,} slots busy", ""),
        (rate(speed) if (speed := progress.rate(now)) is not None else "", ""),
        (f"{clock(left)} left" if (left := progress.left(now)) is not None else "", "cyan"),
        (f"{counts.raised:,} raised" if counts.raised else "", "red"),
        (f"{counts.lost:,} lost" if counts.lost else "", "red"),
        (f"{retried:,} retried" if (retried := sum(counts.retries.values())) else "", "yellow"),
        (dollars(progress.dollars) if progress.dollars else "", "green"),
    ]


def troubles(progress: Progress, now: float, but: str = "") -> list[StyledLine]:
    """Say what is not right with nodes, the worst first."""
    found = [each for each in progress.concerns(now) if each.trouble != but]
    lines: list[StyledLine] = []
    for each in found[:NAMED]:
        said = trouble(replace(each, text=headed(each.text)), now)
        lines.append((("  ", ""), (f"node {each.node.number}", "bold"), (" ", ""), (said, COLOURS[each.trouble])))
    if len(found) > NAMED:
        rest = Counter(each.trouble for each in found[NAMED:])
        lines.append((("  and ", "dim"), (", ".join(f"{count} more {what}" for what, count in rest.items()), "yellow")))
    return lines


def trouble(concern: Concern, now: float) -> str:
    """Say what is not right with a node, for whatever reason, and what is done about it."""
    node, (first, second) = concern.node, concern.figures
    match concern.trouble:
        case "gone":
            return f"is given up: {concern.text}"
        case "lost":
            then = "another is ready in its place" if node.stage == "ready" else f"another is {where(node)}"
            return f"was lost: {concern.text}" + ("" if node.stage in ("ending", "ended") else f"; {then}")
        case "silent":
            silent = now - first
            rest = max(0.0, second - silent)
            return f"has been silent for {silent:.0f} s; its calls move to other nodes in {rest:.0f} s"
        case "leaving":
            return f"is about to be reclaimed: {concern.text}"
        case "full":
            return f"has {size(node.memory or 0)} of memory left"
        case "slow":
            return f"is slow: {in_seconds(first)} a task, {in_seconds(second)} elsewhere"
        case _:
            assert_never(concern.trouble)


def summary(progress: Progress) -> str:
    """Say in one short line what came of the run; nothing where nothing was done and nothing was spent.

    Another line says what slots should have imported before.
    """
    assert progress.ended is not None
    counts = progress.counts
    used = sum(1 for node in counts.nodes.values() if node.tasks)
    said = [
        (f"{counted(counts.tasks, 'task')} on {counted(used, 'node')}" if counts.tasks else "", ""),
        (f"{counts.raised:,} raised" if counts.raised else "", ""),
        (f"{counts.lost:,} lost" if counts.lost else "", ""),
        (f"{retried:,} retried" if (retried := sum(counts.retries.values())) else "", ""),
        (f"{dollars(progress.dollars)} spent" if progress.dollars else "", ""),
    ]
    told = plain(dotted(said)).replace(" · ", ", ")
    lines = [f"{told} in {clock(progress.ended - progress.began)}"] if told else []
    lines += [hint] if (hint := import_hint(counts.imports, counts.work)) else []
    return "\n".join(f"skyward: {line}" for line in lines)


def headed(reason: str) -> str:
    """Return the first line of a reason, which may have a log below it."""
    first, *more = reason.splitlines() or [""]
    return first + (" ..." if more else "")


# ---------------------------------------------------------------- figures


def cost(progress: Progress) -> str:
    """Return what all machines cost an hour, or will, where that is known."""
    hourly = max(progress.hourly, sum(quote.hourly for quote in progress.quotes[-1:]))
    return f"{dollars(hourly)}/h" if hourly else ""


def _node(node: NodeProgress, digits: int, now: float) -> StyledLine:
    at = where(node)
    if node.stage == "ready":
        rest = f"{counted(node.slots, 'slot')}{f' on {node.host}' if node.host else ''}"
    elif node.lost is not None:
        rest = f"{clock(now - node.since)}  after the one before: {headed(node.lost[1])}"
    else:
        rest = clock(now - node.since)
    return (f"  node {node.number:>{digits}}  ", ""), (f"{at:<9}", _colour(at)), (f"  {rest}", "dim")


def _colour(at: str) -> str:
    return "green" if at == "ready" else "red" if at.startswith(("ending", "ended")) else "yellow"


def dotted(said: Iterable[tuple[str, str]]) -> StyledLine:
    """Join what is not empty."""
    told = [piece for piece in said if piece[0]]
    return tuple(each for number, piece in enumerate(told) for each in ((DOT, piece) if number else (piece,)))
