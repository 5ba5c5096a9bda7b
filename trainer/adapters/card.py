"""A version's model card in Hugging Face's form: metadata for the hub, then words. It holds no text of any user."""

import json
from collections.abc import Iterator

from trainer.records import Interval, VersionRecord


def model_card(record: VersionRecord) -> str:
    """`README.md` of a version's folder."""
    return "\n".join([*_metadata(record), *_body(record)]) + "\n"


def _metadata(record: VersionRecord) -> Iterator[str]:
    """The YAML block: https://huggingface.co/docs/hub/model-cards; texts are quoted as JSON, which YAML reads."""
    yield "---"
    yield f"base_model: {json.dumps(record.base_model.name)}"
    yield "base_model_relation: adapter"
    yield "library_name: peft"
    yield "pipeline_tag: text-generation"
    yield f"tags: [thumbwheel, {record.config.method}, lora]"
    yield "model-index:"
    yield f"- name: {json.dumps(record.version)}"
    yield "  results:"
    yield "  - task:"
    yield "      type: text-generation"
    yield "    dataset:"
    yield "      name: held-out production prompts"
    yield "      type: thumbwheel"
    yield f"      revision: {record.content_hash}"
    yield "    metrics:"
    for name, kind, value in _results(record):
        yield f"    - name: {json.dumps(name)}"
        yield f"      type: {kind}"
        yield f"      value: {value:.4f}"
    yield "---"


def _results(record: VersionRecord) -> list[tuple[str, str, float]]:
    """Finite figures only: the hub takes no NaN."""
    evaluation = record.evaluation
    found = [
        (f"win rate against {record.parent}", "win_rate", evaluation.win_rate_vs_parent.mean),
        ("win rate against the base", "win_rate", evaluation.win_rate_vs_base.mean),
        ("KL to the base, nats an answer", "kl", evaluation.kl),
    ]
    return [row for row in found if row[2] - row[2] == 0]


def _body(record: VersionRecord) -> Iterator[str]:
    evaluation, config = record.evaluation, record.config
    yield f"\n# {record.version} ({'passed its gates' if record.passed else 'rejected'})\n"
    yield f"A LoRA adapter on {record.base_model.name}, made by update cycle {record.cycle_id} from {record.parent}"
    yield f"on {record.created_at:%Y-%m-%d}{f' (begun by: {record.trigger})' if record.trigger else ''}.\n"
    yield f"- Win rate by the judge on {evaluation.prompts} held-out prompts, with 95 % intervals:"
    yield f"  {_share(evaluation.win_rate_vs_parent)} against {record.parent}, {_share(evaluation.win_rate_vs_base)}"
    yield "  against the base."
    yield f"- KL to the base: {evaluation.kl:.2f} nats an answer."
    yield f"- Mean length: {evaluation.length:.1f} tokens (before: {evaluation.parent_length:.1f})."
    yield "\n## Gates\n\n| gate | verdict | measured |\n|---|---|---|"
    for gate in record.gates:
        detail = gate.detail.replace("|", "\\|").replace("\n", " ")
        yield f"| {gate.name} | {'passed' if gate.passed else 'failed'} | {detail} |"
    for gate in record.gates:
        if gate.remedy:
            yield f"\nTo change {gate.name}: {gate.remedy}."
    yield "\n## Data\n"
    yield from _lineage(record)
    yield "\n## Training\n"
    yield f"- Seed {config.seed}, {config.dtype} on {config.device}, {config.threads} threads; code"
    ran = record.environment
    yield f"  `{record.code_version}`, torch {ran.torch}, transformers {ran.transformers}, peft {ran.peft},"
    yield f"  Python {ran.python}."
    where = ", ".join(config.lora.target_modules) or "every linear layer"
    yield f"- LoRA: rank {config.lora.rank}, alpha {config.lora.alpha}, on {where}."
    yield f"- Trained by {config.method.upper()}{_own_reward(record)}."
    if config.method == "ppo":
        yield from _ppo(record)
    trunk = {"frozen": "the frozen base", "lora": "an adapter of their own", "full": "a copy of the base"}
    yield f"- Reward model: {config.reward.heads} heads on {trunk[config.reward.trunk]} (`{record.reward_model.id}`)."
    yield from _domains(record)
    yield from _cost(record)
    yield "\n## How to load it\n"
    yield "```python"
    yield "from peft import PeftModel"
    yield "from transformers import AutoModelForCausalLM"
    yield ""
    yield f"base = AutoModelForCausalLM.from_pretrained({json.dumps(record.base_model.path)})"
    yield 'model = PeftModel.from_pretrained(base, "path/of/this/folder")'
    yield "```"
    yield "\n## Limits\n"
    yield "It learned from the ratings of this product's users, and was judged by a model of other users' ratings, on"
    yield "prompts of the same kind. Nothing is known of it elsewhere. It inherits what its base can and can't do."


def _domains(record: VersionRecord) -> Iterator[str]:
    domains = record.reward_model.domains
    if not domains:
        return
    own = sum(domain.own for domain in domains)
    yield f"- Rewards by {record.config.reward.by}: {own} of {len(domains)} have weights of their own. Right about"
    yield "  labels that they have not seen (own weights, common weights):"
    for domain in domains:
        told = f"  - `{domain.name}`: {domain.labels} labels of {domain.users} people"
        if domain.own_accuracy is not None and domain.common_accuracy is not None:
            told += f", {_share(domain.own_accuracy)}, {_share(domain.common_accuracy)}"
        yield told if domain.own else f"{told}, common weights"


def _ppo(record: VersionRecord) -> Iterator[str]:
    ppo = record.config.ppo
    yield f"- At most {ppo.iterations} iterations of {ppo.prompts_per_iteration} prompts with {ppo.answers_per_prompt}"
    yield f"  answers each; critic {ppo.critic}; KL budget {ppo.kl_budget:g} nats."


def _own_reward(record: VersionRecord) -> str:
    extra = record.config.extra_reward
    return "" if extra is None else f" with the {extra.kind} {extra.name} in its reward"


def _lineage(record: VersionRecord) -> Iterator[str]:
    sources = ", ".join(f"{table} at version {v}" for table, v in record.tables.items() if v is not None)
    labels = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in record.labels.items())
    dropped = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in record.dropped.items())
    yield f"- Tables: {sources or 'none'}; content hash `{record.content_hash}`."
    yield f"- Labels: {labels}{f'; left out: {dropped}' if dropped else ''}."
    yield "- `evidence.jsonl` names each label and prompt by its id; `pins.json` the data files."
    yield f"- Base: {record.base_model.name}, SHA-256 of its weights `{record.base_model.sha256 or 'unknown'}`."
    yield f"- Adapter SHA-256: `{record.adapter_sha256}`"
    yield f"  (parent: `{record.parent_adapter_sha256 or 'the base'}`). Everything else is in `record.json`."


def _cost(record: VersionRecord) -> Iterator[str]:
    seconds = sum(c.seconds for c in record.cost.values())
    tokens = sum(c.generated_tokens + c.trained_tokens for c in record.cost.values())
    money = [c.money for c in record.cost.values() if c.money is not None]
    currency = next((c.currency for c in record.cost.values() if c.currency), "")
    price = f", {sum(money):.2f} {currency}" if money else ""
    yield f"- Cost until it was registered: {seconds:.0f} s, {tokens} tokens{price}."


def _share(interval: Interval) -> str:
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
