"""
The kinds of value that a configuration holds beside numbers and text: durations, endpoints, secrets, paths.

Each parser raises `ValueError` whose text says what was expected; the loader adds what was found and where,
because only it knows whether the value may be shown.
"""

import re
from dataclasses import dataclass, replace
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Final

from pydantic import PlainSerializer, PlainValidator, StringConstraints

REDACTED: Final = "[REDACTED]"

_UNITS: Final = {
    "h": 3600 * 10**9,
    "m": 60 * 10**9,
    "s": 10**9,
    "ms": 10**6,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ns": 1,
}
_DURATION_PART: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)(ns|us|µs|μs|ms|s|m|h)")
_DURATION: Final = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_LONGEST_SECONDS: Final = 8760 * 3600.0
"""A year: longer is a typing mistake, and timers overflow somewhere above."""

_ANY_IPV4: Final = str(IPv4Address(0))
_HOST: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/{1,3}")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~%+-]*)*")
_SIGNAL_PATH: Final = re.compile(r"/v1/(?:traces|metrics|logs)/?$")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_EXPORTER_PREFIXES: Final = {"http://": "http", "https://": "https", "dns:///": "dns"}


def parse_duration(value: object) -> float:
    """Return seconds; accepts what the Collector does, so units are not optional."""
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise ValueError('expected a duration such as "5s"')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(value)) / 10**9
    if seconds > _LONGEST_SECONDS:
        raise ValueError(f'expected a duration of at most "{format_duration(_LONGEST_SECONDS)}"')
    return seconds


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads back as the same time."""
    rest = round(seconds * 10**9)
    text = ""
    for unit in ("h", "m", "s", "ms", "us", "ns"):
        count, rest = divmod(rest, _UNITS[unit])
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _positive_duration(value: object) -> float:
    seconds = parse_duration(value)
    if seconds <= 0:
        raise ValueError("expected a duration longer than 0s")
    return seconds


def _duration_or_zero(value: object) -> float:
    # Zero needs no unit; True is an int too and means nothing here.
    return 0.0 if value == "0" or (type(value) is int and value == 0) else parse_duration(value)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port; `scheme` is empty for endpoints that this process listens on, `path` is part of a URL."""

    host: str
    port: int
    scheme: str = ""
    path: str = ""

    @property
    def target(self) -> str:
        """`host:port` as sockets and gRPC take it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can be at the other end, as far as the text says."""
        address = _address(self.host)
        return address.is_loopback if address else self.host.lower() == "localhost"

    @property
    def is_wildcard(self) -> bool:
        """Whether listening here means every interface."""
        address = _address(self.host)
        return address.is_unspecified if address else False

    def overlaps(self, other: "Endpoint") -> bool:
        """Whether both cannot be listened on at once; a host name is taken for no other name than itself."""
        if self.port != other.port or self.port == 0:
            return False
        mine, others = _hosts(self.host), _hosts(other.host)
        return bool(mine & others) or _covers(mine, others) or _covers(others, mine)

    def __str__(self) -> str:
        if not self.scheme:
            return self.target
        return (
            f"{self.scheme}:///{self.target}" if self.scheme == "dns" else f"{self.scheme}://{self.target}{self.path}"
        )


def _hosts(host: str) -> set[str]:
    host = host.lower().rstrip(".")
    return {"127.0.0.1", "::1"} if host == "localhost" else {host}


def _covers(wildcard: set[str], hosts: set[str]) -> bool:
    # Linux binds "::" for both families; "0.0.0.0" leaves IPv6 addresses free.
    return "::" in wildcard or (_ANY_IPV4 in wildcard and any(":" not in host for host in hosts))


def _address(host: str) -> IPv4Address | IPv6Address | None:
    for kind in (IPv4Address, IPv6Address):
        try:
            return kind(host)
        except AddressValueError:
            continue
    return None


def parse_listen_endpoint(value: object) -> Endpoint:
    """Return the endpoint to listen on; port 0 lets the system choose one."""
    if isinstance(value, Endpoint):
        return value
    text = _text(value, 'expected host:port such as "localhost:4317"')
    if _SCHEME.match(text):
        raise ValueError('expected host:port such as "localhost:4317" without a scheme')
    return _host_and_port(text, "")


def parse_exporter_endpoint(value: object) -> Endpoint:
    """Return the endpoint to send to, with the scheme that the Collector's otlp exporter takes (`http` plaintext)."""
    if isinstance(value, Endpoint):
        return value
    text = _text(value, 'expected host:port such as "collector:4317"')
    scheme = ""
    if found := _SCHEME.match(text):
        scheme = _EXPORTER_PREFIXES.get(found[0].lower(), "")
        if not scheme:
            raise ValueError("expected host:port, alone or after http://, https:// or dns:///")
        text = text[found.end() :].removesuffix("/")
    endpoint = _host_and_port(text, scheme)
    if endpoint.port == 0:
        raise ValueError("expected a port between 1 and 65535")
    return endpoint


