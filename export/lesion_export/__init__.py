"""Turns a trained run into a verified ONNX bundle."""
