"""An artifact on its way: one compressed file, and what changed since the last one.

Both end in `open_artifact` before anything is in its place. Left out: directories of deployment targets, which are
written anew from an artifact; and who made a file, which `signing` says of the artifact that it ends in.
"""
