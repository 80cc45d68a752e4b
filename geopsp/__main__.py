"""`python -m geopsp`."""

from geopsp.cli import main

main()
