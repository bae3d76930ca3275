"""Decodes photo files to upright images.

In: paths, bytes, PIL images or arrays.
Out: `Photo`, or a `PhotoError` with a short reason.
May import: ``errors``, ``types``.
"""
