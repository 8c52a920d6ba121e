"""An artifact to what another runtime takes: one target per file, and the verb that writes it whole or not at all.

What becomes of a model before it is measured is a `target` of `exporting`: it makes the graph, needs torch, and is part
of the recipe. What is written here comes after: a deployment target takes a verified artifact, whose graph was
measured, and arranges it for a runtime that is not ours. It needs no torch, and stands in no recipe.
"""
