"""The tutorial's commands, the code that reads its results, and the notebook, on small scans."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from test_documents import xrdpipe_commands
from xrdpipe.cli import main
from xrdpipe.phases import shipped_phases

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
READING = (ROOT / "docs" / "reading.md").read_text()
SMALL = "6x8"

LEFT_OUT = {"view"}
"""Commands that wait for a browser."""


SAID = [words for words in xrdpipe_commands(TUTORIAL) if words[0] not in LEFT_OUT]


def shortened(words):
    """The command on a small scan, with a training of seconds."""
    if words == ["run", "demo"]:
        for step in ("simulate", "map-masked", "map-unmasked"):
            words = [*words, "--set", f"{step}.scan_shape={SMALL}"]
    if words[0] == "train":
        words = [*(word.replace(":0.01", ":0.05") for word in words), "--recipe", "train-tiny"]
    return [re.sub(r"^\d+x\d+$", SMALL, word) for word in words]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where every command of the tutorial was run as printed, on a small scan."""
    folder = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for letter, phase in zip("ab", ("calcite", "rhenium"), strict=True):
            shutil.copy(shipped_phases()[phase], folder / f"{letter}.cif")
        (folder / "scan_0042").symlink_to("demo/scan/frames")
        (folder / "ceo2.poni").symlink_to("demo/scan/geometry.poni")
        for words in SAID:
            with pytest.raises(SystemExit) as stop:
                main(shortened(words))
            assert stop.value.code == 0, words
    return folder


def test_tutorial_leaves_what_it_names(folder):
    for words in SAID:
        if "-o" in words:
            assert (folder / words[words.index("-o") + 1]).exists()
    for picture in re.findall(r"`(\S+\.png)`", TUTORIAL):
        assert (folder / picture).exists()


def test_results_are_read_as_the_manual_says(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for block in re.findall(r"```python\n(.*?)```", READING, re.S):
        exec(compile(block, "reading.md", "exec"), {})
    assert "of 48 pixels" in capsys.readouterr().out
    assert (folder / "map.csv").read_text().count("\n") == 49


def test_notebook_runs(tmp_path):
    notebook = nbformat.read(ROOT / "examples" / "demo_map.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace('"12x16"', f'"{SMALL}"')
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
