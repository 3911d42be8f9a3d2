"""
Who gets in and whom the stage trusts: TLS and authentication, one class a section.

Shaped after the Collector's `configtls`, `bearertokenauth` and `basicauth`, without its extensions.
"""

import re
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from enricher.config.section import Section
from enricher.config.values import Duration, Password, PathText, SecretText, Text, Token

_SCHEME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")

S = TypeVar("S", bound=Section)


def _one_of(section: S, first: str, second: str) -> S:
    """Refuse both and neither: an empty variable must not open a door, and one of two secrets would be the old one."""
    given = [name for name in (first, second) if getattr(section, name) is not None]
    if len(given) != 1:
        raise PydanticCustomError(
            "one_of",
            "exactly one of {first} and {second} is needed, and {found} given",
            {"first": first, "second": second, "found": "both are" if given else "none is"},
        )
    return section


def _scheme(scheme: str) -> str:
    if not _SCHEME.fullmatch(scheme):
        raise ValueError('expected one word such as "Bearer"')
    return scheme


def _user_name(name: str) -> str:
    if ":" in name:
        raise ValueError("expected a user name without a colon")
    return name


TlsVersion = Literal["1.2", "1.3"]


class ServerTlsConfig(Section):
    """The server side of TLS."""

    cert_file: PathText
    key_file: PathText
    client_ca_file: PathText | None = None
    """With it, clients must show a certificate of one of these authorities."""
    min_version: TlsVersion = "1.2"
    reload_interval: Duration | None = None
    """How often the files are looked at; without it, only on SIGHUP."""


class TlsConfig(Section):
    """The client side of TLS, on unless `insecure`."""

    insecure: StrictBool = False
    insecure_skip_verify: StrictBool = False
    ca_file: PathText | None = None
    cert_file: PathText | None = None
    key_file: PathText | None = None
    server_name_override: Text | None = None
    min_version: TlsVersion = "1.2"
    reload_interval: Duration | None = None


class BearerConfig(Section):
    """A bearer token: the one that the stage shows, or those that it takes."""

    scheme: Annotated[Text, AfterValidator(_scheme)] = "Bearer"
    token: Token | None = None
    filename: PathText | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        return _one_of(self, "token", "filename")


class HtpasswdConfig(Section):
    """Users and passwords, `user:password` a line."""

    inline: SecretText | None = None
    file: PathText | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        return _one_of(self, "inline", "file")


class BasicServerConfig(Section):
    """Users that a receiver takes requests from."""

    htpasswd: HtpasswdConfig


class BasicClientConfig(Section):
    """The user that the stage is downstream."""

    username: Annotated[Text, AfterValidator(_user_name)]
    password: Password | None = None
    password_file: PathText | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        return _one_of(self, "password", "password_file")


class ServerAuthConfig(Section):
    """Who may send to a receiver."""

    bearer: BearerConfig | None = None
    basic: BasicServerConfig | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        return _one_of(self, "bearer", "basic")


class ClientAuthConfig(Section):
    """How the stage shows downstream who it is."""

    bearer: BearerConfig | None = None
    basic: BasicClientConfig | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        return _one_of(self, "bearer", "basic")
