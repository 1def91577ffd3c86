"""Measurements of GPUs: the table they stand in, readers of others' files, the suite that takes one's own."""
