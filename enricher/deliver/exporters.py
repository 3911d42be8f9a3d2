"""The exporters that a configuration names."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from enricher.credentials import VERSIONS
from enricher.deliver.auth import authorization
from enricher.deliver.file_exporter import FileExporter
from enricher.deliver.grpc_exporter import GrpcExporter
from enricher.deliver.http_exporter import HttpExporter, client_tls
from enricher.rotation import Rotating

if TYPE_CHECKING:
    from enricher.config.model import Config, OtlpExporterConfig, OtlpHttpExporterConfig
    from enricher.deliver import Exporter


def exporters_of(config: Config, rotating: list[Rotating[Any]]) -> dict[str, Exporter]:
    """
    Return the exporters by name, which is that of their queue; the configuration makes sure that there is one.

    What they read from files that rotate is added to `rotating`.
    """
    otlp, otlphttp, file = config.exporters.otlp, config.exporters.otlphttp, config.exporters.file
    exporters: dict[str, Exporter] = {}
    if otlp is not None:
        exporters["otlp"] = to_grpc = grpc_exporter(otlp)
        rotating += to_grpc.rotating
    if otlphttp is not None:
        exporters["otlphttp"] = to_http = http_exporter(otlphttp)
        rotating += to_http.rotating
    if file is not None:
        exporters["file"] = FileExporter(file.path)
    return exporters


def grpc_exporter(otlp: OtlpExporterConfig) -> GrpcExporter:
    """Return the gRPC exporter of `exporters.otlp`."""
    return GrpcExporter(
        otlp.endpoint.target,
        insecure=not otlp.uses_tls,
        timeout=otlp.timeout,
        compression=otlp.compression,
        headers={name: value.get_secret_value() for name, value in otlp.headers.items()},
        ca_file=otlp.tls.ca_file,
        cert_file=otlp.tls.cert_file,
        key_file=otlp.tls.key_file,
        server_name_override=otlp.tls.server_name_override,
        reload_interval=otlp.tls.reload_interval,
        authorization=authorization(otlp.auth, "exporters.otlp.auth") if otlp.auth is not None else None,
    )


def http_exporter(otlp: OtlpHttpExporterConfig) -> HttpExporter:
    """Return the HTTP exporter of `exporters.otlphttp`."""
    files = {"ca_file": otlp.tls.ca_file, "cert_file": otlp.tls.cert_file, "key_file": otlp.tls.key_file}
    where, minimum = "exporters.otlphttp", VERSIONS[otlp.tls.min_version]
    make = partial(client_tls, f"{where}.tls", **files, minimum=minimum)
    named = [file for file in files.values() if file is not None]
    return HttpExporter(
        str(otlp.endpoint),
        timeout=otlp.timeout,
        compression=otlp.compression,
        headers={name: value.get_secret_value() for name, value in otlp.headers.items()},
        tls=Rotating(f"{where}.tls", named, make, every=otlp.tls.reload_interval) if otlp.uses_tls else None,
        server_name_override=otlp.tls.server_name_override,
        authorization=authorization(otlp.auth, f"{where}.auth") if otlp.auth is not None else None,
    )


def senders_of(config: Config) -> dict[str, OtlpExporterConfig | OtlpHttpExporterConfig]:
    """Return the sections of the exporters that send over a network, by name."""
    named = {"otlp": config.exporters.otlp, "otlphttp": config.exporters.otlphttp}
    return {name: section for name, section in named.items() if section is not None}


def destination(config: Config) -> str:
    """Return in words where requests go."""
    named = [f"{name} {section.endpoint}" for name, section in senders_of(config).items()]
    if config.exporters.file is not None:
        named.append(f"file {config.exporters.file.path}")
    return " and ".join(named)
