"""Searches for good options of `train.py` with Optuna, in the space of a file.

    python -m detector.training.search --folder runs/search/crnn --trials 20 model=crnn family=imagecaptcha

Hydra's own Optuna plugin needs the Optuna of 2021; this drives the present one over the same configuration. A trial is
a `python train.py` of its own. The study lies beside the runs, so the same command goes on with it: a trial that was
killed is taken up again after its last whole epoch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from detector.overrides import ROOT, train_command
from detector.training.run import finished

Value: TypeAlias = "str | int | float"


class TrainingFailedError(RuntimeError):
    """A training ended with an error; the message says where its output is."""


def suggest(trial: Trial, space: Mapping[str, DictConfig]) -> dict[str, Value]:
    """Lets Optuna choose a value for every option of a space.

    Raises:
        ValueError: if an option has neither a range nor choices.
    """
    chosen: dict[str, Value] = {}
    for option, domain in space.items():
        if "choices" in domain:
            chosen[option] = trial.suggest_categorical(option, list(domain.choices))
        elif {"low", "high"} <= domain.keys():
            suggest_number = trial.suggest_int if isinstance(domain.low, int) else trial.suggest_float
            chosen[option] = suggest_number(option, domain.low, domain.high, log=domain.get("log", False))
        else:
            raise ValueError(f"{option} needs low and high, or choices, not {OmegaConf.to_container(domain)}")
    return chosen


def train(folder: Path, options: list[str], chosen: Mapping[str, Value]) -> float:
    """Trains with some options; gives the exact match in validation: the run's last images are for the comparison.

    Raises:
        TrainingFailedError: if the training did not come to its end.
    """
    digest = hashlib.sha256(json.dumps([options, chosen], sort_keys=True).encode()).hexdigest()[:12]
    run_dir = folder / digest  # the same for the same options, so that a killed trial finds its checkpoint
    run_dir.mkdir(parents=True, exist_ok=True)
    overrides = [*options, *(f"{option}={value}" for option, value in chosen.items())]
    with (run_dir / "log.txt").open("a", encoding="utf-8") as log:
        subprocess.run(train_command(overrides, run_dir), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    if not (run_dir / "config.yaml").exists() or finished(run_dir) is None:
        raise TrainingFailedError(f"the training in {run_dir} failed: see its log.txt")
    return float(json.loads((run_dir / "card.json").read_text(encoding="utf-8"))["validation"]["val/exact_match"])


def open_study(folder: Path, seed: int) -> optuna.Study:
    """Opens the study of a folder, or makes one; trials that were killed are queued again."""
    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    study = optuna.create_study(study_name="search", storage=storage, direction="maximize", load_if_exists=True)
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))  # or it would begin with the same choices
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs trials until there are as many as asked for, and prints the best."""
    parser = argparse.ArgumentParser(prog="python -m detector.training.search", description=__doc__.partition("\n")[0])
    parser.add_argument("options", nargs="*", help="of every training, as on the command line of train.py")
    parser.add_argument("--folder", type=Path, required=True, help="of the study and of its runs")
    parser.add_argument("--trials", type=int, default=20, help="how many there are in the end")
    parser.add_argument(
        "--space", type=Path, default=ROOT / "conf" / "search.yaml", help="what to choose, and where from"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the choices")
    args = parser.parse_args(arguments)
    loaded = OmegaConf.load(args.space)
    assert isinstance(loaded, DictConfig)
    space = {str(option): domain for option, domain in loaded.items()}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = open_study(args.folder, args.seed)

    def objective(trial: Trial) -> float:
        chosen = suggest(trial, space)
        result = train(args.folder, args.options, chosen)
        print(f"trial {trial.number}: exact match {result:.4f} with {chosen}", flush=True)
        return result

    done = len(study.get_trials(states=(TrialState.COMPLETE,)))
    study.optimize(objective, n_trials=max(0, args.trials - done))
    print(f"best of {len(study.get_trials(states=(TrialState.COMPLETE,)))}: {study.best_value:.4f} with", end=" ")
    print(" ".join([*args.options, *(f"{option}={value}" for option, value in study.best_params.items())]))


if __name__ == "__main__":
    main()
