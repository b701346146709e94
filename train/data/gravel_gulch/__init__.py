"""Gravel Gulch: our own stone-age cartoon and the generic town beside it, drawn by code."""
