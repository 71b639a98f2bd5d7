"""`python -m clearmargin` is the command `clearmargin`."""

import sys
from pathlib import Path

# -m puts the working directory first: there a user's folder `dl` or `torch` would stand in for a library.
if Path(sys.path[0]).resolve() != Path(__file__).resolve().parents[1]:
    del sys.path[0]

from clearmargin.cli import run

run()
