"""Tables: modules from integer ids to vectors, one kind a file.

A table has a trainable form, whose forward touches only the rows of the batch, and a packed form, made of
operators that export to standard ONNX with the gather first. `pack()` goes from one to the other.
"""
