"""``python -m ntkstats``."""

import io
import sys

from ntkstats.cli import main

if __name__ == "__main__":
    # A terminal without a letter must not stop the command.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())
