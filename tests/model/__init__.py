"""The protocol between database and machine as an explicit-state model: small enough to visit every state.

Read it as the specification, in this order: `state` (what there is, and the rules as switches), `database` (the
transactions), `journal` and `client` (the machine), `world` (everything that may happen), `promises` (what must hold).
`explore` searches, `trace` prints a run, `scenarios` says where each rule is needed.

Left out, because they add no new interleaving: clocks (a deadline may strike at any time), notifications (a client that
polls needs none; see the rule `polls`), several machines (they share nothing but the queue), a machine that an admin
holds, retires or deletes (to the client that is a loss).
"""
