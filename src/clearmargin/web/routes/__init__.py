"""The resources of the API, one file each, each with a `router`; `app.py` lists them."""
