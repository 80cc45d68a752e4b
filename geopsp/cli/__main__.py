"""`python -m geopsp.cli`."""

from geopsp.cli import main

main()
