"""HTTP service around one `lesion_edge.Classifier`."""
