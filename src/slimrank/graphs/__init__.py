"""ONNX in, ONNX out: any graph compressed post-training, without torch and in less memory than its file takes.

A graph keeps its ids, its inputs and outputs, their names and dynamic axes, its opset and its metadata; what changes
are constants and the nodes that read them. One step per file, registered as "graph step". Left out: retraining.
"""
