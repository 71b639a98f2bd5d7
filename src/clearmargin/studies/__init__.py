"""The main job done several times, or on other people's data: cross-validation, optimism, external validation."""
