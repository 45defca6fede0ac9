"""The site: ``make docs`` builds it into build/docs. It asks no other host for anything, when built or when read."""

import sys
from pathlib import Path

import cdrop

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import drawings  # noqa: E402

# The drawings are made with the pages, so that they cannot fall behind the code they are drawn from.
drawings.draw_all(HERE.parent / "build" / "drawings")

project = "cdrop"
author = copyright = "the cdrop developers"
version = release = cdrop.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]

# ---- Docstrings ----
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections say what an argument may be, shapes included
autosummary_generate = False
autosummary_ignore_module_all = False
default_role = "autolink"  # numpydoc's single backticks: a link where the name is one of ours
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_show_inherited_class_members = False

# ---- Pages ----
highlight_language = "none"  # blocks without a language are text
myst_heading_anchors = 3
nitpicky = True
# An argument, found as an attribute of its dataclass.
nitpick_ignore_regex = [("py:obj", r"[a-z_]+")]
html_theme = "pydata_sphinx_theme"
html_title = "cdrop"
html_static_path = ["_static"]
templates_path = ["_templates"]
html_sidebars = {"**": ["pages"]}
html_css_files = ["cdrop.css"]
# What `make browser` has built; without it the page "In the browser" says how to.
PAGES = HERE.parent / "build" / "pages"
if (PAGES / "browser" / "index.html").exists():
    html_extra_path = [str(PAGES)]
    tags.add("browser")  # noqa: F821 - Sphinx's
html_copy_source = html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": True,
    "show_toc_level": 2,
    "navbar_center": [],
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "friendly",
    "pygments_dark_style": "github-dark",
}
