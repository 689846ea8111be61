"""`python -m tuning`: its options, each with its help, and what they configure."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from newsrec.cli import STOPPED, main
from newsrec.cli.options import (
    Columns,
    Data,
    Features,
    Format,
    IntegerIds,
    MaxBad,
    Quarantine,
    Validation,
    console,
    names_in,
    read_options,
)
from newsrec.cli.training import (
    Candidates,
    GapHours,
    Held,
    ListLength,
    Params,
    Ranker,
    Recall,
    RecallRefresh,
    Reranker,
    RerankTop,
    TestDays,
    ValidDays,
    Without,
)
from newsrec.errors import UsageError

Trials = Annotated[int, typer.Option(help="Finished trials that the study is to have, those of earlier runs included.")]
Out = Annotated[Path, typer.Option(help="JSON file of the best parameters, for train --params or --rerank-params.")]
Storage = Annotated[
    str, typer.Option(help="sqlite:///FILE, journal:///FILE (also on a network disk) or postgresql://USER@HOST/NAME.")
]
Study = Annotated[str | None, typer.Option(help="Name of the study; without it, one that follows from the data.")]
Jobs = Annotated[int, typer.Option(help="Worker processes.")]
Metric = Annotated[
    str | None,
    typer.Option(help="What to maximise: ndcg@10 (default), ndcg@5, mrr@5, mrr, hit@5 or auc; of a network mrr@5."),
]
Folds = Annotated[int, typer.Option(help="Validation periods, each ending where the next begins.")]
Sampler = Annotated[str, typer.Option(help="Who proposes: tpe, random, cmaes or gp.")]
SpaceFile = Annotated[Path | None, typer.Option("--space", help="TOML file that narrows or widens the space.")]
Switches = Annotated[
    str | None, typer.Option(help="families or features: search what can go without loss, instead of parameters.")
]
Latency = Annotated[bool, typer.Option("--latency", help="Weigh quality against the p99 of scoring a request.")]
Timeout = Annotated[float | None, typer.Option(help="Seconds after which no trial begins.")]
TrainRequests = Annotated[int, typer.Option(help="Training requests of a trial at most.", min=1)]
ValidRequests = Annotated[int, typer.Option(help="Validation requests of a fold at most.", min=1)]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn.", min=0)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file at --out that is not this study's.")]

app = typer.Typer(name="tuning", add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def tune(
    trials: Trials,
    out: Out,
    ranker: Ranker = "lgbm",
    reranker: Reranker = None,
    storage: Storage = "sqlite:///artifacts/tuning.db",
    study: Study = None,
    jobs: Jobs = 1,
    data: Data = None,
    format: Format = "auto",
    metric: Metric = None,
    folds: Folds = 3,
    sampler: Sampler = "tpe",
    space: SpaceFile = None,
    switches: Switches = None,
    rerank_top: RerankTop = 20,
    params: Params = None,
    latency: Latency = False,
    timeout: Timeout = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    validation: Held = Validation.temporal,
    recall: Recall = None,
    candidates: Candidates = None,
    without: Without = "",
    train_requests: TrainRequests = 30_000,
    valid_requests: ValidRequests = 4_000,
    test_days: TestDays = 1.0,
    valid_days: ValidDays = 1.0,
    gap_hours: GapHours = 24.0,
    recall_refresh: RecallRefresh = 30.0,
    list_length: ListLength = 100,
    column: Columns = None,
    integer_ids: IntegerIds = False,
    quarantine: Quarantine = None,
    features: Features = None,
    max_bad_share: MaxBad = 0.01,
) -> int:
    """Search for better parameters of a ranker or, with --reranker, of a network, and write them for train.

    The same command again continues its study. The test period is never looked at.

    \b
    python -m tuning --ranker lgbm --trials 40 --out params.json
    python -m tuning --ranker lgbm --trials 40 --data logs/globo --jobs 2 --out globo.json
    python -m tuning --switches families --trials 30 --out can-go.json
    python -m tuning --reranker din --params params.json --trials 20 --out din.json
    """
    from newsrec.params import load_params
    from newsrec.recall import settings_of
    from newsrec.split import SplitConfig
    from newsrec.train_config import TrainConfig

    refuse_without_extra()
    from tuning.run import TuneConfig
    from tuning.run import tune as run

    periods = SplitConfig(
        validation=validation.value,
        test_days=test_days,
        valid_days=valid_days,
        gap_hours=gap_hours,
        train_requests=train_requests,
        valid_requests=valid_requests,
    )
    config = TrainConfig(
        data=data,
        format=format,
        ranker=ranker,
        params=load_params(params, ranker).params if params else {},
        reranker=reranker,
        rerank_top=rerank_top,
        candidates=candidates,
        recall=None if recall is None else names_in(recall),
        without=names_in(without),
        recall_settings=settings_of(recall_refresh, list_length),
        list_length=list_length,
        split=periods,
        seed=seed,
        read=read_options(column, integer_ids, quarantine, max_bad_share),
        features=features,
    )
    with console() as told:
        result = run(
            TuneConfig(
                out,
                trials,
                config,
                folds=folds,
                metric=metric,
                storage=storage,
                study=study,
                sampler=sampler,
                space=space,
                switches=switches,
                latency=latency,
                jobs=jobs,
                timeout=timeout,
                overwrite=overwrite,
            ),
            told,
        )
        told.say(result.in_words(out))
    return STOPPED if result.stopped else 0


def refuse_without_extra() -> None:
    """Find out whether the packages of the extra are there.

    Raises:
        UsageError: With the one that is missing.
    """
    missing = [name for name in ("optuna", "sqlalchemy", "plotly") if find_spec(name) is None]
    if missing:
        raise UsageError(f"tuning: expected {missing}, found none. Install: pip install 'newsrec[tuning]'.")


if __name__ == "__main__":
    sys.exit(main(app=app, name="python -m tuning"))
