"""Raw detector input: where frames come from, which pixels measure nothing, how they lie."""

from xrdpipe.frames.source import open_frames

__all__ = ["open_frames"]
