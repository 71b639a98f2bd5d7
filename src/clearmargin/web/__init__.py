"""The page and the API of `clearmargin serve`; `docs/serve.md` is their contract."""
