"""Training: objectives, optimisers, the training loop and checkpoints."""
