"""Measurements to hold the simulator against: microbenchmarks of single operators, and a campaign that takes them."""
