"""Trains a reader: `python train.py`, `python train.py experiment=flagship_gpu`, `python train.py -m seed=1,2,3`.

A run's folder, runs/NAME/DATE, holds config.yaml, checkpoints, metrics (TensorBoard, JSON lines) and at the end the
files of a weights folder, so that `python infer.py IMAGE --weights RUN_DIR` reads with it. `python train.py
resume=RUN_DIR` continues a killed run from its last whole epoch.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

OmegaConf.register_new_resolver("cpu_count", lambda: os.cpu_count() or 1, replace=True)


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(config: DictConfig) -> float:
    """Runs one configuration; gives its exact match to sweepers."""
    from detector.evaluation.benchmark import DatasetError
    from detector.training.run import RunError, run  # after Hydra, so that --help and wrong options answer at once

    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if config.resume is not None:
        run_dir = Path(config.resume)
    try:
        return run(config, run_dir)
    except (DatasetError, RunError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    sys.exit(main())
