"""The site: ``make docs`` builds it into build/docs. It asks no other host for anything, when built or when read."""

import contextlib
import io
import sys
from pathlib import Path

import cdrop
from cdrop.cli import main

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import drawings  # noqa: E402


def help_of(command):
    """Return what ``cdrop COMMAND --help`` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([command, "--help"])
    return printed.getvalue()


# Drawings and texts of help are made with the pages, so that they cannot fall behind the code they show.
BUILD = HERE.parent / "build"
drawings.draw_all(BUILD / "drawings")
(BUILD / "help").mkdir(parents=True, exist_ok=True)
for command in ("compare", "paper", "bench", "info"):
    (BUILD / "help" / f"{command}.txt").write_text(help_of(command), encoding="utf-8")

project = "cdrop"
author = copyright = "the cdrop developers"
version = release = cdrop.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]

# ---- What is executed ----
exclude_patterns = ["gallery/*.ipynb"]  # downloads
nb_execution_mode = "force"  # the notebook
nb_execution_timeout = 60
nb_execution_raise_on_error = True
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("matplotlib", "scraper.figures"),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "min_reported_time": 60,
}

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
PAGES = BUILD / "pages"
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
