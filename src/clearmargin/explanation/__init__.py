"""Explanations: which places of an image moved the network's logit, on a scale that is the same for every image."""
