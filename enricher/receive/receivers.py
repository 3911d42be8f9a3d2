"""The receivers that a configuration names, with what stands before them: TLS and authentication."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from enricher.receive.auth import Authenticator
from enricher.receive.grpc_server import GrpcReceiver
from enricher.receive.http_server import HttpReceiver
from enricher.receive.tls import ServerTls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from enricher.config.model import Config, GrpcServerConfig, HttpServerConfig
    from enricher.otlp.shallow import Signal
    from enricher.receive.admission import Room
    from enricher.rotation import Rotating

    Receiver = GrpcReceiver | HttpReceiver
    Authenticate = Callable[[Mapping[str, str]], bool]


class Stage(Protocol):
    """What stands behind the receivers."""

    async def consume(self, signal: Signal, request: bytes, room: Room | None = None) -> bytes:
        """Answer a request; its bytes are in the room, if there is one."""

    def room(self, signal: Signal) -> AbstractContextManager[Room]:
        """Return where the bytes of a request are counted from the first one that is read."""

    def unauthenticated(self, transport: str) -> None:
        """Count a request that was refused for want of valid credentials."""

    def why_not_ready(self) -> str:
        """Return why nothing should be sent here now; empty if it may."""


def receivers_of(config: Config, stage: Stage, rotating: list[Rotating[Any]]) -> dict[str, Receiver]:
    """
    Return the receivers that are to listen, by the protocol's key.

    What they read from files that rotate is added to `rotating`. Raises `EnricherError` if such a file cannot be used.
    """
    protocols = config.receivers.otlp.protocols
    found: dict[str, Receiver] = {}
    if (grpc := protocols.grpc) is not None:
        tls, authenticate = _guard(grpc, "grpc", stage, rotating)
        limit = grpc.max_recv_msg_size_mib << 20
        found["grpc"] = GrpcReceiver(
            str(grpc.endpoint),
            stage.consume,
            max_receive_bytes=limit,
            tls=tls,
            authenticate=authenticate,
            ready=stage.why_not_ready if grpc.health else None,
        )
    if (http := protocols.http) is not None:
        tls, authenticate = _guard(http, "http", stage, rotating)
        limit = http.max_request_body_size_mib << 20
        context = tls.ssl_context() if tls is not None else None
        found["http"] = HttpReceiver(
            str(http.endpoint),
            stage.consume,
            room=stage.room,
            max_receive_bytes=limit,
            ssl_context=context,
            authenticate=authenticate,
        )
    return found


def _guard(
    protocol: GrpcServerConfig | HttpServerConfig, name: str, stage: Stage, rotating: list[Rotating[Any]]
) -> tuple[ServerTls | None, Authenticate | None]:
    tls, authenticate, where = None, None, f"receivers.otlp.protocols.{name}"
    if protocol.tls is not None:
        tls = ServerTls(protocol.tls, f"{where}.tls")
        rotating.append(tls.files)
    if protocol.auth is not None:
        authenticator = Authenticator(protocol.auth, f"{where}.auth", count=partial(stage.unauthenticated, name))
        rotating.append(authenticator.credentials)
        authenticate = authenticator.authenticate
    return tls, authenticate


def unguarded(config: Config) -> list[str]:
    """Return where receivers listen for other machines with nothing that keeps anybody out (A6)."""
    protocols = config.receivers.otlp.protocols
    return [
        str(each.endpoint)
        for each in (protocols.grpc, protocols.http)
        if each is not None and not each.endpoint.is_loopback and each.tls is None and each.auth is None
    ]
