"""How Sphinx builds the documentation: MyST pages, and a reference from docstrings and from ``--help``."""

import subprocess
import sys
from importlib.metadata import version as version_of
from pathlib import Path

project = "matmulbench"
version = release = version_of("matmulbench")
language = "en"
smartquotes = False  # would make a dash of the two before an option

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
myst_heading_anchors = 2

html_theme = "furo"
html_title = f"matmulbench {version}"
html_copy_source = False
html_show_copyright = False

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature has none, for the parameters' text says what they are
autodoc_preserve_defaults = True
numpydoc_show_class_members = False

# From `--help` itself, so that the page cannot tell of other options than the command has.
COMMANDS = Path(__file__).parent / "reference" / "commands.md"
subprocess.run(
    [
        *(sys.executable, "-m", "typer", "matmulbench.cli", "utils", "docs"),
        *("--name", "matmulbench", "--title", "The command", "--output", str(COMMANDS)),
    ],
    check=True,
    stdout=subprocess.DEVNULL,
)
