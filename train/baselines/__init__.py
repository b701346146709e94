"""Rivals that are trained here, small and honest, to be rows of an evaluation."""
