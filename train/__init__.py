"""Data, training and evaluation of SAGANets. Imported by nothing but its own scripts, tests and benchmarks."""
