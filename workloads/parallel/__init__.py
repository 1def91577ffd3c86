"""Several GPUs that share one inference: what one of them runs.

`degrees` says how many share what; `shard` is the entry, from the trace of one GPU to that of one of several. One way to share
a module: `guidance` (the halves of classifier-free guidance), `tensor` (the weights of a transformer's blocks), `sequence` (its
tokens), `pipeline` (its blocks, which `stages` gives to GPUs and `patches` cuts), `vae` (the rows or tiles of a decoder). `operands`
and `tokens` have what they are written in.
"""
