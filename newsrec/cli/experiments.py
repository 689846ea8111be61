"""The verb `experiment`."""

from pathlib import Path
from typing import Annotated

import typer

from newsrec.cli.options import Columns, Data, Format, IntegerIds, MaxBad, Quarantine, console, names_in, read_options
from newsrec.cli.training import (
    Candidates,
    Objective,
    Params,
    RerankTop,
    Tasks,
    TestDays,
    TestRequests,
    ValidDays,
    ValidRequests,
)
from newsrec.experiment.config import SAMPLERS
from newsrec.experiment.questions import EXPERIMENTS
from newsrec.rerankers import RERANKERS

Name = Annotated[str, typer.Argument(help="; ".join(f"{name}: {each.meaning}" for name, each in EXPERIMENTS.items()))]
Out = Annotated[Path | None, typer.Option(help="Folder for what is found; a run that was stopped goes on there.")]
TrainRequests = Annotated[int, typer.Option(help="Training requests at most; their whole lists stay in memory.", min=1)]
Seeds = Annotated[int, typer.Option(help="Each cell is drawn and fitted so often.", min=1)]
Samplers = Annotated[str, typer.Option(help="negatives: samplers and mixtures, separated by commas.")]
EVERY_SAMPLER = ",".join(SAMPLERS)
Models = Annotated[
    str, typer.Option(help=f"rerankers: of {', '.join(RERANKERS)}, or FILE.py:NAME; all of them without it.")
]
Losses = Annotated[str, typer.Option(help="rerankers: losses, separated by commas.")]
Ratios = Annotated[str, typer.Option(help="negatives: negatives per clicked article, separated by commas.")]


def experiment(
    name: Name,
    data: Data = None,
    format: Format = "auto",
    out: Out = None,
    candidates: Candidates = None,
    train_requests: TrainRequests = 10_000,
    valid_requests: ValidRequests = 3_000,
    test_requests: TestRequests = 10_000,
    test_days: TestDays = 1.0,
    valid_days: ValidDays = 1.0,
    seeds: Seeds = 1,
    samplers: Samplers = EVERY_SAMPLER,
    ratios: Ratios = "4,10",
    models: Models = "",
    losses: Losses = "softmax",
    task: Tasks = None,
    rerank_top: RerankTop = 20,
    params: Params = None,
    objective: Objective = None,
    column: Columns = None,
    integer_ids: IntegerIds = False,
    quarantine: Quarantine = None,
    max_bad_share: MaxBad = 0.01,
) -> None:
    """Answer a question about the ranking on one's own log: the same requests and lists, one thing changed.

    \b
    newsrec experiment negatives --data logs/globo --train-requests 30000 --seeds 3
    newsrec experiment rerankers --data logs/globo --models din,dien --losses softmax,bce
    """
    from newsrec.errors import UsageError
    from newsrec.experiment.config import ExperimentConfig
    from newsrec.experiment.run import run_experiment
    from newsrec.params import load_params

    try:
        numbers = tuple(float(word) for word in names_in(ratios))
    except ValueError as error:
        raise UsageError(f"--ratios: expected numbers such as 4,10, found {ratios!r}.") from error
    of_file = load_params(params, "lgbm").params if params else {}
    chosen = {**of_file, **({"objective": objective} if objective else {})}
    config = ExperimentConfig(
        name=name,
        data=data,
        format=format,
        out=out,
        candidates=candidates,
        train_requests=train_requests,
        valid_requests=valid_requests,
        test_requests=test_requests,
        test_days=test_days,
        valid_days=valid_days,
        seeds=seeds,
        samplers=names_in(samplers),
        ratios=numbers,
        models=names_in(models),
        losses=names_in(losses),
        tasks=tuple(task or ()),
        rerank_top=rerank_top,
        params=chosen,
        read=read_options(column, integer_ids, quarantine, max_bad_share),
    )
    with console() as told:
        result = run_experiment(config, told)
        told.experiment(result.table, result.protocol)
        told.say(f"experiment: {result.out}")
