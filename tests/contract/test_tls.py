"""TLS and authentication of the receivers as their clients meet them, with certificates made for the run."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from enricher.config.access import ServerAuthConfig, ServerTlsConfig
from enricher.errors import EnricherError
from enricher.otlp.shallow import Signal
from enricher.otlp.status import SERVICES
from enricher.receive.auth import Authenticator
from enricher.receive.grpc_server import GrpcReceiver
from enricher.receive.tls import ServerTls
from tests.support.certificates import Authority, Pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

EXPORT = f"/{SERVICES[Signal.TRACES]}/Export"
ALONE = ("grpc.use_local_subchannel_pool", 1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(authority: Authority) -> Pair:
    return authority.issue("server")


def tls_of(server: Pair, **settings: object) -> ServerTls:
    return ServerTls(ServerTlsConfig(cert_file=server.cert, key_file=server.key, **settings), "a.tls")


async def accept(_signal: Signal, _request: bytes) -> bytes:
    return b"taken"


@asynccontextmanager
async def receiving(consume=accept, limit: int = 1 << 20, **settings: object) -> AsyncIterator[GrpcReceiver]:
    receiver = GrpcReceiver("127.0.0.1:0", consume, max_receive_bytes=limit, **settings)
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.shutdown(0)


async def call(
    receiver: GrpcReceiver, authority: Authority | None, client: Pair | None = None, request: bytes = b"", **options
) -> bytes:
    endpoint = f"127.0.0.1:{receiver.port}"
    if authority is None:
        channel = grpc.aio.insecure_channel(endpoint, options=[ALONE])
    else:
        pair = (client.key.read_bytes(), client.cert.read_bytes()) if client else (None, None)
        credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes(), *pair)
        channel = grpc.aio.secure_channel(endpoint, credentials, options=[ALONE])
    async with channel:
        return await channel.unary_unary(EXPORT)(request, timeout=30, **options)


async def refused(*args, **options) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(*args, **options)
    return caught.value.code()


async def shown(port: int, authority: Authority, version: ssl.TLSVersion | None = None) -> str:
    """Return the common name of the certificate that a server shows in a handshake without a server name."""
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.set_alpn_protocols(["h2", "http/1.1"])
    if version is not None:
        context.minimum_version = context.maximum_version = version
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    subject = dict(pair for (pair,) in writer.get_extra_info("peercert")["subject"])
    await reader.read(1)  # with TLS 1.3 a server's refusal comes after the client's handshake
    writer.close()
    return subject["commonName"]


class TestGrpc:
    async def test_a_client_that_trusts_the_authority_is_served(self, authority, server):
        async with receiving(tls=tls_of(server)) as receiver:
            assert await call(receiver, authority) == b"taken"

    async def test_plaintext_and_other_authorities_do_not_get_in(self, server, tmp_path):
        async with receiving(tls=tls_of(server)) as receiver:
            assert await refused(receiver, None) is grpc.StatusCode.UNAVAILABLE
            assert await refused(receiver, Authority(tmp_path, "other")) is grpc.StatusCode.UNAVAILABLE

    async def test_with_client_ca_file_a_client_needs_a_certificate_of_it(self, authority, server, tmp_path):
        clients = Authority(tmp_path, "clients")
        async with receiving(tls=tls_of(server, client_ca_file=clients.ca)) as receiver:
            assert await call(receiver, authority, clients.issue("app")) == b"taken"
            assert await refused(receiver, authority) is grpc.StatusCode.UNAVAILABLE
            assert await refused(receiver, authority, authority.issue("stranger")) is grpc.StatusCode.UNAVAILABLE
            expired = clients.issue("late", expired=True)
            assert await refused(receiver, authority, expired) is grpc.StatusCode.UNAVAILABLE

    async def test_tls_below_1_2_is_refused(self, authority, server):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(authority.ca)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.set_alpn_protocols(["h2"])
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        async with receiving(tls=tls_of(server)) as receiver:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection("127.0.0.1", receiver.port, ssl=context)

    async def test_f22_a_new_certificate_is_shown_to_the_next_connection(self, authority, server):
        tls = tls_of(server)
        async with receiving(tls=tls) as receiver:
            first = await common_name(receiver.port, authority)
            server.replace_with(authority.issue("renewed"))
            before = await common_name(receiver.port, authority)
            tls.files.reload()
            after = await common_name(receiver.port, authority)

            assert (first, before, after) == ("server", "server", "renewed")
            assert await call(receiver, authority) == b"taken"

    async def test_with_reload_interval_nobody_has_to_say_so(self, authority, server):
        async with receiving(tls=tls_of(server, reload_interval="1ns")) as receiver:
            server.replace_with(authority.issue("renewed"))

            assert await common_name(receiver.port, authority) == "renewed"

    async def test_half_a_renewal_does_no_harm(self, authority, server):
        """The new certificate is there and its key is not: the old pair stays."""
        tls = tls_of(server)
        async with receiving(tls=tls) as receiver:
            server.cert.write_bytes(authority.issue("renewed").cert.read_bytes())
            with capture_logs() as logs:
                assert not tls.files.reload()

            assert await common_name(receiver.port, authority) == "server"
        assert "a.tls.cert_file" in logs[0]["error"]

    async def test_a_connection_that_is_open_outlives_a_renewal(self, authority, server):
        tls = tls_of(server)
        credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes())
        async with (
            receiving(tls=tls) as receiver,
            grpc.aio.secure_channel(f"127.0.0.1:{receiver.port}", credentials, options=[ALONE]) as channel,
        ):
            export = channel.unary_unary(EXPORT)
            await export(b"", timeout=30)
            server.replace_with(authority.issue("renewed"))
            tls.files.reload()

            assert await export(b"", timeout=30) == b"taken"

    @pytest.mark.parametrize("broken", ["cert_file", "key_file", "client_ca_file"])
    @pytest.mark.parametrize("content", [None, "", "no PEM"])
    async def test_a_file_that_cannot_be_used_is_named_at_start(self, authority, server, tmp_path, broken, content):
        files = {"cert_file": server.cert, "key_file": server.key, "client_ca_file": authority.ca}
        files[broken] = tmp_path / "broken.pem"
        if content is not None:
            files[broken].write_text(content)
        receiver = GrpcReceiver(
            "127.0.0.1:0", accept, max_receive_bytes=1, tls=ServerTls(ServerTlsConfig(**files), "a.tls")
        )

        with pytest.raises(EnricherError, match=r"a\.tls\.\w+: .*broken\.pem") as caught:
            await receiver.start()
        assert "BEGIN" not in str(caught.value)


class TestHttp:
    """What an HTTP server listens with, under a server that only greets."""

    async def test_a_handshake_shows_what_the_files_hold_now(self, authority, server):
        tls = tls_of(server)
        async with greeting(tls.ssl_context()) as port:
            first = await shown(port, authority)
            server.replace_with(authority.issue("renewed"))
            tls.files.reload()

            assert (first, await shown(port, authority)) == ("server", "renewed")

    async def test_min_version_is_kept_before_and_after_a_reload(self, authority, server):
        tls = tls_of(server, min_version="1.3")
        async with greeting(tls.ssl_context()) as port:
            for _ in range(2):
                assert await shown(port, authority, ssl.TLSVersion.TLSv1_3) == "server"
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await shown(port, authority, ssl.TLSVersion.TLSv1_2)
                tls.files.reload()

    async def test_with_client_ca_file_a_client_needs_a_certificate_of_what_it_holds_now(
        self, authority, server, tmp_path
    ):
        clients, others = Authority(tmp_path, "clients"), Authority(tmp_path, "others")
        tls = tls_of(server, client_ca_file=clients.ca)
        async with greeting(tls.ssl_context()) as port:
            assert await gets_in(port, authority, clients.issue("app"))
            assert not await gets_in(port, authority, others.issue("stranger"))
            assert not await gets_in(port, authority, None)
            clients.ca.write_bytes(others.ca.read_bytes())
            tls.files.reload()

            assert await gets_in(port, authority, others.issue("stranger"))
            assert not await gets_in(port, authority, clients.issue("app"))


class TestAuthentication:
    async def test_f42_a_token_lets_in_and_nothing_else_does(self):
        seen = []

        async def consume(_signal: Signal, request: bytes) -> bytes:
            seen.append(request)
            return b"taken"

        keeper = Authenticator(ServerAuthConfig(bearer={"token": "one"}), "a.auth")
        async with receiving(consume, authenticate=keeper.authenticate) as receiver:
            assert await call(receiver, None, metadata=(("authorization", "Bearer one"),), request=b"x") == b"taken"
            codes = {
                await refused(receiver, None, request=bytes(1 << 19), metadata=metadata)
                for metadata in [
                    (),
                    (("authorization", "Bearer two"),),
                    (("authorization", "one"),),
                    (("authorization", "Basic b25l"),),
                    (("x-authorization", "Bearer one"),),
                    (("authorization", "Bearer " + "x" * 10_000),),
                ]
            }

        assert codes == {grpc.StatusCode.UNAUTHENTICATED}
        assert seen == [b"x"]

    async def test_f42_a_token_of_20_kb_is_refused_by_one_limit_or_the_other(self):
        """Between grpc's two limits it is chance which; neither answer is retried, and nothing comes in."""
        keeper = Authenticator(ServerAuthConfig(bearer={"token": "one"}), "a.auth")
        async with receiving(authenticate=keeper.authenticate) as receiver:
            code = await refused(receiver, None, metadata=(("authorization", "Bearer " + "x" * 20_000),))

        assert code in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}

    async def test_f42_the_refusal_says_nothing_and_is_trailers_only(self):
        keeper = Authenticator(ServerAuthConfig(bearer={"token": "canary"}), "a.auth")
        async with receiving(authenticate=keeper.authenticate) as receiver:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(receiver, None, metadata=(("authorization", "Bearer guessed"),))

        assert caught.value.details() == "not authenticated"
        assert tuple(caught.value.trailing_metadata()) == ()
        assert tuple(caught.value.initial_metadata()) == ()

    async def test_f42_a_body_above_the_limit_is_refused_for_its_token(self):
        """UNAUTHENTICATED and not RESOURCE_EXHAUSTED: grpc did not read as far as to count."""
        keeper = Authenticator(ServerAuthConfig(bearer={"token": "one"}), "a.auth")
        async with receiving(limit=1000, authenticate=keeper.authenticate) as receiver:
            assert await refused(receiver, None, request=bytes(1 << 20)) is grpc.StatusCode.UNAUTHENTICATED

    async def test_methods_that_are_none_are_not_told_to_strangers(self):
        keeper = Authenticator(ServerAuthConfig(bearer={"token": "one"}), "a.auth")
        async with (
            receiving(authenticate=keeper.authenticate) as receiver,
            grpc.aio.insecure_channel(f"127.0.0.1:{receiver.port}") as channel,
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/a.b.C/D")(b"", timeout=30)

        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED

    async def test_a_token_over_tls(self, authority, server):
        keeper = Authenticator(ServerAuthConfig(basic={"htpasswd": {"inline": "ann:word"}}), "a.auth")
        async with receiving(tls=tls_of(server), authenticate=keeper.authenticate) as receiver:
            assert await refused(receiver, authority) is grpc.StatusCode.UNAUTHENTICATED
            sent = (("authorization", "Basic YW5uOndvcmQ="),)
            assert await call(receiver, authority, metadata=sent) == b"taken"


async def common_name(port: int, authority: Authority) -> str:
    """Return whose certificate the gRPC receiver shows; by a plain handshake, since gRPC does not tell."""
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    subject = dict(pair for (pair,) in writer.get_extra_info("peercert")["subject"])
    writer.close()
    return subject["commonName"]


@asynccontextmanager
async def greeting(context: ssl.SSLContext) -> AsyncIterator[int]:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"!")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def gets_in(port: int, authority: Authority, client: Pair | None) -> bool:
    context = ssl.create_default_context(cafile=str(authority.ca))
    if client is not None:
        context.load_cert_chain(client.cert, client.key)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        first = await reader.read(1)
    except (ssl.SSLError, ConnectionError):
        return False
    writer.close()
    return first == b"!"
