"""Fine-tunes ResNet50 on labelled dermoscopy images and writes a run folder."""
