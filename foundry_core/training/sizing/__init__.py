"""What a training stage needs before it starts: parameters, bytes on a GPU, FLOPs, GPU hours.

shapes.py is the arithmetic of one transformer block, parts.py of a model's parts, workload.py says
what a step reads, cost.py adds it all up. Only models of transformers need torch here.
"""
