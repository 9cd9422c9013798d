"""`python -m rspnet_cli` and `rspnet`: signals are heard from here on, before anything that takes time to import."""

import sys

from rspnet_cli.stopping import stoppable


def main() -> int:
    """Run the command line of this process and return its exit code."""

    def run() -> int:
        from rspnet_cli.cli.main import main

        return main()

    return stoppable(run, kept="nothing had begun")


if __name__ == "__main__":
    sys.exit(main())
