"""The verb `train`: its options, each with its help, and what they configure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from newsrec.cli.options import (
    Columns,
    Data,
    Features,
    Format,
    IntegerIds,
    MaxBad,
    Quarantine,
    Switch,
    Validation,
    console,
    names_in,
    quotas_in,
    read_options,
)
from newsrec.exposure import PROPENSITIES
from newsrec.recall import ALL, CHANNELS, DEFAULT_CHANNELS
from newsrec.rerankers import RERANKERS
from newsrec.sampling import SAMPLERS

Ranker = Annotated[str, typer.Option(help="The ranker: lgbm.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the bundle; a fresh one under artifacts/ without it.")]
Held = Annotated[Validation, typer.Option(help="How the test requests are held out.")]
Recall = Annotated[
    str | None,
    typer.Option(
        help=f"Recall channels, separated by commas: {', '.join(CHANNELS)}. "
        f"{ALL}: every one that the log has the data for. "
        f"Without it {','.join(DEFAULT_CHANNELS)}, and none for slate."
    ),
]
Candidates = Annotated[
    str | None, typer.Option(help="slate (the list that was shown) or recall; without it, what the format is for.")
]
Without = Annotated[str, typer.Option(help="Features and families to leave out, separated by commas.")]
Params = Annotated[Path | None, typer.Option(help="JSON file of ranker parameters, such as tuning writes.")]
Objective = Annotated[str | None, typer.Option(help="lambdarank (default), rank_xendcg or binary.")]
EarlierRun = Annotated[
    Path | None,
    typer.Option(
        help="Take data, format and seed from this bundle; with --reranker its ranker too, so only that is new."
    ),
]
Reranker = Annotated[
    str | None, typer.Option(help=f"Network that orders the top again: {', '.join(RERANKERS)}, or FILE.py:NAME.")
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        help="mmoe, ple: a yes-or-no column of the impressions, dwell:SECONDS, or exposed; without it all columns.",
    ),
]
Base = Annotated[str | None, typer.Option(help="mmoe, ple: network whose tower the experts replace; din without it.")]
RerankTop = Annotated[int, typer.Option(help="Candidates per request that the network orders.", min=2)]
Int8 = Annotated[bool, typer.Option("--int8", help="Keep the network also with weights of eight bits, a smaller file.")]
Negatives = Annotated[
    str,
    typer.Option(
        help=f"Which negatives train. {'; '.join(f'{name}: {each.meaning}' for name, each in SAMPLERS.items())}. "
        "Or a mixture such as random:3+hard:1. "
        "Shown lists stay whole unless another than list is named."
    ),
]
NegativeRatio = Annotated[float, typer.Option(help="Negatives per clicked article, but for list and all.")]
ImportanceWeights = Annotated[Switch, typer.Option(help="Whether rows weigh one by their sampling probability.")]
Exposure = Annotated[
    str,
    typer.Option(
        help=f"Chance that a click was shown, which its list weighs one by: {', '.join(PROPENSITIES)}; given is the "
        "column 'propensity' of the impressions."
    ),
]
ExposureClip = Annotated[float, typer.Option(help="Largest weight by --exposure.", min=1.0)]
PositionBias = Annotated[
    bool, typer.Option("--position-bias", help="Learn what each place of the shown list adds, apart from the score.")
]
RerankParams = Annotated[
    Path | None, typer.Option(help='JSON file such as {"trainer": {"loss": "bpr"}, "network": {"softmax": true}}.')
]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn.", min=0)]
NoRefit = Annotated[bool, typer.Option("--no-refit", help="Do not fit again on all requests at the end.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the bundle at --out.")]
TrainRequests = Annotated[
    int | None,
    typer.Option(help="Training requests at most; without it 200,000, and 15,000 of the embedded log.", min=1),
]
ValidRequests = Annotated[int, typer.Option(help="Validation requests at most.", min=1)]
TestRequests = Annotated[int, typer.Option(help="Test requests at most.", min=1)]
TestDays = Annotated[float, typer.Option(help="Length of the test period, days.")]
ValidDays = Annotated[float, typer.Option(help="Length of the validation period, days.")]
GapHours = Annotated[float, typer.Option(help="gap: how old statistics are when a period starts.")]
KeepDays = Annotated[
    int | None,
    typer.Option(help="Days of events that the bundle keeps whole, folding earlier ones; without it all.", min=1),
]
RecallRefresh = Annotated[float, typer.Option(help="Minutes between refreshes of the recall tables.")]
Quotas = Annotated[
    list[str] | None,
    typer.Option("--quota", help="At most so many articles of a channel: usercf=50. Repeat for each channel."),
]
Merge = Annotated[
    str,
    typer.Option(help="How lists of several channels become one: equal, or learned on validation."),
]
ListLength = Annotated[int, typer.Option(help="Candidates per request at most, 10..10000.")]


def with_base(params: Mapping[str, Any], base: str | None) -> dict[str, Any]:
    """Parameters of a network with its base among them."""
    return {**params} if base is None else {**params, "network": {**params.get("network", {}), "base": base}}


def train(
    ranker: Ranker = "lgbm",
    data: Data = None,
    format: Format = "auto",
    out: Out = None,
    validation: Held = Validation.temporal,
    recall: Recall = None,
    candidates: Candidates = None,
    without: Without = "",
    params: Params = None,
    objective: Objective = None,
    run: EarlierRun = None,
    reranker: Reranker = None,
    rerank_top: RerankTop = 20,
    task: Tasks = None,
    base: Base = None,
    int8: Int8 = False,
    negatives: Negatives = "list",
    negative_ratio: NegativeRatio = 4.0,
    importance_weights: ImportanceWeights = Switch.on,
    exposure: Exposure = "none",
    exposure_clip: ExposureClip = 10.0,
    position_bias: PositionBias = False,
    rerank_params: RerankParams = None,
    seed: Seed = 0,
    no_refit: NoRefit = False,
    overwrite: Overwrite = False,
    train_requests: TrainRequests = None,
    valid_requests: ValidRequests = 8_000,
    test_requests: TestRequests = 30_000,
    test_days: TestDays = 1.0,
    valid_days: ValidDays = 1.0,
    gap_hours: GapHours = 24.0,
    keep_days: KeepDays = None,
    recall_refresh: RecallRefresh = 30.0,
    list_length: ListLength = 100,
    quota: Quotas = None,
    merge: Merge = "equal",
    column: Columns = None,
    integer_ids: IntegerIds = False,
    quarantine: Quarantine = None,
    features: Features = None,
    max_bad_share: MaxBad = 0.01,
) -> None:
    """Train, evaluate and keep a ranking.

    \b
    newsrec train --ranker lgbm
    newsrec train --ranker lgbm --reranker din
    newsrec train --reranker din --run artifacts/run --out artifacts/run-din
    newsrec train --ranker lgbm --data logs/tianchi --validation last-click
    newsrec train --data clicks.csv --format table --column user_id=reader --column item_id=story
    """
    from newsrec import train as stage
    from newsrec.candidates import MergeConfig, SamplingConfig
    from newsrec.earlier import config_of_run
    from newsrec.params import ParamsFile, load_params
    from newsrec.recall import settings_of
    from newsrec.split import SplitConfig
    from newsrec.train_config import TrainConfig

    chosen = load_params(params, ranker) if params else ParamsFile({})
    network = load_params(rerank_params, reranker, "reranker", "--rerank-params") if rerank_params else ParamsFile({})
    periods = SplitConfig(
        validation=validation.value,
        test_days=test_days,
        valid_days=valid_days,
        gap_hours=gap_hours,
        train_requests=train_requests,
        valid_requests=valid_requests,
        test_requests=test_requests,
    )
    config = TrainConfig(
        data=data,
        format=format,
        ranker=ranker,
        params={
            **chosen.params,
            **({"objective": objective} if objective else {}),
            **({"position_bias": True} if position_bias else {}),
        },
        tuned_on=tuple(file.tuned_on for file in (chosen, network) if file.tuned_on),
        out=out,
        overwrite=overwrite,
        candidates=candidates,
        recall=None if recall is None else names_in(recall),
        without=names_in(without),
        recall_settings=settings_of(recall_refresh, list_length),
        list_length=list_length,
        merge=MergeConfig(quotas=quotas_in(quota)),
        merge_by=merge,
        split=periods,
        sampling=SamplingConfig(
            sampler=negatives,
            ratio=negative_ratio,
            weighted=importance_weights is Switch.on,
            exposure=exposure,
            exposure_clip=exposure_clip,
        ),
        refit=not no_refit,
        keep_days=keep_days,
        seed=seed,
        read=read_options(column, integer_ids, quarantine, max_bad_share),
        features=features,
        reranker=reranker,
        rerank_top=rerank_top,
        int8=int8,
        rerank_params=with_base(network.params, base),
        tasks=tuple(task or ()),
    )
    log = None
    if run is not None:
        config, log = config_of_run(run, config)
    with console() as told:
        result = stage.train(config, told, log=log)
        told.table(result.metrics, result.run)
