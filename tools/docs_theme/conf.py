"""Sphinx settings of the docs site; tools/docs.py copies them beside the prepared notebooks."""

from docutils import nodes
from docutils.utils.math import latex2mathml

project = "pianoamt"
author = "the pianoamt developers"
copyright = f"2026 onwards, {author}"
extensions = ["myst_nb", "sphinx_copybutton"]
myst_enable_extensions = [
    "amsmath",
    "attrs_block",
    "attrs_inline",
    "colon_fence",
    "deflist",
    "dollarmath",
    "html_image",
]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables in outputs, which plain CommonMark lacks

html_theme = "furo"
html_title = "pianoamt"
html_static_path = ["_static"]
html_css_files = ["pianoamt.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_use_index = False
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "friendly"
pygments_dark_style = "monokai"


def to_mathml(self, node, block):
    """Write a formula as MathML, which browsers set themselves, so the pages need nothing from the network."""
    self.body.append(latex2mathml.tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def visit_inline(self, node):
    """A formula within a line."""
    to_mathml(self, node, block=False)


def visit_block(self, node):
    """A formula of its own."""
    self.body.append('<div class="math-block">')
    self.body.append(latex2mathml.tex2mathml(node.astext(), as_block=True))
    self.body.append("</div>")
    raise nodes.SkipNode


def setup(app):
    """Register the formula writer."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.config.html_math_renderer = "mathml"
