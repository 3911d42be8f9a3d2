"""When certificates expire."""

import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from enricher.certificates import expiry

AUTHORITY = trustme.CA()


def issued(until: datetime) -> bytes:
    leaf = AUTHORITY.issue_cert("stage.test", not_before=until - timedelta(days=1), not_after=until)
    return leaf.cert_chain_pems[0].bytes()


@pytest.mark.parametrize("year", [1999, 2020, 2049, 2050, 2999])
def test_it_is_what_was_asked_of_the_authority(year):
    until = datetime(year, 2, 28, 23, 59, 58, tzinfo=UTC)

    assert expiry(issued(until)) == until.timestamp()


def test_of_a_chain_it_is_the_first_to_end():
    years = [datetime(year, 1, 1, tzinfo=UTC) for year in (2040, 2030, 2035)]

    assert expiry(b"text before\n".join(map(issued, years))) == years[1].timestamp()


@pytest.mark.parametrize("pem", [b"", b"no PEM", issued(datetime(2040, 1, 1, tzinfo=UTC))[:-40]])
def test_without_a_certificate_there_is_none(pem):
    assert expiry(pem) is None


def element(tag: int, content: bytes) -> bytes:
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes(2, "big")
    return bytes([tag, 0x82]) + length + content


@given(has_version=st.booleans(), parts=st.lists(st.binary(max_size=300), min_size=4, max_size=4))
def test_lengths_of_any_form_and_certificates_of_the_first_version_are_read(has_version, parts):
    serial, signature, issuer, key = parts
    validity = element(0x17, b"200101000000Z") + element(0x18, b"20600101000000Z")
    fields = element(2, serial) + element(0x30, signature) + element(0x30, issuer) + element(0x30, validity)
    version = element(0xA0, element(2, b"\2")) if has_version else b""
    der = element(0x30, element(0x30, version + fields + element(0x30, key)))

    assert expiry(ssl.DER_cert_to_PEM_cert(der).encode()) == datetime(2060, 1, 1, tzinfo=UTC).timestamp()


@given(st.binary(max_size=200))
def test_f39_bytes_that_are_no_certificate_have_none(data):
    found = expiry(ssl.DER_cert_to_PEM_cert(data).encode())

    assert found is None or isinstance(found, float)
