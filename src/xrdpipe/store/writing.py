"""Writing an HDF5 file whole or not at all, also on a disk that fills up meanwhile."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py

from xrdpipe.errors import EnvironmentProblemError
from xrdpipe.store.nexus import FORMAT
from xrdpipe.store.parts import being_written, sync_folder, try_lock


class _Forgiving(io.FileIO):
    """A file that takes everything and remembers the first refusal of the disk.

    The HDF5 library cannot close a file after a failed write: it complains of every object in it,
    and crashes at the end of the process. So it is not told.
    """

    refusal: OSError | None = None

    def write(self, data: object) -> int:
        """Write all of it, or pretend to."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        written = 0
        while self.refusal is None and written < len(view):
            try:
                written += super().write(view[written:]) or 0
            except OSError as error:
                self.refusal = error
        if written < len(view):
            self.seek(len(view) - written, os.SEEK_CUR)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Change the size, or pretend to."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.refusal = self.refusal or error
            return size or 0


@contextmanager
def whole_hdf5(path: Path, like: Path | None = None, kept: str = "") -> Iterator[h5py.File]:
    """Write an HDF5 file beside its final place, and move it there if nothing went wrong.

    Parameters
    ----------
    path
        Where it will lie; until then ``NAME.writing``, removed if it cannot be finished.
    like
        A file to start from; otherwise it is empty.
    kept
        For the message: what is not lost although the file could not be written.

    Raises
    ------
    EnvironmentProblemError
        If the disk refuses; a file that was at ``path`` before is still there.
    """
    temporary = path.with_name(path.name + ".writing")
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(temporary.open("a+b"))
            if not try_lock(lock, alone=True):
                raise being_written(path)
            held.callback(temporary.unlink, missing_ok=True)
            if like is not None:
                shutil.copy2(like, temporary)
            disk = held.enter_context(_Forgiving(temporary, "w+" if like is None else "r+"))
            try:
                with h5py.File(disk, "w" if like is None else "r+", libver=FORMAT) as file:
                    yield file
            except Exception:
                if disk.refusal is None:
                    raise
            if disk.refusal is not None:
                raise disk.refusal
            os.fsync(disk.fileno())  # else a power cut could leave a name without content
            # Who opens it under its name locks it, too; other writers stay shut out.
            if not try_lock(lock, alone=False):
                raise being_written(path)
            temporary.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            if error.errno is None:  # not of the system: a reader's error, an XrdpipeError
                raise
            raise EnvironmentProblemError(
                f"{path} cannot be written ({error.strerror}); {kept and kept + ': '}"
                "free space or permissions, then run the same command."
            ) from error
