"""Keras files both ways, without Keras: read as data within limits, and written so that Keras opens them.

files.py      what is in a .h5 or .keras file, nothing of which is run
configs.py    the description of a model, of any Keras, in one form
layers.py     every layer that is known: READERS
build.py      a graph in the making
convert.py    the description to a graph, and the arrays that its weights come from
weights.py    arrays of the file to tensors, and back
recipes.py    files of weights alone, matched to a recipe
trace.py      a model of ours to a graph
write.py      a graph to .h5 or .keras: WRITERS
real.py       what the real Keras says, where it is installed
importing.py  `import_keras`
exporting.py  `export_keras`
"""
