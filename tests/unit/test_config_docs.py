"""What is written about the configuration is what the models say."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from enricher.config import Config, RuleConfig, Severity, examine
from enricher.config.model import ExportersConfig, FileExporterConfig

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "configuration.md"
COMPLETE = ROOT / "config" / "complete.yaml"
ROW = re.compile(r"^\| `([a-z_]+(?:\[\])?\.[^`]+)` \| (.*?) \|", re.MULTILINE)
SNIPPET = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)


def section(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """Return the model behind an annotation and whether it is a list of them."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part, str(annotation).startswith("tuple")
    return None, False


def keys(model: type[BaseModel] = Config, above: str = "") -> dict[str, str]:
    """Return every dotted key with its default as the documentation writes it."""
    found = {}
    for name, field in model.model_fields.items():
        dotted = above + name
        below, is_list = section(field.annotation)
        if below is None or is_list:
            found[dotted] = "required" if field.is_required() else default(model, name)
        if below is not None:
            found |= keys(below, f"{dotted}[]." if is_list else f"{dotted}.")
    return found


def default(model: type[BaseModel], name: str) -> str:
    """Return the default the way a configuration may write it."""
    value = model.model_fields[name].default
    if value is None:
        return "not set"
    if isinstance(value, Path):
        return f"`./{value}`"
    shown = model.model_construct(**{name: value}).model_dump(mode="json", include={name}, warnings=False)[name]
    if isinstance(shown, str):
        return f"`{shown}`"
    return f"`{yaml.safe_dump(shown, default_flow_style=True).splitlines()[0]}`"


def written(node: Any, above: str = "") -> dict[str, Any]:
    """Return the leaves of a loaded YAML file by dotted key."""
    if not isinstance(node, dict) or not node:
        return {above.rstrip("."): node}
    return {key: value for name, below in node.items() for key, value in written(below, f"{above}{name}.").items()}


def test_document_lists_every_key_with_its_default_and_no_other() -> None:
    rows = ROW.findall(DOCUMENT.read_text(encoding="utf-8"))

    assert len(rows) == len(dict(rows))
    assert dict(rows) == keys()


def test_problems_shown_in_the_document_are_those_that_are_printed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("config.yaml")
    exporter = "exporters:\n  otlp:\n    endpoint: collector:4317\n    timeout: 5\n    compressions: gzip\n"
    file.write_text("\n" * 10 + exporter, encoding="utf-8")
    printed = "\n".join(problem.render() for problem in examine(file, environ={}).problems)

    assert f"```\n{printed}\n```" in DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize("index", range(len(SNIPPET.findall(DOCUMENT.read_text(encoding="utf-8")))))
def test_snippets_of_the_document_load_without_problems(tmp_path: Path, index: int) -> None:
    file = tmp_path / "snippet.yaml"
    file.write_text(SNIPPET.findall(DOCUMENT.read_text(encoding="utf-8"))[index], encoding="utf-8")

    assert examine(file, environ={}).problems == []


def test_complete_example_is_the_defaults_beside_the_downstream_endpoint() -> None:
    examination = examine(COMPLETE, environ={})

    assert examination.problems == []
    named = examination.config.exporters
    exporters = ExportersConfig(
        otlp={"endpoint": str(named.otlp.endpoint)},
        otlphttp={"endpoint": str(named.otlphttp.endpoint)},
        file=FileExporterConfig(),
    )
    assert examination.config == Config(exporters=exporters)


def test_complete_example_lists_every_key() -> None:
    text = COMPLETE.read_text(encoding="utf-8")
    listed = {key for key in keys() if not key.startswith("enrichment.rules[]") and not is_access(key)}

    assert set(written(yaml.safe_load(text))) == listed


def is_access(key: str) -> bool:
    """Tell whether a key is in a section that has no default, so that it stands in an example of its own."""
    return ".auth." in key or ("receivers" in key and ".tls." in key)


def test_the_tls_example_has_the_sections_that_the_complete_one_lacks() -> None:
    config = examine(ROOT / "config" / "tls.yaml", environ={}).config
    protocols, otlp = config.receivers.otlp.protocols, config.exporters.otlp

    assert all((protocols.grpc.tls, protocols.grpc.auth.bearer, protocols.http.tls, protocols.http.auth.basic))
    assert otlp.auth.bearer


def test_rule_commented_in_the_complete_example_is_valid_and_lists_every_key(tmp_path: Path) -> None:
    text = COMPLETE.read_text(encoding="utf-8")
    commented = re.search(r"^  rules: \[\].*\n((?:  # .*\n)+)", text, re.MULTILINE)
    uncommented = text.replace(commented[0], commented[1].replace("  # ", "  "))
    file = tmp_path / "complete.yaml"
    file.write_text(uncommented, encoding="utf-8")
    examination = examine(file, environ={})

    assert examination.problems == []
    assert examination.config.enrichment.rules[0].model_fields_set == set(RuleConfig.model_fields)


OURS = [file for file in sorted((ROOT / "config").glob("*.yaml")) if "\nservice:" not in file.read_text()]
"""A Collector's configuration has a `service` section."""


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_shipped_examples_have_no_error(file: Path) -> None:
    assert [problem for problem in examine(file).problems if problem.severity is Severity.ERROR] == []


def test_minimal_example_names_a_downstream_and_nothing_else() -> None:
    config = examine(ROOT / "config" / "minimal.yaml", environ={}).config

    assert str(config.exporters.otlp.endpoint) == "localhost:14317"
    assert config == Config(exporters={"otlp": {"endpoint": "localhost:14317", "tls": {"insecure": True}}})


def test_every_section_says_what_it_is() -> None:
    """Each model carries a docstring of its own, not the one it inherits."""
    models, waiting = set(), [Config]
    while waiting:
        model = waiting.pop()
        models.add(model)
        waiting += [below for field in model.model_fields.values() if (below := section(field.annotation)[0])]

    assert [model.__name__ for model in models if not model.__dict__.get("__doc__")] == []
