"""`python -m pydenoise` and the command `pydenoise`."""

import sys


def main() -> int:
    """Run the command line of this process; Ctrl-C ends it quietly even while it loads."""
    try:
        from pydenoise.cli import main

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
