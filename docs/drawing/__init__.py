"""The pictures of the pages: computed on drawn patients, and drawn into docs/pictures."""
