"""``python -m studies``."""

import sys

from studies._cli import main

if __name__ == "__main__":
    sys.exit(main())
