"""Training face embedding networks with Keras 3; needs ``pip install 'face2vec[train]'``."""
