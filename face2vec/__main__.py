"""``python -m face2vec`` is the command ``face2vec``."""

from face2vec.cli.main import main

if __name__ == "__main__":
    main(prog_name="face2vec")
