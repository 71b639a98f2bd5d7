"""DICOM in, DICOM out: what a model says of one DICOM image, filed in the study that the image belongs to.

`source` reads of the image's header what the answer may repeat, `filing` is what both objects share, `picture` is what
a Secondary Capture shows. Objects are made of values only: no file is read and none is written here.
"""
