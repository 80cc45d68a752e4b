"""How Sphinx builds the site: `make docs`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import geopsp  # noqa: E402 (of this folder's repository)

project = "geopsp"
author = "the geopsp authors"
copyright = "the geopsp authors, Apache-2.0"  # noqa: A001 (Sphinx's name)
version = release = geopsp.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "python_pages",
    "shell_pages",
]
exclude_patterns = ["_build", "Thumbs.db", ".DS_Store", "**/.ipynb_checkpoints", "notebooks/*/**"]

# Markdown
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist", "substitution"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

# Notebooks: Markdown that is run by each build. `-D nb_execution_mode=cache` runs only those that changed.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_execution_in_temp = True
nb_execution_show_tb = True
nb_merge_streams = True
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # of tqdm, in kernels without widgets
nb_ipywidgets_js = {}  # widgets would be loaded from the web

# Reference of the Python interface, from docstrings
default_role = "code"  # names in docstrings stand in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Source", "notes_style")]

# Look
html_theme = "furo"
html_title = f"geopsp {release}"
html_static_path = ["_static"]
html_css_files = ["geopsp.css"]
html_favicon = "_static/geopsp.svg"
html_logo = "_static/geopsp.svg"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#14685b", "color-brand-content": "#14685b"},
    "dark_css_variables": {"color-brand-primary": "#6fcfbd", "color-brand-content": "#6fcfbd"},
    "navigation_with_keys": True,
}
pygments_style = "friendly"
pygments_dark_style = "monokai"
copybutton_prompt_text = r">>> |\$ "
copybutton_prompt_is_regexp = True
