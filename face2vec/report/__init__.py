"""Results as text, tables, pictures and HTML pages.

In: matches.
Out: text, JSON, thumbnails, figures and pages.
May import: ``photos``, ``types``.
"""
