"""`python -m asgihive` is the command `asgihive`."""

import sys

from asgihive.cli import main

if __name__ == "__main__":  # worker processes import this module again
    sys.exit(main())
