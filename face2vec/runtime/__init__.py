"""Loads ONNX graphs and runs them: ONNX Runtime, CUDA or OpenVINO.

In: a graph as bytes or a file, and arrays.
Out: arrays.
May import: ``errors``.
"""
