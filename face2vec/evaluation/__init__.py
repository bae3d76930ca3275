"""How often a model is right: pairs, ten folds, identification, with intervals and pictures."""
