"""``python -m xrdpipe``: the command line."""

from xrdpipe.cli import main

main()
