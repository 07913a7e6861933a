"""Training of ResNet50 on labelled dermoscopy images, from a folder or CSV to a run folder."""
