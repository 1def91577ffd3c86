"""How the suite is measured: operators, timing, kernels, the driver, counters, and the file of it all."""
