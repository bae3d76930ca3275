"""The laboratory: what a model is good at and bad at, found by changing one thing at a time."""
