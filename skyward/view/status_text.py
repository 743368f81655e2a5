"""The progress of a run as lines of text for a terminal. Pure: no I/O, no clock, no actor.

A line is pieces of text, each with a style as `rich` names them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import assert_never

from skyward.formatting import clock, counted, dollars, in_seconds, rate, size
from skyward.telemetry.report import import_hint
from skyward.view.progress import Concern, NodeProgress, Progress

type StyledLine = tuple[tuple[str, str], ...]
type Painter = Callable[[], Sequence[StyledLine]]

MAX_NODE_LINES = 12
"""Nodes that have a line each; more are summarized."""

MAX_TROUBLES = 4
"""Problems of nodes that have a line each."""

BAR_WIDTH = 12
"""Characters of the progress bar."""

BAR = "█", "░"
"""Its characters for what is done and what is not: readable without colors."""

LINE_PREFIX = ("skyward", "bold cyan")
SEPARATOR = (" · ", "dim")
STAGE_ORDER = ("launching", "reaching", "booting", "joining", "ready", "ending", "ended")
COLORS = {"gone": "red", "lost": "red", "silent": "yellow", "leaving": "yellow", "full": "yellow", "slow": "yellow"}


def plain(line: StyledLine) -> str:
    """Return the text of a line."""
    return "".join(text for text, _ in line)


def live(progress: Progress, now: float) -> list[StyledLine]:
    """Return the lines to show: how nodes start, or how the work proceeds; none if nothing is waited for."""
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
    """Return the link to the live page."""
    return [(("  watch it at ", "dim"), (progress.link, "underline"))] if progress.link else []


def starting(progress: Progress, now: float) -> StyledLine:
    """Return how many nodes are ready, and what they cost."""
    wanted = max(progress.wanted, len(progress.nodes))
    text = f"{len(progress.ready)} of {counted(wanted, 'node')} ready"
    said = [(text, ""), (progress.provider, "dim"), (cost(progress), "green"), (clock(now - progress.began), "dim")]
    return (LINE_PREFIX, ("  ", ""), *dotted(said))


def nodes(progress: Progress, now: float) -> list[StyledLine]:
    """Return the stage of each node; of many nodes, how many are in each stage."""
    there = sorted(progress.nodes.values(), key=lambda node: node.number)
    if len(there) > MAX_NODE_LINES:
        found = Counter(where(node) for node in there)
        ranked = sorted(found.items(), key=lambda each: (STAGE_ORDER.index(each[0].split(":")[0]), -each[1]))
        lines: list[StyledLine] = [((f"  {count:>5}  ", ""), (at, _color(at))) for at, count in ranked[:MAX_NODE_LINES]]
        return lines
    digits = max((len(str(node.number)) for node in there), default=1)
    return [_node(node, digits, now) for node in there]


def where(node: NodeProgress) -> str:
    """Return the stage of a node, and the step of its bootstrap."""
    if node.gone:
        return "ended: given up"
    return f"{node.stage}: {node.step}" if node.step and node.stage == "booting" else node.stage


def work(progress: Progress, now: float) -> StyledLine:
    """Return the progress of the work in one line, with a bar if the total is known."""
    total, done = progress.total, progress.done
    if not progress.settled:
        return (LINE_PREFIX, ("  ", ""), *dotted(going(progress, now)))
    filled = BAR_WIDTH * done // max(total, 1)
    bar = (BAR[0] * filled, "cyan"), (BAR[1] * (BAR_WIDTH - filled), "bright_black")
    return (LINE_PREFIX, ("  ", ""), *bar, ("  ", ""), *dotted(going(progress, now)))


def going(progress: Progress, now: float) -> list[tuple[str, str]]:
    """Return the progress of the work in pieces, with the total if it is known."""
    total, done, counts = progress.total, progress.done, progress.counts
    so_far = f"{counted(done, 'task')} done, {progress.known - done:,} queued or running"
    return [
        (f"{done:,}/{counted(total, 'task')}" if progress.settled else so_far, "bold"),
        (f"{progress.busy:,}/{counted(progress.slots, 'slot')} busy", ""),
        (rate(speed) if (speed := progress.rate(now)) is not None else "", ""),
        (f"{clock(left)} left" if (left := progress.left(now)) is not None else "", "cyan"),
        (f"{counts.raised:,} raised" if counts.raised else "", "red"),
        (f"{counts.lost:,} lost" if counts.lost else "", "red"),
        (retries(progress), "yellow"),
        (dollars(progress.dollars) if progress.dollars else "", "green"),
    ]


def troubles(progress: Progress, now: float, but: str = "") -> list[StyledLine]:
    """Return the problems of nodes, the worst first."""
    found = [each for each in progress.concerns(now) if each.trouble != but]
    lines: list[StyledLine] = []
    for each in found[:MAX_TROUBLES]:
        said = trouble(replace(each, text=headed(each.text)), now)
        lines.append((("  ", ""), (f"node {each.node.number}", "bold"), (" ", ""), (said, COLORS[each.trouble])))
    if len(found) > MAX_TROUBLES:
        rest = Counter(each.trouble for each in found[MAX_TROUBLES:])
        lines.append((("  and ", "dim"), (", ".join(f"{count} more {what}" for what, count in rest.items()), "yellow")))
    return lines


def trouble(concern: Concern, now: float) -> str:
    """Describe a problem of a node, and what is done about it."""
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


def summary(progress: Progress, *, brief: bool = False) -> str:
    """Return the result of the run in one line; empty if nothing was done and nothing was spent.

    A second line hints which modules to preload. If `brief`, the first one is left out if nothing was spent.
    """
    assert progress.ended is not None
    counts = progress.counts
    used = sum(1 for node in counts.nodes.values() if node.tasks)
    done = f"{counted(counts.tasks, 'task')}{f' on {counted(used, "node")}' if used else ''}"
    rest = [
        f"{counted(counts.raised, 'call')} raised" if counts.raised else "",
        f"{counted(counts.lost, 'call')} lost" if counts.lost else "",
        retries(progress),
        f"{dollars(progress.dollars)} spent" if progress.dollars else "",
    ]
    shown = progress.dollars or (not brief and (counts.tasks or any(rest)))
    lines = [", ".join(filter(None, (f"{done} in {clock(progress.ended - progress.began)}", *rest)))] if shown else []
    lines += [hint] if (hint := import_hint(counts.imports, counts.work)) else []
    return "\n".join(f"skyward: {line}" for line in lines)


def retries(progress: Progress) -> str:
    """Return the number of retries; empty for none."""
    count = sum(progress.counts.retries.values())
    return f"{count:,} {'retry' if count == 1 else 'retries'}" if count else ""


def headed(reason: str) -> str:
    """Return the first line of a reason that may include a log."""
    first, *more = reason.splitlines() or [""]
    return first + (" ..." if more else "")


# ---------------------------------------------------------------- figures


def cost(progress: Progress) -> str:
    """Return what all machines cost or will cost per hour; empty if that is not known."""
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
    return (f"  node {node.number:>{digits}}  ", ""), (f"{at:<9}", _color(at)), (f"  {rest}", "dim")


def _color(at: str) -> str:
    return "green" if at == "ready" else "red" if at.startswith(("ending", "ended")) else "yellow"


def dotted(said: Iterable[tuple[str, str]]) -> StyledLine:
    """Join the pieces that are not empty."""
    told = [piece for piece in said if piece[0]]
    return tuple(each for number, piece in enumerate(told) for each in ((SEPARATOR, piece) if number else (piece,)))
