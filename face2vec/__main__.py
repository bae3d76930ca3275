"""The command ``face2vec``, also as ``python -m face2vec``."""

import sys


def start() -> None:
    """Run the command; Ctrl-C while its modules are imported ends it without a traceback."""
    try:
        from face2vec.cli.main import main
    except KeyboardInterrupt:
        from face2vec.cli.exits import INTERRUPTED

        sys.stderr.write("face2vec: interrupted\n")
        sys.exit(INTERRUPTED)
    main(prog_name="face2vec")


if __name__ == "__main__":
    start()
