"""Photos to faces with embeddings, many at once and in order.

In: photos, opened or not.
Out: `Encoded`: faces with embeddings, or an error.
May import: ``photos``, ``detection``, ``models``, ``runtime``.
"""
