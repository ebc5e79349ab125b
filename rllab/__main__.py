"""`python -m rllab` is the command `rllab`."""

import sys

from rllab.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
