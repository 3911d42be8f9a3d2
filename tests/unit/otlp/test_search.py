"""Finding needles in bytes, with and without the C library's help."""

import ctypes
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enricher.otlp import search

BYTES = st.sampled_from([b"a", b"b", b"\0"])
MANY = st.lists(st.binary(max_size=3) | st.lists(BYTES, max_size=4).map(b"".join), max_size=5)
HAYSTACKS = st.binary(max_size=60) | st.lists(BYTES, max_size=40).map(b"".join)
NEEDLES = st.binary(min_size=1, max_size=3) | st.lists(BYTES, min_size=1, max_size=4).map(b"".join)


@given(HAYSTACKS, NEEDLES | st.just(b""))
def test_contains_is_in(data, needle):
    assert search.contains(data, needle) == (needle in data)


@given(HAYSTACKS, NEEDLES)
def test_find_is_the_find_of_bytes(data, needle):
    for start in range(len(data) + 2):
        assert search.find(data, needle, start) == data.find(needle, start)


def test_without_the_c_library_the_answers_are_the_same(monkeypatch):
    monkeypatch.setattr(search, "_find", None)

    assert search.contains(b"ab\0cd", b"\0c")
    assert not search.contains(b"ab\0cd", b"cb")
    assert search.find(b"aba\0ab", b"ab", 1) == 4


def test_on_windows_the_c_library_is_not_asked(monkeypatch):
    monkeypatch.setattr(ctypes, "PyDLL", None)
    monkeypatch.setattr(sys, "platform", "win32")

    assert search._memmem() is None


def test_a_c_library_that_cannot_be_opened_is_done_without(monkeypatch):
    def refuse(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "PyDLL", refuse)

    assert search._memmem() is None


def test_a_c_library_without_memmem_is_done_without(monkeypatch):
    class Library:
        def __init__(self, name):
            assert name is None

    monkeypatch.setattr(ctypes, "PyDLL", Library)

    assert search._memmem() is None


@pytest.mark.parametrize(
    ("needles", "found"),
    [((), False), ((b"x",), False), ((b"x", b"bc"), True), ((b"ab", b"x"), True), ((b"",), True)],
)
def test_any_of_the_needles_is_enough(needles, found):
    assert search.contains_any(b"abcd", needles) is found


@given(st.lists(HAYSTACKS, min_size=1, max_size=3), MANY)
def test_one_pass_tells_whether_any_of_many_needles_is_there(many, needles):
    sought = search.Needles(needles)

    for data in many:
        assert sought.any_in(data) == any(needle in data for needle in needles)


class Unloadable:
    def find_spec(self, name, *_):
        if name == "hyperscan":
            raise OSError(name)


@pytest.mark.parametrize("installed", [types.ModuleType("hyperscan"), None], ids=["left-over folder", "unloadable"])
def test_a_library_that_is_broken_is_done_without(installed, monkeypatch):
    monkeypatch.delitem(sys.modules, "hyperscan", raising=False)
    if installed is None:
        monkeypatch.setattr(sys, "meta_path", [Unloadable(), *sys.meta_path])
    else:
        monkeypatch.setitem(sys.modules, "hyperscan", installed)

    assert search.Needles([b"x", b"cd"]).any_in(b"abcd")
    assert not search.Needles([b"x"]).any_in(b"abcd")


@pytest.mark.parametrize("needles", [[], [b""], [b"", b"ab"], [b"x"], [b"ab"], [b"x", b"cd"], [b"b.d"]])
def test_where_the_library_is_not_installed_the_needles_are_looked_for_one_by_one(needles, monkeypatch):
    monkeypatch.setitem(sys.modules, "hyperscan", None)

    assert search.Needles(needles).any_in(b"abcd") == any(needle in b"abcd" for needle in needles)


def test_a_search_that_breaks_off_hides_nothing(monkeypatch):
    hyperscan = pytest.importorskip("hyperscan")

    class Broken:
        def compile(self, **_):
            pass

        def scan(self, *_, **__):
            raise hyperscan.ScratchInUseError

    monkeypatch.setattr(hyperscan, "Database", Broken)

    assert search.Needles([b"ab"]).any_in(b"no")
