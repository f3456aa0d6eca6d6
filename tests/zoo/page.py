"""docs/models.md: what was found, as a table."""

from collections.abc import Mapping
from importlib.metadata import version

from zoo.checks import CHECKS, ROOM

_HEAD = """# Which base models work

`make models` writes this page: it builds a tiny random model of every architecture below, makes three
PEFT adapters of different ranks on the layers of its decoder blocks, imports them, and compares.

A check passes where logits differ by at most {room:g} ({cached:g} for cached against uncached, beyond what
the base model itself is off) and texts are equal.

| check | what is compared |
| --- | --- |
| solo | each expert alone with `PeftModel` |
| bypass | no expert with the plain base model |
| greedy | the text that each expert alone writes with `PeftModel.generate` |
| cached | a text read at once, in pieces and token by token |
| padded | a padded text, on either side, with the text alone |
| together | rows with plans of their own with each plan alone |
| merged | a blend written as an adapter and as a whole model, loaded again, with the live blend |
| folded | a blend folded into the weights with the live blend |
| traced | the scores of a trace with the logits; a corpus and an evaluation run |
| trained | two steps run, and their bank loads |

Fused experts of a base that is a mixture itself (PEFT's `target_parameters`) are among those layers. Left out
of the adapters here are: the router of Phi-3.5-MoE and of Llama 4, which gives two things; layers of
state-space models whose weights the model reads itself or that PEFT refuses (`out_proj` of Mamba, Mamba 2,
Falcon-H1 and Nemotron-H, `dt_proj` of Mamba and Jamba); the experts of Llama 4, which run in a way of their
own; and the routers of the other mixtures, which are no linear layers. An adapter that has them is imported
without them: `--leave-out experts`, `--leave-out gate`.

A model that reads images too is a base with its language part; adapters of the text model and of the
whole one both fit. `lmoe import` makes such a comparison with every adapter before it writes a bank.
A base in full precision, 4 or 8 bits; all of transformers {transformers}, PEFT {peft}, torch {torch}.

Adapters on an output layer or an embedding, which all experts share, can be left out with
`--leave-out lm_head`.

"""


def page(results: Mapping[str, Mapping[str, float | str]]) -> str:
    """The page, of the results of each base: a number or a sentence for each check."""
    works = {name: found for name, found in results.items() if "refused" not in found}
    refused = {name: found["refused"] for name, found in results.items() if "refused" in found}
    exact = sum(all(map(passes, found, found.values())) for found in works.values())
    versions = {name: version(name).partition("+")[0] for name in ("transformers", "peft", "torch")}
    head = _HEAD.format(room=ROOM["solo"], cached=ROOM["cached"], **versions)
    rows = [
        f"| {name} | " + " | ".join(_cell(check, found.get(check, "-")) for check in CHECKS) + " |"
        for name, found in sorted(works.items())
    ]
    table = [f"| base | {' | '.join(CHECKS)} |", f"| --- {'| --- ' * len(CHECKS)}|", *rows]
    sentences = [f"- **{name}**: {said}" for name, said in sorted(refused.items())]
    return (
        f"{head}## {exact} of {len(results)} architectures are exact in every check\n\n"
        + "\n".join(table)
        + f"\n\n## Refused before anything is written: {len(refused)}\n\n"
        + "\n".join(sentences)
        + "\n"
    )


def passes(check: str, found: float | str) -> bool:
    return not isinstance(found, str) and found <= ROOM.get(check, 0.0)


def _cell(check: str, found: float | str) -> str:
    if isinstance(found, str):
        return f"**{found}**"
    said = "yes" if check in ("greedy", "together", "trained") else f"{max(found, 0):.0e}"
    return said if passes(check, found) else f"**{said}**"
