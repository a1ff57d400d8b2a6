"""One of the two processes of `test_ddp.py`: trains as `train.py` does and writes its own weights to FOLDER/RANK.pt."""

import sys
from pathlib import Path

import torch
from hydra.utils import instantiate

sys.path.insert(0, str(Path(__file__).parents[2]))

from hydra import compose, initialize_config_dir

from detector.training.run import build_task


def main(folder: Path) -> None:
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base="1.3"):
        config = compose(
            "train",
            [
                "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true",
                "trainer.max_epochs=2", "trainer.strategy=ddp", "threads=1", "model.width=16", "test_count=4",
                "trainer_data.batch_size=4", "trainer_data.epoch_batches=8", "trainer_data.val_count=8",
                "trainer_data.workers=0", f"run_dir={folder}",
            ],
        )  # fmt: skip
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    data = instantiate(config.data)
    task = build_task(config, data)
    seen: list[str] = []
    step = task.training_step
    task.training_step = lambda batch, batch_idx: (seen.extend(batch.texts), step(batch, batch_idx))[1]
    trainer = instantiate(config.trainer)
    trainer.fit(task, data)
    torch.save(
        {"weights": dict(task.model.named_parameters()), "texts": seen, "world": trainer.world_size},
        folder / f"{trainer.global_rank}.pt",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
