"""``python -m fediwarden`` is the same as the command ``fediwarden``; `up` starts its processes this way."""

from fediwarden.cli import main

if __name__ == "__main__":
    main()
