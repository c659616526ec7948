"""The Lightning side: module, datamodule, trainer, checkpoints."""
