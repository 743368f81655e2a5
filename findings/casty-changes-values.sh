#!/usr/bin/env bash
# casty 0.30.2 delivers some valid messages with other values than they were sent with, and raises no error.
#
# Guess: a message arrives equal to what was sent, or sending it raises SchemaError, as the schema is checked.
# Seen:
#   - a field declared as a base dataclass takes an instance of a subclass and delivers an instance of the base:
#     the subclass's fields are gone;
#   - a field declared `float` takes an int and delivers the nearest float: 2**53 + 1 arrives as 2**53;
#   - an aware datetime whose zone is a ZoneInfo arrives with a fixed offset: it is the same instant, but adding a
#     day across a change of the clocks gives another local time.
# Environment: Python 3.12 or newer, Linux. Exits with 1 if any of this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q casty==0.30.2 tzdata==2025.2
cat >"$folder/show.py" <<'PYTHON'
import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from casty import ActorSystem, Askable, Context, actor


@dataclass(frozen=True)
class Animal:
    name: str


@dataclass(frozen=True)
class Dog(Animal):
    tricks: int = 0


@dataclass(frozen=True)
class Values:
    animal: Animal
    number: float
    at: datetime


@dataclass(frozen=True)
class Echo(Askable[Values]):
    values: Values


@actor(initial=0)
async def mirror(ctx: Context[int, Echo]) -> None:
    async for message in ctx.inbox:
        message.reply_to.tell(message.values)


async def main() -> None:
    before = datetime(2026, 3, 28, 12, tzinfo=ZoneInfo("Europe/Berlin"))  # the clocks change in the night that follows
    async with ActorSystem() as system:
        got = await system.ref(mirror, "one").ask(Echo(Values(Dog("Rex", 3), 2**53 + 1, before)))
    seen = [
        type(got.animal).__name__,
        repr(got.number),
        got.at == before,
        (before + timedelta(days=1)).utcoffset() == (got.at + timedelta(days=1)).utcoffset(),
    ]
    print(*seen)
    expected = ["Animal", repr(float(2**53)), True, False]
    raise SystemExit(0 if seen == expected else f"changed: {seen} instead of {expected}")


asyncio.run(main())
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
