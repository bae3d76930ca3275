"""Measures error rates on photos of known people, for face2vec and other packages.

In: photos with names, and an encoder.
Out: `Report` and `Comparison`.
May import: ``engine`` and all below it.
"""
