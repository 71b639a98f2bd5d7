"""From images on disk to arrays ready for training: sources, manifest, audit, split, store, phantom."""
