"""Training face embedding networks with Keras 3; needs ``pip install 'face2vec[train]'``."""

NETWORKS = ("nn1", "nn2", "nn3", "nn4", "nns1", "nns2", "inception_resnet_v1", "mini")
"""Names of the networks that `networks.build` knows."""

LOSSES = ("semi-hard", "batch-hard", "distillation")
"""What a `recipe.Recipe` can ask of a network."""

OPTIMIZERS = ("adamw", "muon")
"""How a `trainer.Schedule` can go downhill."""
