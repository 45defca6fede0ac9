"""A scraper for sphinx-gallery, which by itself finds only the figures that pyplot knows."""

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


def figures(block, block_vars, gallery_conf):
    """Save the figure that a block assigned to ``figure`` if pyplot does not know it, as from ``result.plot()``."""
    names = block_vars["example_globals"]
    figure = names.get("figure")
    if not isinstance(figure, Figure) or hasattr(figure, "number"):
        return ""
    del names["figure"]  # the next block would show it again
    path = next(block_vars["image_path_iterator"])
    figure.savefig(path, dpi=100)
    return figure_rst([path], gallery_conf["src_dir"])
