"""``python -m blockjobs``: the same as the command ``blockjobs``."""

from blockjobs.cli.main import main

main()
