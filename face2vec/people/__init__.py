"""Groups faces into people, names faces, and searches for traces of forgotten people.

In: embeddings of a gallery and a calibration.
Out: assignments and probabilities.
May import: ``gallery``, ``index``, ``report``, ``calibration``.
"""
