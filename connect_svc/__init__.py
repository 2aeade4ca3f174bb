"""The Connect service: events in, rules decide, reward actions out.

It owns events, rules, evaluations and reward actions, and keeps these promises:

- the pair (source, external_id) takes effect once, for ever;
- an event, what was decided about it, its actions and their place in the queue are one commit;
- an event taken in after a rule was written, on any replica, is decided with that rule;
- a rule's versions, events and evaluations are never changed or deleted, so that any decision can
  be recomputed from the catalogue version that it names;
- an action's id is derived from event, rule, action key and recipient, and is the request id at its
  target: no path gives a reward twice;
- no cap and no budget is overshot, and what was counted for a reward that is taken back is counted
  out of the same window, once;
- an event is taken back once: what was never claimed is never sent, and the target of all else
  reverses it or ignores its arrival;
- an event that cannot be evaluated by a rule is no failed event: the rule did not match, and the
  evaluation says why.

An event goes `servicer` or `bus` → `intake` (batches) → `catalog` (which rules) → `rationing` (with
which variants and counters) → `deciding` → `store`; a question about it goes `servicer` → `inquiry`
→ `explanations`; an action goes `dispatcher` (claims) → `targets` (typed commands) → Points, NFT or
the Gateway; a clawback goes `servicer` → `reversing` → `dispatcher` → `reversal_targets` → there; a
stored event goes through a later rule by `backfilling` → `rationing` → `store`.
"""
