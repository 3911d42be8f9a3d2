"""Finding needles in bytes, with and without the C library's help."""

import ctypes
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enricher.otlp import search

HAYSTACKS = st.binary(max_size=60) | st.lists(st.sampled_from([b"a", b"b", b"\0"]), max_size=40).map(b"".join)


def without_memmem(monkeypatch):
    class Library:
        def __init__(self, name):
            assert name is None

    monkeypatch.setattr(ctypes, "CDLL", Library)
    return search._load()


@given(HAYSTACKS, st.binary(max_size=3) | st.lists(st.sampled_from([b"a", b"b", b"\0"]), max_size=4).map(b"".join))
def test_contains_is_in(data, needle):
    assert search.contains(data, needle) == (needle in data)


def test_without_memmem_the_answer_is_the_same(monkeypatch):
    portable = without_memmem(monkeypatch)

    assert portable(b"ab\0cd", b"\0c")
    assert not portable(b"ab\0cd", b"cb")


def test_on_windows_the_c_library_is_not_asked(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", None)
    monkeypatch.setattr(sys, "platform", "win32")

    assert search._load()(b"abc", b"bc")


def test_a_c_library_that_cannot_be_opened_is_done_without(monkeypatch):
    def refuse(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", refuse)

    assert search._load()(b"abc", b"bc")


@pytest.mark.parametrize(
    ("needles", "found"),
    [((), False), ((b"x",), False), ((b"x", b"bc"), True), ((b"ab", b"x"), True), ((b"",), True)],
)
def test_any_of_the_needles_is_enough(needles, found):
    assert search.contains_any(b"abcd", needles) is found
