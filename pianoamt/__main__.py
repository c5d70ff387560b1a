"""`python -m pianoamt` is the same as the command `pianoamt`."""

from pianoamt.cli import main

if __name__ == "__main__":
    main()
