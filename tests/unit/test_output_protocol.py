from hypothesis import given
from hypothesis import strategies as st

from skyward.remote.node_messages import OutputFrame, decode
from skyward.remote.output_protocol import (
    ERR,
    LOG,
    MAX_FRAME_BYTES,
    MAX_LINE_CHARACTERS,
    OUT,
    FrameDecoder,
    OutputLine,
    frames,
    runs,
    strokes,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
STROKES = st.lists(st.tuples(st.sampled_from([OUT, ERR, LOG]), st.integers(-1, 300), st.binary(min_size=1)))


@given(STROKES, st.integers(20, 60), st.integers(1, 50))
def test_strokes_come_out_of_a_page_in_their_order_however_it_is_read(
    said: list[tuple[int, int, bytes]], atom: int, step: int
) -> None:
    page = b""
    for stream, slot, data in said:
        pieces = list(strokes(stream, slot, data, atom))
        assert max(map(len, pieces)) <= atom
        page += b"".join(pieces)
    found, part = [], b""
    for at in range(0, len(page), step):
        some, part = runs(part + page[at : at + step])
        found += some
    assert part == b""
    assert _joined(found) == _joined(said)


def _joined(said: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    whole: list[tuple[int, int, bytes]] = []
    for stream, slot, data in said:
        before = whole.pop()[2] if whole and whole[-1][:2] == (stream, slot) else b""
        whole.append((stream, slot, before + data))
    return whole


def test_strokes_of_one_slot_that_follow_each_other_are_joined() -> None:
    page = b"".join(strokes(OUT, 3, b"a", 100)) + b"".join(strokes(OUT, 3, b"b\n", 100))
    assert runs(page) == ([(OUT, 3, b"ab\n")], b"")


def test_a_line_comes_when_it_is_whole() -> None:
    line = OutputLine()
    assert line.take(b"one\ntw", 1.0) == "one\n"
    assert line.since == 1.0
    assert line.take(b"o", 2.0) == ""
    assert line.since == 1.0
    assert line.take(b"\n", 3.0) == "two\n"
    assert line.since is None


def test_a_line_that_does_not_end_can_be_had_before() -> None:
    line = OutputLine()
    line.take(b"50 %", 1.0)
    assert (line.rest(), line.since, line.rest()) == ("50 %", None, "")


def test_a_character_that_is_cut_waits_for_its_other_half() -> None:
    line = OutputLine()
    half, other = "ü".encode()[:1], "ü".encode()[1:]
    assert line.take(b"a" + half, 1.0) == ""
    assert line.rest() == "a"
    assert line.take(other + b"\n", 2.0) == "ü\n"
    line.take(half, 3.0)
    assert line.rest(final=True) == "\ufffd"


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    line = OutputLine()
    assert len(line.take(bytes(MAX_LINE_CHARACTERS + 1), 1.0)) == MAX_LINE_CHARACTERS + 1
    assert line.since is None


def test_of_much_that_comes_at_once_whole_lines_are_taken() -> None:
    line, text = OutputLine(), f"{'x' * 999}\n" * 70
    assert line.take(f"{text}begun".encode(), 1.0) == text
    assert (line.take(b" and ended\n", 2.0), line.since) == ("begun and ended\n", None)


@given(st.integers(-1, 300), st.sampled_from([OUT, ERR, LOG]), TEXT, st.integers(1, 3000))
def test_text_comes_out_of_its_frames(slot: int, stream: int, text: str, times: int) -> None:
    text = (text + "\x00ü") * times
    ear, heard = FrameDecoder(), ""
    for frame in frames(slot, stream, text):
        assert len(frame) <= MAX_FRAME_BYTES
        assert frame.count(b"\n") == 1
        assert frame.endswith(b"\n")
        said = decoded(frame)
        assert (said.slot, said.stream) == (slot, stream)
        heard += ear.hear(said)
    assert heard == text


def test_only_the_last_frame_of_a_text_gives_it() -> None:
    ear = FrameDecoder()
    said = [ear.hear(decoded(frame)) for frame in frames(1, OUT, "x" * 10_000)]
    assert said == [""] * (len(said) - 1) + ["x" * 10_000]
    assert len(said) > 1


def decoded(frame: bytes) -> OutputFrame:
    text, message = decode(frame.decode().removesuffix("\n"))
    assert not text
    assert isinstance(message, OutputFrame)
    return message
