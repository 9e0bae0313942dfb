"""The proof of `make replay-proof`, with few events."""

from dataclasses import replace

from marketing_pipeline import embedded
from marketing_pipeline_tests import old_postgres, replay_proof


def test_a_replay_comes_to_the_same_in_every_way(servers: embedded.Servers) -> None:
    proof = replay_proof.prove(servers.database_url, 2000, (2,), lambda _: None)
    assert proof.holds, replay_proof.document(proof)
    first, *others = proof.runs
    assert first.effects > 3000
    assert len(first.days) == replay_proof.DAYS
    assert len(others) == 3 + old_postgres.is_there()
    assert len(proof.skipped) == (not old_postgres.is_there())
    assert [len(one.told) for one in proof.controls] == [1, 1]
    for bad in (
        replace(first, digest="0" * 64),
        replace(first, days=dict(first.days) | {"2026-03-09": "0" * 64}),
        replace(first, calls=1),
        replace(first, code=1),
    ):  # the known-bad cases of the comparison itself
        assert not replace(proof, runs=[first, bad]).holds
    missed = replace(proof.controls[0], holds=False)
    assert not replace(proof, controls=[missed]).holds
