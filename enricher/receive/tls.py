"""
The server side of TLS, for both receivers, with certificates that change while it runs.

A connection keeps the certificate it was opened with; new ones get what the files hold now. With `client_ca_file`,
clients without a certificate of these authorities are turned away in the handshake.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import grpc

from enricher.credentials import VERSIONS, TlsFiles, load_tls
from enricher.rotation import Rotating

if TYPE_CHECKING:
    from enricher.config.access import ServerTlsConfig


class ServerTls:
    """The files of one receiver's `tls` section. `where` is its key."""

    def __init__(self, config: ServerTlsConfig, where: str) -> None:
        self._config = config
        self._where = where
        files = [config.cert_file, config.key_file, *([config.client_ca_file] if config.client_ca_file else [])]
        self.files = Rotating(where, files, self._load, every=config.reload_interval)

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """
        Return what a gRPC server listens with; raises `EnricherError` if a file cannot be used.

        grpc offers TLS 1.2 and 1.3 and has no setting for it.
        """
        given = self.files.get()

        def changed() -> Any:
            # Called by grpc before every handshake, in a thread of its own; None keeps what it has.
            nonlocal given
            before, given = given, self.files.get()
            return None if given is before else _grpc_certificates(given)

        return grpc.dynamic_ssl_server_credentials(
            _grpc_certificates(given), changed, require_client_authentication=self._config.client_ca_file is not None
        )

    def ssl_context(self) -> ssl.SSLContext:
        """Return what an HTTP server listens with; raises `EnricherError` if a file cannot be used."""
        context = self._load().context

        def use_what_is_current(connection: Any, _name: str | None, _context: ssl.SSLContext) -> None:
            # Called in every handshake, whether or not the client names a server.
            connection.context = self.files.get().context

        context.sni_callback = use_what_is_current
        return context

    def _load(self) -> TlsFiles:
        config = self._config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = VERSIONS[config.min_version]
        context.set_alpn_protocols(["http/1.1"])
        if config.client_ca_file is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return load_tls(
            context,
            self._where,
            cert_file=config.cert_file,
            key_file=config.key_file,
            ca_file=config.client_ca_file,
            ca_key="client_ca_file",
        )


def _grpc_certificates(files: TlsFiles) -> Any:
    return grpc.ssl_server_certificate_configuration([(files.key, files.certificates)], files.authorities)
