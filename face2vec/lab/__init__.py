"""Runs experiments that show the strengths and weaknesses of a model.

In: photos of known people, and an engine.
Out: figures, plots and pages.
May import: ``evaluation``, ``training`` and all below them.
"""
