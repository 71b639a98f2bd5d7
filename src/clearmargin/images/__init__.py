"""Decoding images to arrays, and the preprocessing spec that every door shares."""
