"""`python -m pamdp`: the command line."""

from pamdp.cli import main

main()
