"""The port that tells the weight, without sockets."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from batcher.frontends.agent_check import ASKING_LIMIT_S, MAX_ASKING, AgentCheck, Asked


class Connection(StringTransport):
    """The other side of a connection.

    Attributes:
        ended: whether the server has said all that it says.
    """

    ended = False

    def loseWriteConnection(self) -> None:
        self.ended = True


def asked(check: AgentCheck) -> tuple[Asked, Connection]:
    """Return one connection, just made."""
    protocol, transport = check.buildProtocol(None), Connection()
    assert protocol is not None
    protocol.makeConnection(transport)
    return protocol, transport


def test_whoever_connects_reads_one_line_with_the_weight_of_that_moment() -> None:
    weights = iter([100, 0])
    check = AgentCheck(lambda: next(weights), Clock())
    assert [asked(check)[1].value() for _ in range(2)] == [b"100%\n", b"0%\n"]


def test_what_the_other_side_says_changes_nothing() -> None:
    protocol, transport = asked(AgentCheck(lambda: 7, Clock()))
    protocol.dataReceived(b"backend/server1\n" * 1000)
    assert transport.value() == b"7%\n"
    assert transport.ended
    assert not transport.disconnecting


def test_a_connection_that_the_other_side_leaves_open_is_closed_after_a_while() -> None:
    clock = Clock()
    _, transport = asked(AgentCheck(lambda: 7, clock))
    clock.advance(ASKING_LIMIT_S - 0.1)
    assert not transport.disconnected
    clock.advance(0.2)
    assert transport.disconnected


def test_connections_are_bounded_and_one_that_ends_makes_room() -> None:
    clock = Clock()
    check = AgentCheck(lambda: 7, clock)
    open_ones = [asked(check)[0] for _ in range(MAX_ASKING)]
    assert check.buildProtocol(None) is None
    open_ones[0].connectionLost()
    asked(check)
    for each in open_ones[1:]:
        each.connectionLost()
    assert len(clock.getDelayedCalls()) == 1
