import pytest

from skyward.providers.destination import FIRST, LONGEST, Destination, pause


@pytest.mark.parametrize(
    ("destination", "text"),
    [
        (Destination("gpu-box"), "gpu-box"),
        (Destination("gpu-box", user="alice"), "alice@gpu-box"),
        (Destination("10.0.0.5", 2222, "alice"), "alice@10.0.0.5:2222"),
    ],
)
def test_a_destination_is_written_as_one_says_it_to_ssh(destination: Destination, text: str) -> None:
    assert str(destination) == text


def test_a_destination_does_not_show_its_keys() -> None:
    assert "secret" not in repr(Destination("gpu-box", keys=(b"secret",)))


def test_the_pause_grows_up_to_a_limit() -> None:
    pauses = [pause(attempt, 1.0) for attempt in range(1, 8)]

    assert pauses[0] == FIRST
    assert pauses == sorted(pauses)
    assert pauses[-1] == pause(5000, 1.0) == LONGEST


def test_luck_spreads_the_pauses_between_half_and_all() -> None:
    assert pause(3, 0.0) == pause(3, 1.0) / 2
    assert pause(3, 0.0) < pause(3, 0.3) < pause(3, 1.0)
