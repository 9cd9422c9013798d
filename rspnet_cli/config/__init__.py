"""Every setting: its default, range and unit. The docstring under a field is also its help text and its row in the README.

Settings of a training merge in one order: defaults < recipe < --config file < --set < explicit flag (`rspnet_cli.settings`).
"""

from rspnet_cli.config.base import MEAN, STD, Section
from rspnet_cli.config.finetune import (
    FinetuneClipConfig,
    FinetuneConfig,
    FinetuneDataConfig,
    FinetuneModelConfig,
    FinetuneOptimConfig,
    FinetuneTestConfig,
)
from rspnet_cli.config.pretrain import ClipConfig, DataConfig, MocoConfig, ModelConfig, ObjectiveConfig, OptimConfig, PretrainConfig
from rspnet_cli.config.stages import ClassificationConfig, ExportConfig, ExtractConfig, RetrievalConfig, VisualizeConfig
from rspnet_cli.config.training import AugmentConfig, RunConfig, TrainingConfig

__all__ = [
    "MEAN",
    "STD",
    "AugmentConfig",
    "ClassificationConfig",
    "ClipConfig",
    "DataConfig",
    "ExportConfig",
    "ExtractConfig",
    "FinetuneClipConfig",
    "FinetuneConfig",
    "FinetuneDataConfig",
    "FinetuneModelConfig",
    "FinetuneOptimConfig",
    "FinetuneTestConfig",
    "MocoConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "PretrainConfig",
    "RetrievalConfig",
    "RunConfig",
    "Section",
    "TrainingConfig",
    "VisualizeConfig",
]
