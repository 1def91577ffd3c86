"""Parameters from measurements: of kernels by their times, of devices by the energy of whole inferences."""
