"""`python -m pamdp.cli`: the command line."""

from pamdp.cli import main

main()
