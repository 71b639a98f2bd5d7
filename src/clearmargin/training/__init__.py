"""Training: batches and augmentation, objective, the loop, checkpoints and the run log."""
