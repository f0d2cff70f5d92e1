"""How routes are divided among sides by shares."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.serving.stages.split import Split

ROUTES = [f"user-{number}" for number in range(20_000)]
SIDES = st.dictionaries(
    st.sampled_from(["stable", "canary", "3", "5", "blue"]),
    st.floats(0.1, 100),
    min_size=1,
)
ROUTE = st.text(min_size=1, max_size=20)


def split(shares: dict[str, float], salt: str = "m") -> Split:
    return Split(salt, shares, Random(1))


@given(SIDES, ROUTE)
def test_a_route_has_one_side_whoever_asks(shares: dict[str, float], route: str) -> None:
    turned = dict(reversed(shares.items()))
    assert split(shares).side(route) == split(turned).side(route)
    assert split(shares).side(route) in shares


@given(SIDES, st.floats(1.01, 10), st.lists(ROUTE, max_size=20))
def test_a_side_that_grows_gives_no_route_away(
    shares: dict[str, float], factor: float, routes: list[str]
) -> None:
    grown = next(iter(shares))
    before, after = split(shares), split({**shares, grown: shares[grown] * factor})
    for route in routes:
        assert after.side(route) in (before.side(route), grown)


@given(SIDES, st.lists(ROUTE, max_size=20))
def test_the_routes_of_a_side_that_goes_are_all_that_move(
    shares: dict[str, float], routes: list[str]
) -> None:
    gone = next(iter(shares))
    left = {side: share for side, share in shares.items() if side != gone}
    for route in routes if left else ():
        before = split(shares).side(route)
        assert before == gone or split(left).side(route) == before


@given(SIDES, st.floats(0.01, 100), ROUTE)
def test_only_the_proportions_of_shares_count(
    shares: dict[str, float], factor: float, route: str
) -> None:
    scaled = {side: share * factor for side, share in shares.items()}
    assert split(shares).side(route) == split(scaled).side(route)


@pytest.mark.parametrize("percent", [1, 5, 25, 50])
def test_a_side_gets_its_share_of_the_routes(percent: int) -> None:
    divided = split({"stable": 100 - percent, "canary": percent})
    found = sum(divided.side(route) == "canary" for route in ROUTES) / len(ROUTES)
    assert found == pytest.approx(percent / 100, abs=0.01)


def test_models_do_not_try_their_new_versions_on_the_same_users() -> None:
    shares = {"stable": 50.0, "canary": 50.0}
    one, other = split(shares, "one"), split(shares, "other")
    same = sum(one.side(route) == other.side(route) for route in ROUTES) / len(ROUTES)
    assert same == pytest.approx(0.5, abs=0.02)


def test_a_side_without_a_share_gets_nothing() -> None:
    divided = split({"stable": 1, "canary": 0})
    assert {divided.side(route) for route in ["", *ROUTES[:100]]} == {"stable"}
