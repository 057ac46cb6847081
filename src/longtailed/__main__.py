"""`python -m longtailed` is the command line."""

from longtailed.cli.main import main

main()
