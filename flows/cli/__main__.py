"""`python -m flows.cli`: the same as the command `foundry`."""

import sys

from flows.cli import main

sys.exit(main())
