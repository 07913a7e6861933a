"""Turns the float graph into int8, on training images alone."""
