"""The exporters that a configuration names."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from enricher.deliver.file_exporter import FileExporter
from enricher.deliver.grpc_exporter import GrpcExporter
from enricher.deliver.http_exporter import HttpExporter, client_context

if TYPE_CHECKING:
    from enricher.config.model import Config, OtlpExporterConfig, OtlpHttpExporterConfig
    from enricher.deliver import Exporter


def exporters_of(config: Config) -> dict[str, Exporter]:
    """Return the exporters by name, which is that of their queue; the configuration makes sure that there is one."""
    otlp, otlphttp, file = config.exporters.otlp, config.exporters.otlphttp, config.exporters.file
    exporters: dict[str, Exporter] = {}
    if otlp is not None:
        exporters["otlp"] = grpc_exporter(otlp)
    if otlphttp is not None:
        exporters["otlphttp"] = http_exporter(otlphttp)
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
    )


def http_exporter(otlp: OtlpHttpExporterConfig) -> HttpExporter:
    """Return the HTTP exporter of `exporters.otlphttp`."""
    files = {"ca_file": otlp.tls.ca_file, "cert_file": otlp.tls.cert_file, "key_file": otlp.tls.key_file}
    return HttpExporter(
        str(otlp.endpoint),
        timeout=otlp.timeout,
        compression=otlp.compression,
        headers={name: value.get_secret_value() for name, value in otlp.headers.items()},
        tls=cache(partial(client_context, "exporters.otlphttp.tls", **files)) if otlp.uses_tls else None,
        server_name_override=otlp.tls.server_name_override,
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
