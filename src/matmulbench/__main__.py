"""``python -m matmulbench``: the command, where its script is not on the path."""

from matmulbench.cli import main

if __name__ == "__main__":
    main()
