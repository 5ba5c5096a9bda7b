"""A student beside its teacher as a table, and its model card in Hugging Face's form; no text of any user in them."""

import json
from collections.abc import Iterator

from trainer.core.distill_table import Latency, Ratio, Size, cost_of_thousand
from trainer.distill_records import ComparedRow, DistillReport, Quality, StudentRecord, TokenGap
from trainer.records import Interval


def compared(report: DistillReport) -> tuple[ComparedRow, ...]:
    """Quality, latency, size and cost of the student, its teacher and its own start."""
    price = None if report.price_per_hour is None else (report.price_per_hour, report.currency)
    return (
        *_quality(report.quality),
        *_latency(report.latency),
        *_size(report.student_size, report.teacher_size),
        _cost(report.latency, price),
    )


def _quality(found: Quality) -> Iterator[ComparedRow]:
    won, over_start = _interval(found.win_rate_vs_teacher), _interval(found.win_rate_vs_start)
    yield ComparedRow(what="wins over the teacher", student=won, teacher="0.50")
    yield ComparedRow(what="wins over its own start", student=over_start, start="0.50")
    rewards = (found.reward, found.teacher_reward, found.start_reward)
    ours, theirs, first = (_interval(r) for r in rewards)
    yield ComparedRow(what="mean reward", student=ours, teacher=theirs, start=first)
    if found.kl_teacher is not None:
        yield ComparedRow(what="KL to the teacher, nats an answer", student=f"{found.kl_teacher:.2f}", teacher="0")
    if found.gap_after is not None and found.gap_before is not None:
        yield from _gaps(found.gap_after, found.gap_before)
    lengths = (found.length, found.teacher_length, found.start_length)
    ours, theirs, first = (f"{n:.1f}" for n in lengths)
    ratio = f"{found.length / max(found.teacher_length, 1e-9):.2f}"
    yield ComparedRow(what="tokens an answer", student=ours, teacher=theirs, start=first, ratio=ratio)


def _gaps(after: TokenGap, before: TokenGap) -> Iterator[ComparedRow]:
    for what, new, old in (
        ("KL(teacher || student), nats a token", after.forward, before.forward),
        ("KL(student || teacher), nats a token", after.reverse, before.reverse),
    ):
        yield ComparedRow(what=what, student=_interval(new, 3), teacher="0", start=_interval(old, 3))


def _latency(found: Latency) -> Iterator[ComparedRow]:
    ours, theirs = found.student, found.teacher
    for what, mine, yours, ratio in (
        ("time to the first token", ours.first_token, theirs.first_token, found.first_token),
        ("time for a token", ours.token, theirs.token, found.token),
    ):
        row = {"student": f"{mine * 1000:.2f} ms", "teacher": f"{yours * 1000:.2f} ms"}
        yield ComparedRow(what=what, **row, ratio=_ratio(ratio))


def _size(ours: Size, theirs: Size) -> Iterator[ComparedRow]:
    for what, mine, yours, told in (
        ("parameters", ours.parameters, theirs.parameters, "{:,}".format),
        ("memory of the weights", ours.weight_bytes, theirs.weight_bytes, as_bytes),
        ("memory for a token in flight", ours.cache_bytes, theirs.cache_bytes, as_bytes),
    ):
        yield ComparedRow(what=what, student=told(mine), teacher=told(yours), ratio=f"{mine / yours:.2f}")


def _cost(found: Latency, price: tuple[float, str] | None) -> ComparedRow:
    """By the time of whole answers, one after the other."""
    per_hour, unit = price or (None, "s")
    ours, theirs = (f"{cost_of_thousand(side.answer, per_hour):.3g} {unit}" for side in (found.student, found.teacher))
    return ComparedRow(what="cost of 1,000 answers", student=ours, teacher=theirs, ratio=_ratio(found.answer))


def as_bytes(n: int) -> str:
    """A size with its unit."""
    size, units = float(n), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _interval(found: Interval, digits: int = 2) -> str:
    return f"{found.mean:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _ratio(found: Ratio) -> str:
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"


def student_card(record: StudentRecord, report: DistillReport) -> str:
    """`README.md` of a student's folder."""
    return "\n".join([*_metadata(record), *_body(record, report)]) + "\n"


