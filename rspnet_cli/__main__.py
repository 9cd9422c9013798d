"""`python -m rspnet_cli` is `rspnet`."""

import sys

from rspnet_cli.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
