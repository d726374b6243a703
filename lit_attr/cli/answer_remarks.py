"""What stands below the table of an answer: which numbers it lacks, and why, and which data the others are from."""

from collections.abc import Iterator, Sequence

from lit_attr.errors import few
from lit_attr.query.answers import Answer, EdgeAnswer, Ranking, StrongestEdges, Subgraph, SureAnswer
from lit_attr.query.estimates import Estimated
from lit_attr.query.layer_answers import LayerBlock, LayerMatrix
from lit_attr.storage.edge_errors import FEW
from lit_attr.topology.words import ErrorBasis

# The mark of a value whose source occurred in too few groups of batches.
FEW_GROUPS = "(few)"
_MEANING: dict[ErrorBasis, str] = {
    "random order": "± standard error: how far values would come out elsewhere on other text of the same kind",
    "file order": "± standard error, of this text in the order of its file alone: rows were not drawn at random",
}


def remarks(answer: object) -> Iterator[str]:
    """What an answer does not have, or has from a part of the data, line by line; nothing for a complete answer.

    Args:
        answer: The answer to any question.
    """
    if isinstance(answer, Answer) and answer.sample is not None:
        yield str(answer.sample)
    if isinstance(answer, Answer) and answer.not_held is not None:
        yield str(answer.not_held)
    if isinstance(answer, SureAnswer):
        yield from _about_errors(answer)
    if isinstance(answer, EdgeAnswer) and not answer.is_held:
        yield "the result keeps the strongest edges alone, and this is neither among those of its source nor its target"
    if isinstance(answer, EdgeAnswer) and not answer.was_harvested:
        yield _unmeasured(answer.target.component_key)
    if isinstance(answer, Ranking):
        if not answer.was_harvested:
            yield _unmeasured(answer.key.component_key)
        elif not answer.entries and answer.not_held is None:
            yield "there are none"
    if isinstance(answer, Ranking | StrongestEdges | Subgraph) and answer.n_not_harvested:
        number = f"{answer.n_not_harvested:,} component{'s' * (answer.n_not_harvested != 1)}"
        yield f"{number} cannot appear as targets: they were no targets of the harvest"
    if isinstance(answer, LayerBlock) and answer.n_not_harvested:
        yield f"{answer.n_not_harvested:,} of {len(answer.targets):,} targets were not harvested, and are not shown"
    if isinstance(answer, Subgraph) and (names := [n.component_key for n in answer.nodes if not n.was_harvested]):
        yield f"no targets of the harvest, so that what feeds them was not measured: {few(names)}"
    if isinstance(answer, LayerMatrix) and (partial := [pair for pair in answer.pairs if pair.harvested < 1]):
        yield (
            f"{len(answer.pairs) - len(partial)} of {len(answer.pairs)} pairs were harvested completely: values are of "
            "the edges to components that were targets of the harvest"
        )


def _about_errors(answer: SureAnswer) -> Iterator[str]:
    """What the standard errors mean, whether some are missing, and to which place a list is in a sure order."""
    if answer.standard_errors == "not harvested":
        yield "no standard errors: they were not harvested"
        return
    estimates: Sequence[Estimated] = ()
    if isinstance(answer, EdgeAnswer):
        estimates = [answer.estimated(normalized=True)]
    elif isinstance(answer, Ranking):
        estimates = answer.entries
    elif isinstance(answer, StrongestEdges | Subgraph):
        estimates = answer.edges
    if any(one.standard_error is not None for one in estimates):
        yield _MEANING[answer.standard_errors]
    if any(one.few_groups for one in estimates):
        yield f"{FEW_GROUPS}: the source occurred in fewer than {FEW} groups of batches, too few for a standard error"
    if isinstance(answer, Ranking | StrongestEdges) and answer.n_separated is not None and len(estimates) > 1:
        yield (
            f"the 95 % intervals of the first {answer.n_separated} lie beyond those of all others here"
            if answer.n_separated
            else "no 95 % interval of the first ones lies beyond those of all others here: their order is not sure"
        )


def _unmeasured(key: str) -> str:
    return f"{key} was no target of the harvest: what feeds it was not measured"
