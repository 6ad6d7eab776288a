"""Each network of an ensemble as a model of its own: what one training seed gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from xrdpipe.nn.model_folder import CARD, find_model, model_sha256


def split(model: str, work: Path) -> list[str]:
    """Folders of models with one member each, with its own calibration; made once.

    Parameters
    ----------
    model
        Folder or shipped name of an ensemble.
    work
        Where the folders go.
    """
    folder = find_model(model)
    mark = model_sha256(folder)[:12]
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    made = []
    for number, entry in enumerate(card["weights"]):
        alone = work / f"{folder.name}-{mark}-member-{number}"
        made.append(str(alone))
        if alone.exists():
            continue
        unfinished = work / f"{alone.name}.part"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(folder, unfinished)
        for other in card["weights"]:
            if other is not entry:
                (unfinished / other["file"]).unlink()
        one = card | {"weights": [entry], "calibration": [card["calibration"][number]]}
        (unfinished / CARD).write_text(json.dumps(one, indent=2) + "\n", encoding="utf-8")
        unfinished.rename(alone)
    return made
