"""The FAISS index of a gallery, derived from it and kept up to date.

In: ids and embeddings of a gallery.
Out: ids and cosines of the nearest faces.
May import: ``gallery``.
"""
