"""L1 hit rates of kernels, from the addresses that their threads ask for."""