def parse_url_endpoint(value: object) -> Endpoint:
    """Return the URL to send to, below which the paths of the signals are; without a port, its scheme's own."""
    if isinstance(value, Endpoint):
        return value
    expected = 'expected a URL such as "https://collector:4318"'
    text = _text(value, expected)
    found = _SCHEME.match(text)
    scheme = _EXPORTER_PREFIXES.get(found[0].lower(), "") if found else ""
    if not found or scheme not in _DEFAULT_PORTS:
        raise ValueError(f"{expected}, beginning with http:// or https://")
    host, slash, rest = text[found.end() :].partition("/")
    path = (slash + rest).rstrip("/")
    if not _PATH.fullmatch(path):
        raise ValueError("expected a URL without a query, a fragment or unusual characters in its path")
    if _SIGNAL_PATH.search(path):
        raise ValueError("expected the URL without the path of a signal, which is added for each")
    if not re.search(r":[^\]]*$", host):
        host = f"{host}:{_DEFAULT_PORTS[scheme]}"
    endpoint = _host_and_port(host, scheme)
    if endpoint.port == 0:
        raise ValueError("expected a port between 1 and 65535")
    return replace(endpoint, path=path)


def _host_and_port(text: str, scheme: str) -> Endpoint:
    if "@" in text:
        raise ValueError("expected host:port without a user or password (credentials go into headers)")
    if any(char in text for char in "/?#"):
        raise ValueError("expected host:port without a path")
    if text.count(":") > 1 and not text.startswith("["):
        raise ValueError('expected an IPv6 address in brackets, such as "[::1]:4317"')
    host, colon, port = text.rpartition(":")
    if not colon or host.startswith("[") != host.endswith("]"):
        raise ValueError('expected host:port such as "localhost:4317" (the port is missing)')
    if not host:
        raise ValueError('expected host:port (the host is missing; "0.0.0.0" listens on every interface)')
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError("expected a port between 0 and 65535 after the last colon")
    return Endpoint(_checked_host(host), int(port), scheme)


def _checked_host(host: str) -> str:
    try:
        if host.startswith("["):
            return str(IPv6Address(host[1:-1]))
        if all(char in "0123456789." for char in host):
            return str(IPv4Address(host))
    except AddressValueError:
        raise ValueError("expected a valid IP address before the port") from None
    if not _HOST.fullmatch(host):
        raise ValueError("expected a host name of letters, digits, dots and hyphens before the port")
    return host


class Secret:
    """A text that is never shown: every rendering is `[REDACTED]` (A11)."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        """Return the text itself; the caller keeps it out of logs and errors."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({REDACTED!r})"

    def __str__(self) -> str:
        return REDACTED

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


def _header_value(value: object) -> Secret:
    text = value.get_secret_value() if isinstance(value, Secret) else _text(value, "expected text in quotes")
    if not (text.isascii() and text.isprintable()):
        raise ValueError("expected printable ASCII only (is there a line break at its end?)")
    return Secret(text)


def _token(value: object) -> Secret:
    token = _header_value(value)
    if not token.get_secret_value() or " " in token.get_secret_value():
        raise ValueError("expected the token alone, without spaces or the scheme before it")
    return token


def _password(value: object) -> Secret:
    password = _header_value(value)
    if not password.get_secret_value():
        raise ValueError("expected text that is not empty")
    return password


def _secret_text(value: object) -> Secret:
    text = value.get_secret_value() if isinstance(value, Secret) else _text(value, "expected text in quotes")
    if not text.strip():
        raise ValueError("expected text that is not empty")
    return Secret(text)


def _path(value: object) -> Path:
    if isinstance(value, Path):
        return value
    text = _text(value, "expected a path")
    if not text or "\0" in text:
        raise ValueError("expected a path")
    return Path(text)


def _text(value: object, expected: str) -> str:
    if not isinstance(value, str):
        raise ValueError(expected)  # noqa: TRY004 - pydantic collects ValueError, not TypeError
    return value


Duration = Annotated[float, PlainValidator(_positive_duration), PlainSerializer(format_duration, when_used="json")]
"""Seconds, longer than zero."""

DurationOrZero = Annotated[float, PlainValidator(_duration_or_zero), PlainSerializer(format_duration, when_used="json")]
"""Seconds; zero has a meaning of its own."""

ListenEndpoint = Annotated[Endpoint, PlainValidator(parse_listen_endpoint), PlainSerializer(str)]
ExporterEndpoint = Annotated[Endpoint, PlainValidator(parse_exporter_endpoint), PlainSerializer(str)]
UrlEndpoint = Annotated[Endpoint, PlainValidator(parse_url_endpoint), PlainSerializer(str)]
Token = Annotated[Secret, PlainValidator(_token), PlainSerializer(str)]
Password = Annotated[Secret, PlainValidator(_password), PlainSerializer(str)]
SecretText = Annotated[Secret, PlainValidator(_secret_text), PlainSerializer(str)]
HeaderValue = Annotated[Secret, PlainValidator(_header_value), PlainSerializer(str)]
PathText = Annotated[Path, PlainValidator(_path), PlainSerializer(str, when_used="json")]
Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1024)]
