"""What waits for an output and what is dropped, step by step, with writes in memory."""

from __future__ import annotations

import pytest

from batcher.app.outputs import pump
from batcher.app.outputs.pump import Output


class Disk:
    """What an output writes to; each write takes `most` bytes, or fails while `error` is set."""

    def __init__(self) -> None:
        self.content = b""
        self.error: OSError | None = None
        self.most = 1 << 30

    def write(self, data: bytes) -> int:
        if self.error is not None:
            raise self.error
        self.content += data[: self.most]
        return min(len(data), self.most)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def output(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Output:
    monkeypatch.setattr(pump, "MAX_WAITING_BYTES", 20)
    return Output(disk.write)


def test_what_comes_is_written_as_it_came_however_little_is_taken_at_once(
    output: Output, disk: Disk
) -> None:
    disk.most = 3
    for data in (b"no newline", b" yet\n"):
        output.put(data)
        assert output.write_one() is False
    assert disk.content == b"no newline yet\n"
    assert output.dropped == 0


def test_lines_without_room_are_dropped_whole_and_counted(output: Output, disk: Disk) -> None:
    output.put(b"one\ntwo\nthree\nfour\nfive\nsix\n")
    assert output.dropped == 2
    assert output.write_one() is True, "all that waited is written: now it can be told"
    assert disk.content == b"one\ntwo\nthree\nfour\n"
    assert (output.untold(), output.untold()) == (2, 0)


def test_a_dropped_line_that_comes_in_pieces_is_dropped_to_its_end_and_counts_once(
    output: Output, disk: Disk
) -> None:
    output.put(b"waits and wait\n")
    output.put(b"no room")
    output.put(b" for any piece")
    output.put(b" of it\nnext\n")
    output.write_one()
    output.write_one()
    assert disk.content == b"waits and wait\nnext\n"
    assert output.dropped == 1


def test_a_line_whose_rest_finds_no_room_is_ended(output: Output, disk: Disk) -> None:
    output.put(b"a beginning, and")
    output.put(b" no room for the rest\nnor for this\n")
    assert output.dropped == 2
    output.write_one()
    output.write_one()
    output.put(b"later\n")
    output.write_one()
    assert disk.content == b"a beginning, and\nlater\n"


def test_what_cannot_be_written_is_dropped_and_the_next_line_is_tried_again(
    output: Output, disk: Disk
) -> None:
    disk.error = OSError(28, "No space left on device")
    for line in (b"lost\n", b"lost\nas well\n"):
        output.put(line)
        assert output.write_one() is False
    assert output.dropped == 3
    disk.error = None
    output.put(b"taken\n")
    assert output.write_one() is True
    assert output.untold() == 3
    assert disk.content == b"taken\n"


def test_nothing_is_told_before_all_that_waited_is_written(output: Output) -> None:
    output.put(b"one\n")
    output.put(b"two\n")
    output.put(b"x" * 30 + b"\n")
    assert output.write_one() is False
    assert output.write_one() is True


def test_a_pump_that_takes_over_goes_on_counting_and_tells_only_of_its_own(disk: Disk) -> None:
    output = Output(disk.write, dropped=7)
    disk.error = BrokenPipeError()
    output.put(b"lost\n")
    output.write_one()
    assert (output.dropped, output.untold()) == (8, 1)
