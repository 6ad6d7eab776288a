"""One process's share of the frames, beside others that do theirs: ``--shard 3/8``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import OptionError

WRITER = re.compile(r"shard-(\d+)-of-(\d+)")


@dataclass(frozen=True)
class Shard:
    """Which share of how many; the first is number 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``3/8``.

        Raises
        ------
        OptionError
            If it cannot be read, or there is no such share.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise OptionError(
                f"--shard '{text}' cannot be read; expected I/N, I from 1 to N: 3/8, say."
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def writer(self) -> str:
        """Name of its file of blocks."""
        return f"shard-{self.number}-of-{self.of}"

    def rows(self, total: int, block: int) -> NDArray[np.intp]:
        """Its rows of ``total``: consecutive, whole blocks of ``block`` rows."""
        blocks = -(-total // block)
        first, past = ((self.number - 1) * blocks // self.of, self.number * blocks // self.of)
        return np.arange(first * block, min(past * block, total))
