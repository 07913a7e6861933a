"""Hyperparameters of the robust recipe."""

from __future__ import annotations

from dataclasses import dataclass, field

from lesion_train.augment import Augmentation
from lesion_train.config import COUNT, NOT_NEGATIVE, POSITIVE, SHARE
from lesion_train.outlier_score import OutlierScoreConfig


@dataclass(frozen=True)
class RobustConfig:
    """Hyperparameters of the robust recipe. Where no source is named, docs/results.md has the ablation."""

    epochs: int = field(default=10, metadata=COUNT)
    """Epochs of the stage in which the base learns."""
    samples_per_epoch: int = field(default=15000, metadata=COUNT)
    """Images drawn for one epoch."""
    batch_size: int = field(default=64, metadata=COUNT)
    """Images per step."""
    cached_size: int = field(default=200, metadata={"low": 32})
    """Side of the training images that crops come out of, pixels; at least the image size is taken."""
    train_size_ratio: float = field(default=0.9, metadata={"low": 0.1, "high": 2})
    """Side of the images while the base learns, as a share of the image size.

    Crops show lesions larger than whole images do; at a size a little smaller than what is judged, both show them
    alike (Touvron et al. 2019, arXiv:1906.06423)."""
    balanced: bool = True
    """Whether classes, and lesions of a class, are drawn alike in each source; false draws every image alike."""
    source_exponent: float = field(default=0.5, metadata=SHARE)
    """Power of a source's number of lesions that its share of the draws goes with."""
    diagnosis_exponent: float = field(default=1.0, metadata=SHARE)
    """Power of a diagnosis' number of lesions that its share of its class in a source goes with."""
    keep_single_class_sources: bool = False
    """Whether sources that show one class only are trained on, though their camera then means that class."""
    watched_images: int = field(default=100, metadata=COUNT)
    """Validation images of each class in each source that every epoch is scored on."""
    borrowed_colors: int = field(default=1000, metadata=COUNT)
    """Training images whose colors others borrow."""
    hidden_units: int = field(default=512, metadata=COUNT)
    """Width of the dense layer before the softmax, as in the paper."""
    head_epochs: int = field(default=3, metadata=COUNT)
    """Epochs in which the head learns alone on the frozen base (Kumar et al. 2022, arXiv:2202.10054)."""
    head_learning_rate: float = field(default=0.001, metadata=POSITIVE)
    """Learning rate in those epochs."""
    head_samples: int = field(default=5000, metadata=COUNT)
    """Images drawn for them, once; at most those of an epoch."""
    first_trainable_layer: str = "conv4_block1_1_conv"
    """First layer of the base that learns: 94 % of its weights do. `none`: only the head."""
    fold_batchnorm: bool = True
    """Whether each batch normalisation is folded into its convolution while the base learns, for speed."""
    learning_rate: float = field(default=1.5e-4, metadata=POSITIVE)
    """Learning rate of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) for most of the steps."""
    final_learning_rate: float = field(default=1e-6, metadata=POSITIVE)
    """Learning rate at the end."""
    warmup_samples: int = field(default=4000, metadata=COUNT)
    """Images in which the learning rate rises from a tenth; at most a quarter of all."""
    cooldown_fraction: float = field(default=0.25, metadata={"low": 0.01, "high": 1})
    """Share of the steps, the last, in which the learning rate falls (Hägele et al. 2024, arXiv:2405.18392)."""
    weight_decay: float = field(default=1e-4, metadata=NOT_NEGATIVE)
    """Weight decay of AdamW."""
    ema_samples: int = field(default=6000, metadata=COUNT)
    """Images that the running average of the weights goes back over."""
    batchnorm_images: int = field(default=128, metadata=COUNT)
    """Training images that set the statistics of batch normalisation, without ImageNet weights only."""
    random_branch_scale: float = field(default=0.2, metadata=NOT_NEGATIVE)
    """Initial scale of each residual branch, without ImageNet weights only (after Goyal et al. 2017)."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Strengths of the augmentation."""
    outlier_score: OutlierScoreConfig = field(default_factory=OutlierScoreConfig)
    """Fit of the out-of-distribution score."""
