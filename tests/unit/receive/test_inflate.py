"""Compressed bodies: what they hold, or a refusal, and no more memory than what is let in."""

import gzip
import os
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from enricher.errors import BadRequestError
from enricher.receive.inflate import AT_ONCE_BYTES, CODINGS, TooLargeError, inflate

COMPRESS = {"gzip": gzip.compress, "deflate": zlib.compress, "zlib": zlib.compress, "zstd": zstandard.compress}
LIMIT = 16 << 20


def uncounted(_size: int) -> None:
    """Let everything in."""


def test_every_coding_has_a_row():
    assert set(COMPRESS) == set(CODINGS)


@pytest.mark.parametrize("coding", CODINGS)
@given(data=st.binary(max_size=5000))
def test_srv_01_what_was_compressed_comes_back(coding, data):
    assert inflate(coding, COMPRESS[coding](data), LIMIT, uncounted) == data


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [1, AT_ONCE_BYTES, AT_ONCE_BYTES + 1, LIMIT])
def test_large_bodies_come_back_up_to_the_limit(coding, size):
    data = os.urandom(1 << 16) * (size >> 16) + bytes(size & 0xFFFF)

    assert inflate(coding, COMPRESS[coding](data), LIMIT, uncounted) == data


@pytest.mark.parametrize("coding", CODINGS)
def test_srv_02_one_byte_above_the_limit_is_too_large(coding):
    with pytest.raises(TooLargeError):
        inflate(coding, COMPRESS[coding](bytes(1001)), 1000, uncounted)
    assert inflate(coding, COMPRESS[coding](bytes(1000)), 1000, uncounted) == bytes(1000)


@pytest.mark.parametrize("coding", CODINGS)
@given(data=st.binary(min_size=1, max_size=300), cut=st.integers(min_value=1, max_value=400))
def test_htp_12_what_breaks_off_is_refused(coding, data, cut):
    whole = COMPRESS[coding](data)
    with pytest.raises(BadRequestError, match="ends early"):
        inflate(coding, whole[: max(len(whole) - cut, 0)], LIMIT, uncounted)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("behind", [b"x", b"\0", "again"])
# Also where the data ends with a slice, so that what is behind comes with the next one.
@pytest.mark.parametrize("size", [5, 512, 1 << 16])
def test_htp_12_what_stands_behind_the_end_is_refused(coding, behind, size):
    whole = filled_up(coding, size)
    with pytest.raises(BadRequestError, match="something stands behind the end"):
        inflate(coding, whole + (whole if behind == "again" else behind), LIMIT, uncounted)


def filled_up(coding: str, size: int) -> bytes:
    """Return compressed data of just `size` bytes, where there can be such."""
    rest = size
    while rest and len(whole := COMPRESS[coding](os.urandom(rest))) > size:
        rest -= 1
    return COMPRESS[coding](b"12345") if size == 5 else whole


@pytest.mark.parametrize("coding", CODINGS)
def test_f40_garbage_is_refused(coding):
    with pytest.raises(BadRequestError, match="is damaged"):
        inflate(coding, b"\xff" * 100, LIMIT, uncounted)


def test_f40_a_check_sum_that_is_wrong_is_refused():
    whole = gzip.compress(b"span")
    with pytest.raises(BadRequestError, match="the gzip data is damaged"):
        inflate("gzip", whole[:-8] + bytes(8), LIMIT, uncounted)


def test_a2_many_empty_members_are_refused_at_the_second():
    with pytest.raises(BadRequestError, match="something stands behind"):
        inflate("gzip", gzip.compress(b"") * 300_000, LIMIT, uncounted)


def test_a1_a_zstd_frame_that_asks_for_much_memory_is_refused():
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(BadRequestError, match="is damaged"):
        inflate("zstd", frame.compress(b"x") + frame.flush(), LIMIT, uncounted)


@pytest.mark.parametrize("coding", CODINGS)
def test_a1_a_bomb_takes_no_memory(coding):
    bomb = bomb_of(coding, 256 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            inflate(coding, bomb, 64 << 20, uncounted)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 40 << 20


def bomb_of(coding: str, size: int) -> bytes:
    if coding == "zstd":
        stream = zstandard.ZstdCompressor().compressobj()
    else:
        stream = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
    zeros = bytes(1 << 20)
    return b"".join([*(stream.compress(zeros) for _ in range(size >> 20)), stream.flush()])
