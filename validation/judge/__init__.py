"""Predictions beside measurements: of single kernels, of whole inferences, of the kernels of a trace."""
