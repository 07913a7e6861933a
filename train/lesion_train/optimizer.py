"""Optimizer of the robust recipe: AdamW, its learning rate, and the running average of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lesion_train.robust_config import RobustConfig


def compile_model(model: Any, rate: Any, config: RobustConfig) -> Any:
    """AdamW at a learning rate, or a schedule of it, with a running average of the weights."""
    import keras

    momentum = 1 - min(1, config.batch_size / config.ema_samples)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=config.weight_decay, use_ema=True, ema_momentum=momentum)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def learning_rate_schedule(config: RobustConfig) -> Any:
    """Learning rate of the fine-tuned stage: up, long level, and down at the end with a square root.

    As good as a cosine; the level part does not depend on the length, so a longer training begins as a shorter one
    does (Hägele et al. 2024, arXiv:2405.18392).
    """
    import keras
    from keras import ops

    steps = config.epochs * -(-config.samples_per_epoch // config.batch_size)
    warm_up = max(1.0, min(config.warmup_samples / config.batch_size, steps / 4))
    falling = config.learning_rate - config.final_learning_rate

    class Schedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc] # Keras has no types
        """Trapezoid over steps."""

        def __call__(self, step: Any) -> Any:
            now = ops.cast(step, "float32")
            rise = ops.minimum(1.0, 0.1 + 0.9 * now / warm_up)
            cooled = ops.clip(1 + (now / steps - 1) / config.cooldown_fraction, 0.0, 1.0)
            return rise * (config.final_learning_rate + falling * (1 - ops.sqrt(cooled)))

    return Schedule()
