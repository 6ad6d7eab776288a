"""What README, manual and examples say is what the program knows; see also test_tutorial.py."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from typer.main import get_command

from xrdpipe import config, errors, schema
from xrdpipe.cli import app
from xrdpipe.pipeline import load_pipeline

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
COMMANDS = get_command(app).commands

ELSEWHERE = {"--array", "--dependency", "--parsable", "--wrap", "--signal"}
"""Options of other programs that pages name: sbatch."""

OF_THE_PROGRAM = {"--help", "--version", "--install-completion", "--show-completion"}


def flags(command):
    return {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}


EVERY_FLAG = set().union(*map(flags, COMMANDS.values())) | OF_THE_PROGRAM


def relative(path):
    return str(path.relative_to(ROOT))


def fenced(text, *languages):
    """The blocks of code in these languages."""
    blocks = re.findall(r"```(\w*)\n(.*?)```", text, re.S)
    return [body for language, body in blocks if language in languages]


def xrdpipe_commands(text):
    """The words of every ``xrdpipe …`` line of shell blocks, comments and pipes cut off."""
    found = []
    for block in fenced(text, "console", "sh", "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.removeprefix("$ ").strip()
            if line.startswith("xrdpipe "):
                words = shlex.split(line, comments=True)[1:]
                found.append(words[: words.index("|")] if "|" in words else words)
    return found


SAID = [(path, words) for path in DOCUMENTS for words in xrdpipe_commands(path.read_text())]


def test_the_two_commands_stand_first():
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    assert len(blocks) == 2
    assert blocks[0].strip().endswith("xrdpipe run demo")
    assert blocks[1].strip().endswith("pytest -n auto")
    assert README.index("```sh") < README.index("## ")


@pytest.mark.parametrize(
    ("path", "words"), SAID, ids=[f"{path.stem}: {' '.join(words)}" for path, words in SAID]
)
def test_commands_have_known_options(path, words):
    name, *rest = words
    if name in OF_THE_PROGRAM:
        return
    assert name in COMMANDS, f"{path.name}: no command '{name}'"
    given = {word.partition("=")[0] for word in rest if re.match(r"-{1,2}[a-z]", word)}
    assert given <= flags(COMMANDS[name]) | {"--help"}
    for option, change in pairwise(rest):
        if option == "--set":
            step, _, key = change.partition("=")[0].partition(".")
            kinds = [config.STAGES[step]] if step in config.STAGES else config.STAGES.values()
            kinds = [config.ClusterConfig] if step == "cluster" else kinds
            assert any(key in {d.name for d in config.fields(kind)} for kind in kinds), change


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_options_named_in_the_text_exist(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    named = {
        option
        for code in re.findall(r"`([^`]+)`", text)
        if not code.startswith(("python ", "pip ", "sbatch ", "pytest"))
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)
    }
    assert named <= EVERY_FLAG | ELSEWHERE


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_code_blocks_can_be_read(path):
    text = path.read_text()
    for block in fenced(text, "python"):
        compile(block, str(path), "exec")
        for stage, arguments in re.findall(r"xrdpipe\.(\w+)\(\s(.*?)\)\n", block, re.S):
            known = {d.name for d in config.fields(config.STAGES[stage])}
            assert set(re.findall(r"(\w+)=", arguments)) <= known
    for block in fenced(text, "toml"):
        tomllib.loads(block)


def anchors(path):
    """The anchors of a page's headings, as Git hosts and the site make them."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), f"{path.name} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{path.name} links to {link}"


def test_every_page_is_in_the_site():
    listed = set()
    for index in (DOCS / "index.md", DOCS / "decisions" / "index.md"):
        for block in re.findall(r"```\{toctree\}\n(.*?)```", index.read_text(), re.S):
            lines = [line for line in block.splitlines() if line and not line.startswith(":")]
            names = [re.sub(r".*<(.*)>", r"\1", line) for line in lines]
            listed |= {(index.parent / f"{name}.md").relative_to(DOCS) for name in names}
    pages = {path.relative_to(DOCS) for path in DOCS.rglob("*.md")} - {Path("index.md")}
    assert pages <= listed


def made_from_code():
    spec = importlib.util.spec_from_file_location("from_code", DOCS / "from_code.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_holds_every_command_and_option():
    sections = re.split(r"^## ", made_from_code().command_reference(), flags=re.M)[1:]
    by_name = {section.split("\n")[0]: section for section in sections}
    assert set(by_name) == set(COMMANDS)
    for name, kind in config.STAGES.items():
        for definition in config.fields(kind):
            written = f"--{definition.name.replace('_', '-')}"
            if definition.metadata["argument"]:
                written = definition.metadata["metavar"].replace("|", "\\|")
            assert f"`{written}" in by_name[name] or f", {written}" in by_name[name]
    assert "--end-marker FILE" in by_name["run"]


def test_pages_hold_the_marks_that_are_filled():
    module = made_from_code()
    for mark, page in (("commands", "commands.md"), ("functions", "api.md")):
        text = (DOCS / page).read_text()
        assert f"<!-- {mark} -->" in text
        assert len(module.filled(text)) > len(text)


def numbers(mark):
    """The first two columns of a marked table."""
    text = (DOCS / "codes.md").read_text()
    table = re.search(f"<!-- {mark} -->(.*)<!-- /{mark} -->", text, re.S)[1]
    return {int(number): name for number, name in re.findall(r"^\| (\d+) \| (\w+)", table, re.M)}


def test_numbers_are_those_of_the_schema():
    every = [*schema.FrameStatus, *schema.PixelStatus]
    assert numbers("status") == {s.value: s.name.lower() for s in every}
    assert numbers("flags") == {f.value: f.name.lower() for f in schema.FrameFlag}
    text = (DOCS / "codes.md").read_text()
    section = text.split("## Exit codes")[1].split("## ")[0]
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.M)} == codes
    for number in schema.WINNER_MEANINGS:
        assert f"| −{-number} |" in text


def test_shipped_pipeline_named_in_the_readme_exists():
    assert load_pipeline("demo")


def test_notebooks_are_kept_without_outputs():
    for path in (ROOT / "examples").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None


def test_quickstart_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "quickstart.py", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "map.png").stat().st_size > 10_000
    assert "exact match of all phases" in done.stdout
