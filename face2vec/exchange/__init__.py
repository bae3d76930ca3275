"""Exchanging faces and embeddings with other programs: export, import, and their formats.

`table` is the hand-over type, `formats` has one class for each format, `export` reads a gallery and
`load` fills one.
"""
