"""How what a call raised comes home; the other half of `test_wire.py`."""

import pickle
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from skyward.errors import RemoteError, RemoteTraceback
from skyward.remote import call_repr
from skyward.remote.serialization import call_codec, exceptions
from skyward.remote.serialization.packer import Packer


def error_of(fn: Callable[..., object], *args: object) -> BaseException:
    """Pack a call, run it, and open its outcome, which is an exception."""
    packed = Packer(share=False).pack(fn, args, {})
    _, error = call_codec.open_outcome(*call_codec.execute(packed.payload))
    assert error is not None
    return error


class NeedsMoreError(Exception):
    """Its constructor does not take its `args`, so pickle cannot call it."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}")
        self.code, self.hint = code, hint


class DisguisedError(Exception):
    """Pickles as something else."""

    def __reduce__(self) -> Any:
        return str, ("not an exception",)


@dataclass(frozen=True)
class FrozenError(Exception):
    """Takes no attribute once it is made."""

    code: int = 3


@dataclass(frozen=True)
class BareError(Exception):
    """Takes none, and has none."""


class ArmouredError(Exception):
    """Takes no attribute at all, and holds what cannot travel."""

    def __init__(self) -> None:
        super().__init__("armoured")
        self.__dict__["guard"] = threading.Lock()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} is not for you")


class UntruthfulError(Exception):
    """Has a cause of its own, and cannot be asked whether it is true, as printing a traceback does."""

    @property
    def __cause__(self) -> None:  # type: ignore[override]
        return None

    def __bool__(self) -> bool:
        raise SystemExit(4)

    def __str__(self) -> str:
        raise SystemExit(5)


class EndingError(Exception):
    """Ends whatever opens it."""

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def fail(error: BaseException) -> None:
    raise error


def fail_deep(code: int) -> None:
    raise NeedsMoreError(code, hint="even")


def fail_holding_a_lock() -> None:
    error = ValueError("locked")
    error.guard = threading.Lock()  # type: ignore[attr-defined]
    error.place = "here"  # type: ignore[attr-defined]
    raise error


def test_an_exception_comes_home_with_its_type_and_text() -> None:
    error = error_of(fail, KeyError("k"))

    assert type(error) is KeyError
    assert error.args == ("k",)


def test_its_cause_is_the_remote_traceback() -> None:
    cause = error_of(int, "x").__cause__

    assert isinstance(cause, RemoteTraceback)
    assert "ValueError: invalid literal" in str(cause)


def test_the_traceback_shows_user_code_and_none_of_ours() -> None:
    text = str(error_of(fail, KeyError("k")).__cause__)

    assert "in fail" in text
    assert "skyward/remote/serialization/call_codec.py" not in text


def test_the_traceback_shows_the_lines_of_a_function_that_travelled_by_value() -> None:
    def outer() -> None:
        def inner() -> None:
            raise LookupError("nothing there")

        inner()

    text = str(error_of(outer).__cause__)

    assert f'File "{__file__}"' in text
    assert 'raise LookupError("nothing there")' in text


def test_the_traceback_tells_what_the_exception_came_from() -> None:
    def convert() -> None:
        try:
            int("x")
        except ValueError as error:
            raise LookupError("converted") from error

    text = str(error_of(convert).__cause__)

    assert text.index("ValueError") < text.index("direct cause") < text.index("LookupError: converted")


def test_an_exception_whose_constructor_takes_something_else_comes_home_whole() -> None:
    error = error_of(fail_deep, 5)

    assert isinstance(error, NeedsMoreError)
    assert (str(error), error.code, error.hint) == ("code 5", 5, "even")


def test_an_attribute_that_cannot_travel_stays_behind_and_a_note_says_so() -> None:
    error = error_of(fail_holding_a_lock)

    assert type(error) is ValueError
    assert (error.args, error.place) == (("locked",), "here")  # type: ignore[attr-defined]
    assert not hasattr(error, "guard")
    assert error.__notes__ == [
        "It was raised by fail_holding_a_lock().",
        "exception.guard cannot be pickled and was left out",
    ]
    assert "in fail_holding_a_lock" in str(error.__cause__)


def test_an_argument_that_cannot_travel_comes_home_as_its_text() -> None:
    error = error_of(lambda: fail(LookupError("held", threading.Lock())))

    assert type(error) is LookupError
    assert error.args[0] == "held"
    assert "unlocked" in error.args[1]


def test_exceptions_in_a_group_come_home_though_their_constructors_take_something_else() -> None:
    error = error_of(lambda: fail(ExceptionGroup("both", [NeedsMoreError(7, hint="odd"), KeyError("b")])))

    assert isinstance(error, ExceptionGroup)
    assert [type(each) for each in error.exceptions] == [NeedsMoreError, KeyError]
    assert error.exceptions[0].hint == "odd"  # type: ignore[union-attr]


class StubbornError(Exception):
    """Cannot be made without its constructor."""

    def __new__(cls, *, needed: int) -> Any:
        return super().__new__(cls, needed)

    def __init__(self, *, needed: int) -> None:
        super().__init__(needed)


def test_an_exception_that_cannot_be_made_again_comes_home_as_a_remote_error() -> None:
    error = error_of(lambda: fail(StubbornError(needed=3)))

    assert isinstance(error, RemoteError)
    assert error.type_name.endswith("StubbornError")


def test_an_exception_that_pickles_as_something_else_comes_home_all_the_same() -> None:
    assert isinstance(error_of(lambda: fail(DisguisedError("x"))), DisguisedError)


def test_an_exception_of_a_class_that_is_not_here_comes_home_as_a_remote_error() -> None:
    payload = pickle.dumps((b"cnowhere\nOdd\n.", "nowhere.Odd", "text", "Traceback ...", ()))
    _, error = call_codec.open_outcome("raised", [payload])

    assert isinstance(error, RemoteError)
    assert str(error) == "nowhere.Odd: text"


@pytest.mark.parametrize("kind", [FrozenError, BareError, ArmouredError])
def test_an_exception_that_takes_no_attribute_comes_home_as_itself(kind: type[Exception]) -> None:
    error = error_of(lambda: fail(kind()))

    assert type(error) is kind
    assert "in fail" in str(error.__cause__)


def test_an_exception_that_ends_whatever_looks_at_it_ends_nothing() -> None:
    error = error_of(lambda: fail(UntruthfulError()))

    assert type(error) is UntruthfulError
    assert isinstance(BaseException.__dict__["__cause__"].__get__(error), RemoteTraceback)


def test_an_exception_that_ends_whatever_opens_it_ends_nothing() -> None:
    payload = pickle.dumps((pickle.dumps(EndingError()), "a.EndingError", "text", "Traceback ...", ()))
    _, there = call_codec.open_outcome("raised", [payload])

    assert isinstance(there, RemoteError)
    assert there.type_name == "a.EndingError"
    assert isinstance(error_of(lambda: fail(EndingError())), EndingError)


INSTEAD = "return a value or raise an exception instead"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit(3), f"SystemExit: the task called sys.exit(3); {INSTEAD}"),
        (SystemExit(), f"SystemExit: the task called sys.exit(); {INSTEAD}"),
        (SystemExit("no data"), f"SystemExit: the task called sys.exit('no data'); {INSTEAD}"),
        (KeyboardInterrupt(), "KeyboardInterrupt: the task raised KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit: the task raised GeneratorExit"),
    ],
)
def test_what_would_end_the_program_is_an_error_that_says_so(error: BaseException, text: str) -> None:
    there = error_of(fail, error)

    assert isinstance(there, RemoteError)
    assert (str(there), there.type_name) == (text, type(error).__name__)
    assert there.__notes__ == [f"It was raised by fail({call_repr.value(error)})."]
    assert "in fail" in str(there.__cause__)


def test_a_remote_error_that_a_task_raises_comes_home_as_itself() -> None:
    there = error_of(fail, RemoteError("SystemExit", "of another task"))

    assert isinstance(there, RemoteError)
    assert there.text == "of another task"


def test_an_exception_that_cannot_say_what_it_is_comes_home_all_the_same() -> None:
    assert isinstance(error_of(lambda: fail(SpeechlessError())), SpeechlessError)


def test_an_error_of_the_system_keeps_its_number() -> None:
    error = error_of(open, "/nowhere/at/all")

    assert isinstance(error, FileNotFoundError)
    assert (error.errno, error.filename) == (2, "/nowhere/at/all")


def test_a_group_of_exceptions_comes_home_as_one() -> None:
    error = error_of(fail, ExceptionGroup("both", [ValueError("a"), KeyError("b")]))

    assert isinstance(error, ExceptionGroup)
    assert [type(each) for each in error.exceptions] == [ValueError, KeyError]


def test_notes_come_home() -> None:
    def noted() -> None:
        error = ValueError("x")
        error.add_note("seen on slot 3")
        raise error

    assert error_of(noted).__notes__ == ["seen on slot 3", "It was raised by noted()."]


def test_an_argument_that_cannot_be_opened_there_is_an_exception_of_the_call() -> None:
    status, parts = call_codec.execute(b"cnowhere\nnothing\n.")
    _, error = call_codec.open_outcome(status, parts)

    assert (status, type(error)) == ("raised", ModuleNotFoundError)


def test_a_function_that_did_not_come_along_is_an_exception_of_the_call() -> None:
    status, parts = call_codec.execute(Packer().pack(lambda: 1, (), {}).payload)
    _, error = call_codec.open_outcome(status, parts)

    assert (status, type(error)) == ("raised", KeyError)


def test_an_exception_is_told_in_a_line_without_opening_it() -> None:
    def summary(error: BaseException) -> str:
        return exceptions.summary(exceptions.pack_exception(error))

    assert summary(ValueError("no\nmore")) == "ValueError: no"
    assert summary(KeyError()) == "KeyError"
    assert summary(NeedsMoreError(3, hint="x")) == f"{__name__}.NeedsMoreError: code 3"

    culprit = KeyError("price")
    call_repr.noted(culprit, "task 61, price(61)")
    culprit.add_note("It knows no better.")
    assert summary(culprit) == "KeyError: 'price', raised by task 61, price(61)"
