"""Sphinx's settings. `make docs` builds; every warning is an error."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import cutmix_cuda

sys.path.insert(0, str(Path(__file__).parent))  # for gallery.py
import gallery  # noqa: E402

project = "cutmix_cuda"
author = "The cutmix_cuda authors"
version = release = cutmix_cuda.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
smartquotes_action = "De"  # dashes and ellipses; "mirror" is a string to type

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
napoleon_use_rtype = False  # the types stand in the signatures

html_theme = "furo"
html_title = f"cutmix_cuda {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sphinx = False
html_show_copyright = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def drop_links_to_files(app, path: Path, parent: str, content: list[str]) -> None:
    """Of what is included from the repository: its files are no pages. Their text stays."""
    content[0] = re.sub(r"(?<!!)\[([^]]+)\]\((?!https:|#|docs/)[^)]+\)", r"\1", content[0])


def setup(app) -> None:
    app.connect("include-read", drop_links_to_files)
    app.connect("builder-inited", lambda app: gallery.draw(Path(app.srcdir) / "_gallery"))
