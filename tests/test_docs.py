"""
Documents say what is true: their configurations load, their commands exist, their links lead somewhere.

A fenced `bash` or `python` block with `<!-- tested -->` on the line before it is run, in an empty folder, with
`enricher` on the path. Every `yaml` block whose sections are all the stage's own is loaded as its configuration.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from enricher.config.load import load
from enricher.config.model import Config

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")])
RUN_SECONDS = 60

INTERPRETERS = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"(?<![\w./-])enricher ([a-z][a-z-]*)")
_LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_MACHINE_PATH = re.compile(r"(?<![\w./:-])/(?:work|root|home|Users)/\S*")


@dataclass(frozen=True)
class Block:
    document: Path
    line: int
    language: str
    text: str
    is_tested: bool

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks() -> list[Block]:
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            before = text[: match.start()]
            indent, language, inside = match.groups()
            found.append(
                Block(
                    document,
                    before.count("\n") + 1,
                    language,
                    re.sub(f"^{indent}", "", inside, flags=re.MULTILINE),
                    before.rstrip().endswith("<!-- tested -->"),
                )
            )
    return found


def prose(document: Path) -> str:
    return _FENCE.sub("", document.read_text(encoding="utf-8"))


def named_commands() -> set[str]:
    code = [block.text for block in blocks()]
    code += [span for document in DOCUMENTS for span in _INLINE.findall(prose(document))]
    return {command for text in code for command in _COMMAND.findall(text)}


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings as GitHub makes them."""
    headings = _HEADING.findall(prose(document))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("block", [block for block in blocks() if block.language == "yaml"], ids=str)
def test_yaml_blocks_are_yaml_and_configurations_load(block, tmp_path):
    content = yaml.safe_load(block.text)
    if not isinstance(content, dict) or not content.keys() <= Config.model_fields.keys():
        return  # the Collector's, or another program's
    file = tmp_path / "config.yaml"
    file.write_text(block.text, encoding="utf-8")

    load(file, environ=dict.fromkeys(re.findall(r"\$\{env:(\w+)", block.text), "example"))


def test_tested_blocks_run(tmp_path):
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    failed = {}
    for number, block in enumerate(block for block in blocks() if block.is_tested):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = subprocess.run(
            [*INTERPRETERS[block.language], block.text],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            failed[str(block)] = f"exit code {done.returncode}\n{done.stdout}{done.stderr}"

    assert failed == {}


def test_commands_that_documents_name_exist():
    commands = ["", *sorted(named_commands())]
    absent = []
    for command in commands:
        asked = [sys.executable, "-m", "enricher", *command.split(), "--help"]
        done = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_SECONDS, check=False)
        if done.returncode != 0:
            absent.append(" ".join(asked[2:]))

    assert absent == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document):
    broken = []
    for link in _LINK.findall(prose(document)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        is_document = target.suffix == ".md"
        if not target.exists() or (anchor and is_document and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_documents_hold_nothing_unfinished_and_no_path_of_one_machine(document):
    text = document.read_text(encoding="utf-8")

    assert _MACHINE_PATH.findall(text) == []
    assert re.findall(r"TODO|FIXME|TBD", text) == []
