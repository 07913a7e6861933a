"""Turns the float model into int8, on training images alone."""
