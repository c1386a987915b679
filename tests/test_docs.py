"""What the documents show is true: their Python runs, and their command lines exist."""

from __future__ import annotations

import functools
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from polysense import cli
from polysense.methods.recipes import TABLE
from polysense.methods.table import recipes

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def blocks(text: str, language: str) -> Iterator[tuple[int, str]]:
    """The fenced blocks of a language, each with the number of its first line."""
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, found.start(1)), found[1]


def command_lines(text: str) -> list[str]:
    """Every ``polysense …`` line of the shell blocks; a backslash continues one, a hash ends it."""
    shell = "".join(block for _, block in blocks(text, "(?:bash|sh|shell)"))
    lines = shell.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if re.match(r"\s*polysense\b", line)]


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """What the command line says against a line, "" where nothing: it is parsed in full, but not obeyed."""
    for name in cli.COMMANDS:
        module = cli.module_of(name)
        monkeypatch.setattr(module, name, idle(getattr(module, name)))
    monkeypatch.chdir(ROOT)

    def parse(line: str) -> str:
        code = cli.main(shlex.split(line, comments=True)[1:])
        said = capsys.readouterr().err
        assert (code == 0) == (said == "")
        return said

    return parse


def idle(command: Callable[..., Any]) -> Callable[..., None]:
    """A command with the same signature that does nothing."""

    @functools.wraps(command)
    def nothing(*args: Any, **kwargs: Any) -> None:
        return None

    return nothing


@pytest.fixture
def own_table() -> Iterator[None]:
    """Recipes that a document adds leave with it."""
    before = recipes()
    yield
    TABLE.clear()
    TABLE.update(before)


@documents
def test_the_python_runs(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_table: None
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": f"document_{document.stem}"}
    text = document.read_text(encoding="utf-8")
    for line, block in blocks(text, "python"):
        # The empty lines before a block make a traceback name the line of the document.
        exec(compile("\n" * line + block, str(document), "exec"), namespace)
        for name, test in list(namespace.items()):
            if name.startswith("test_") and inspect.isfunction(test):
                namespace.pop(name)()


@documents
def test_the_command_lines_exist(document: Path, fault: Callable[[str], str]) -> None:
    faults = {line: fault(line) for line in command_lines(document.read_text(encoding="utf-8"))}
    assert {line: found for line, found in faults.items() if found} == {}


@documents
def test_the_files_linked_to_exist(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_readme_and_contributing_show_code() -> None:
    for document in DOCUMENTS[:2]:
        text = document.read_text(encoding="utf-8")
        assert list(blocks(text, "python")), document.name
    assert len(command_lines((ROOT / "README.md").read_text(encoding="utf-8"))) >= 8


def test_every_method_is_listed_with_its_paper() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    for recipe in recipes().values():
        assert re.search(rf"^\| `{recipe.name}` .*{re.escape(recipe.paper)}", text, re.MULTILINE), recipe.name


def test_the_citation_is_yaml_of_this_version() -> None:
    import polysense

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == polysense.__version__
    assert citation["authors"] == [{"name": "The polysense developers"}]


@pytest.mark.parametrize(
    "line",
    [
        "polysense pretend",
        "polysense pretrain photos --methode simclr",
        "polysense pretrain photos --steps many",
        "polysense embed",
        "polysense report runs/one runs/two",
    ],
)
def test_a_command_line_that_does_not_exist_is_found(line: str, fault: Callable[[str], str]) -> None:
    assert fault(line).startswith("error: ")


def test_a_command_line_that_exists_is_fine(fault: Callable[[str], str]) -> None:
    assert fault("polysense pretrain photos --overwrite --max-time=3min  # three minutes") == ""


def test_blocks_and_command_lines_are_found() -> None:
    shell = "```bash\ncd x\npolysense data \\\n  --debug\n```\n```text\npolysense no\n```\n"
    text = "a\n```python\none = 1\n```\n" + shell
    assert list(blocks(text, "python")) == [(2, "one = 1\n")]
    assert command_lines(text) == ["polysense data    --debug"]
