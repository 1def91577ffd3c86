"""`python -m simtti`: the command line."""

from simtti.cli import main

main()
