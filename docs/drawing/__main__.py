"""`python -m docs.drawing`, from the root of the project, draws every picture of the pages anew."""

from docs.drawing.draw import main

main()
