"""Fills a gallery: adds photos, and embeds all faces again with another model.

In: photos, or a gallery and another model.
Out: rows of the gallery and a summary.
May import: ``encoding``, ``gallery``, ``index``.
"""
