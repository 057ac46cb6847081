"""`python -m longtailed` is the command line."""

from longtailed.cli import main

main()
