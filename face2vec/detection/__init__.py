"""Images to faces: boxes, landmarks and confidence.

In: upright RGB images, uint8 (height, width, 3).
Out: `Face` objects without embeddings.
May import: ``errors``, ``types``, ``fingerprint``, ``runtime``.
"""
