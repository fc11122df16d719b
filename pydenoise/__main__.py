"""`python -m pydenoise`: the same as the command `pydenoise`."""

import sys

from pydenoise.cli import main

sys.exit(main())
