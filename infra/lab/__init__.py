"""The lab: the whole update cycle without a broker, against simulated populations, with many seeds.

    population ─► answers (the live policy, in batches) ─► reactions ─► bronze ─► silver, gold (as a rebuild does)
        ▲                                                                           │
        │                                                                           ▼
    rollout (the controller's rules) ◄── registered or rejected ◄── the trainer's own cycle, on real tables
        │
        └─► true win rates on prompts that nobody asks ─► results.jsonl ─► report.html

What the trainer sees are the tables, as in production; the true taste is seen by the judging alone.
"""
