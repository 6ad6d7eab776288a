"""What the README and the examples say is what happens."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from xrdpipe import config
from xrdpipe.pipeline import load_pipeline

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(text):
    """Every ``xrdpipe …`` line of the console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line[2:].split("#")[0].strip() for line in lines if line.startswith("$ xrdpipe")]


def test_the_two_commands_stand_first():
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    assert len(blocks) == 2
    assert blocks[0].strip().endswith("xrdpipe run demo")
    assert blocks[1].strip().endswith("pytest -n auto")
    assert README.index("```sh") < README.index("## ")


@pytest.mark.parametrize("command", commands(README))
def test_readme_commands_have_known_options(command):
    words = shlex.split(command)[1:]
    kind = config.STAGES[words[0]]
    names = {f"--{d.name.replace('_', '-')}" for d in config.fields(kind)}
    names |= {flag for d in config.fields(kind) for flag in d.metadata["flags"]}
    given = {word for word in words[1:] if word.startswith("-")}
    assert given <= names


def test_readme_python_compiles_and_its_options_exist():
    block = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    compile(block, "README.md", "exec")
    for stage, arguments in re.findall(r"xrdpipe\.(\w+)\((.*?)\)", block):
        known = {d.name for d in config.fields(config.STAGES[stage])}
        assert set(re.findall(r"(\w+)=", arguments)) <= known


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_shipped_pipeline_named_in_the_readme_exists():
    assert load_pipeline("demo")


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
