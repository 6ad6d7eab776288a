"""``xrdpipe validate``: check that a file is what it claims to be."""

from __future__ import annotations

from xrdpipe.config import ValidateConfig
from xrdpipe.errors import InputError, InputMissingError, InvalidFileError, XrdpipeError
from xrdpipe.nn.model_folder import read_card
from xrdpipe.store.nexus import open_processed
from xrdpipe.store.validate import describe
from xrdpipe.types import Outcome, Progress


def run(config: ValidateConfig, progress: Progress | None = None) -> Outcome:
    """Check one file or model folder.

    Raises
    ------
    InvalidFileError
        With every problem, one per line.
    """
    del progress
    path = config.file
    if not path.exists():
        raise InputMissingError(f"{path} does not exist.")
    if path.is_dir():
        try:
            card = read_card(path)
        except XrdpipeError as error:
            raise InvalidFileError(f"{path} is no valid model folder: {error}") from error
        return Outcome(path, 0, f"{path}: valid model folder '{card.name}'.")
    try:
        with open_processed(path, "xrdpipe file") as file:
            kind, problems = describe(file)
    except InputError as error:
        raise InvalidFileError(str(error)) from error
    if problems:
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise InvalidFileError(f"{path} is not a valid {kind}:\n{listing}")
    return Outcome(path, 0, f"{path}: valid {kind}.")
