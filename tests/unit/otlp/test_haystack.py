"""Items that hold a needle, found in the request as a whole: the same as by a look into each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enricher.otlp import search, shallow
from enricher.otlp.haystack import Haystack
from enricher.otlp.varint import varint


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


TEXTS = st.lists(st.sampled_from([b"ab", b"b", b"a", b"\x12\x01", b"x" * 200]), max_size=4).map(b"".join)
OTHERS = st.one_of(
    TEXTS.map(lambda text: field(3, text)),
    TEXTS.map(lambda text: field(9, text)),
    st.integers(0, 2**64 - 1).map(lambda number: b"\x20" + varint(number)),
    st.just(b"\x29" + b"abababab"),
    st.just(b"\x2d" + b"abab"),
    st.just(b"\xa2\x06\x02ab"),
)
GROUPS = OTHERS | st.just(b"\x33\x3a\x02ab\x34")


def messages(above, below, others=OTHERS):
    """Return messages of fields of the level below, with what else may stand there in any order."""
    pieces = st.one_of(
        TEXTS.map(lambda text: field(above, text)), below.map(lambda data: field(3 - above, data)), others
    )
    return st.lists(pieces, max_size=5).map(b"".join)


def requests(others):
    scopes = messages(1, TEXTS, others)
    resources = messages(1, scopes, others)
    return st.lists(st.one_of(resources.map(lambda data: field(1, data)), OTHERS), max_size=4).map(b"".join)


def looked_into(parsed, needles):
    found = {}
    for r, resourced in enumerate(parsed.resourced):
        for s, scoped in enumerate(resourced.scoped):
            places = [at for at, item in enumerate(scoped.items) if any(needle in item for needle in needles)]
            found |= {(r, s): places} if places else {}
    return found


NEEDLES = st.lists(st.sampled_from([b"ab", b"ba", b"aba", b"b", b""]), max_size=3)


@given(requests(OTHERS) | requests(GROUPS), NEEDLES, NEEDLES | st.none())
def test_what_holds_a_needle_is_what_a_look_into_each_item_finds(request_bytes, needles, expected):
    parsed = shallow.parse(request_bytes)
    sought = Haystack(request_bytes, parsed, None if expected is None else search.Needles(expected))

    assert sought.holding(needles) == looked_into(parsed, needles)
    assert sought.holds_any(needles) == any(needle in request_bytes for needle in needles)


@pytest.mark.parametrize(
    "around",
    [
        pytest.param(lambda text: field(1, field(1, text)), id="a resource"),
        pytest.param(lambda text: field(1, field(2, field(1, text) + field(2, b"x"))), id="a scope"),
        pytest.param(lambda text: field(1, field(2, field(2, text))), id="an item"),
        pytest.param(lambda text: field(7, text), id="an unknown field"),
    ],
)
def test_a7_what_holds_a_needle_a_million_times_is_not_searched_a_million_times(around, monkeypatch):
    searched = []
    find = search.find
    monkeypatch.setattr(search, "find", lambda *args: searched.append(args) or find(*args))
    request = around(b"needle" * 1_000_000) + field(1, field(2, field(2, b"a needle")))

    found = Haystack(request, shallow.parse(request)).holding([b"needle"])

    assert sum(map(len, found.values())) == 1 + (around(b"") == field(1, field(2, field(2, b""))))
    assert len(searched) < 10
