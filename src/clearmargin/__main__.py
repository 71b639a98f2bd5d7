"""`python -m clearmargin` is the command `clearmargin`."""

from clearmargin.cli import run

run()
