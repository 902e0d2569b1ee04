"""Numbers to model: minibatches, networks, training, evaluation and the model bundle."""
