"""`python -m docs.writing`, from the root of the project, writes every page that is made from the code."""

from docs.writing import write_pages

write_pages()