def _metadata(record: StudentRecord) -> Iterator[str]:
    """The YAML block: https://huggingface.co/docs/hub/model-cards; texts are quoted as JSON, which YAML reads."""
    quality = record.quality
    yield "---"
    yield f"base_model: {json.dumps(record.recipe.base_model.name)}"
    yield "base_model_relation: finetune"
    yield "library_name: transformers"
    yield "pipeline_tag: text-generation"
    yield "tags: [thumbwheel, distillation]"
    yield "model-index:"
    yield f"- name: {json.dumps(record.id)}"
    yield "  results:"
    yield "  - task:"
    yield "      type: text-generation"
    yield "    dataset:"
    yield "      name: held-out production prompts"
    yield "      type: thumbwheel"
    yield f"      revision: {record.content_hash}"
    yield "    metrics:"
    for name, found in (("teacher", quality.win_rate_vs_teacher), ("untrained student", quality.win_rate_vs_start)):
        yield f"    - name: {json.dumps(f'win rate against the {name}')}"
        yield "      type: win_rate"
        yield f"      value: {found.mean:.4f}"
    yield "---"


def _body(record: StudentRecord, report: DistillReport) -> Iterator[str]:
    recipe, quality = record.recipe, record.quality
    yield f"\n# {record.id} ({'passed its gates' if record.passed else 'refused'})\n"
    yield f"A student of {recipe.teacher} (on {recipe.base_model.name}), {_origin(record)},"
    yield f"made on {record.created_at:%Y-%m-%d}.\n"
    each = "one answer" if quality.answers_per_prompt == 1 else f"{quality.answers_per_prompt} answers"
    yield f"On {quality.prompts} held-out prompts, {each} to each, with 95 % intervals:\n"
    yield "| | student | teacher | its start | student / teacher |\n|---|---|---|---|---|"
    for row in report.table:
        yield f"| {row.what.replace('|', chr(92) + '|')} | {row.student} | {row.teacher} | {row.start} | {row.ratio} |"
    yield "\n## Gates\n\n| gate | verdict | measured |\n|---|---|---|"
    for gate in record.gates:
        detail = gate.detail.replace("|", "\\|").replace("\n", " ")
        yield f"| {gate.name} | {'passed' if gate.passed else 'failed'} | {detail} |"
    for missing in record.not_asked:
        yield f"| {missing.name} | not asked | {missing.reason} |"
    for gate in record.gates:
        if gate.remedy:
            yield f"\nTo change {gate.name}: {gate.remedy}."
    yield from _lineage(record)
    yield "\n## How to load it\n"
    yield "With transformers, as any model: `AutoModelForCausalLM.from_pretrained(folder)`; or `thumbwheel up --model"
    yield "folder`, in a data folder of its own."
    yield "\n## Limits\n"
    yield "It imitates its teacher on the prompts of this product's users, and was judged by a model of their ratings"
    yield "on prompts of the same kind. Nothing is known of it elsewhere: what its teacher can do beyond them it may"
    yield "have lost. It inherits what its teacher says wrongly."


def _origin(record: StudentRecord) -> str:
    source = record.recipe.student
    if source.kind == "cut":
        return f"cut to its blocks {', '.join(map(str, source.layers))} (counted from 0) and trained"
    return f"trained from {source.name}"


def _lineage(record: StudentRecord) -> Iterator[str]:
    recipe, distill = record.recipe, record.recipe.distill
    sources = ", ".join(f"{table} at version {v}" for table, v in record.tables.items() if v is not None)
    seconds = sum(c.seconds for c in record.cost.values())
    yield "\n## Data and training\n"
    yield f"- Tables: {sources or 'none'}; content hash `{record.content_hash}`. `evidence.jsonl` names each prompt."
    yield f"- {record.answers_kept} answers kept of {distill.answers} to each of {record.prompts['train']} prompts, the"
    yield f"  best by `{record.reward_model}`; then up to {distill.iterations} steps on answers of its own."
    yield f"- Teacher's adapter, SHA-256: `{recipe.teacher_adapter_sha256 or 'none: the base'}`; its base:"
    yield f"  `{recipe.base_model.sha256 or 'unknown'}`; these weights: `{record.weights_sha256}`."
    cycle, ran = recipe.cycle, record.environment
    yield f"- Seed {cycle.seed}, {record.dtype} on {cycle.device}, {cycle.threads} threads; code"
    yield f"  `{record.code_version}`, torch {ran.torch}, transformers {ran.transformers}, Python {ran.python};"
    yield f"  {seconds:.0f} s."
    yield "  Everything else is in `record.json` and `report.json`."
