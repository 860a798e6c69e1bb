"""Names that can't meet by chance, and those that an instance keeps."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from swapstats_core.naming import Holder, Names, kept, names_of, own, plain, with_names
from swapstats_core.spec import SwapStatsResource
from swapstats_core.wire import Keys, Subjects
from swapstats_runtime.resource import load_resource

LABELS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)


def resource(namespace: str = "default", name: str = "mainnet", **spec: Any) -> SwapStatsResource:  # noqa: ANN401 - as in a file
    return SwapStatsResource.model_validate({"metadata": {"name": name, "namespace": namespace}, "spec": spec})


def test_namespace_and_name_are_in_everything_that_others_could_see() -> None:
    said = with_names(resource("prod"))
    assert names_of(said) == Names("prod.mainnet", "swap-stats.prod.mainnet", "swaps_prod__mainnet")
    assert Keys("swap:", said.instance).claim == "swap:prod.mainnet:claim"
    assert Subjects(said.instance).shard("shard-0").startswith("prod.mainnet.")


@given(st.tuples(LABELS, LABELS), st.tuples(LABELS, LABELS))
def test_two_instances_share_no_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    first, second = (names_of(with_names(resource(*each))) for each in (one, other))
    for name in ("instance", "group_id", "database"):
        assert (getattr(first, name) == getattr(second, name)) == (one == other)
    assert len(first.database) <= 200


def test_dashes_and_dots_are_told_apart() -> None:
    near = ["a-b.c", "a.b-c", "a--b.c", "a-b--c.d", "a.b", "a-b"]
    for one, other in combinations(near, 2):
        assert own(one).database != own(other).database


def test_names_that_are_asked_for_are_kept() -> None:
    stores = {"clickhouse": {"database": "swaps"}}
    asked: dict[str, Any] = {"instance": "mine", "source": {"groupId": "swap-stats"}, "stores": stores}
    wanted = Names("mine", "swap-stats", "swaps")
    assert names_of(with_names(resource(**asked))) == wanted
    assert names_of(with_names(resource(**asked), plain("mainnet"))) == wanted, "even if it is called otherwise"


@pytest.mark.parametrize("instance", ["Mine", "a b", "a.b.c", "a*", "", "-a", "a."])
def test_what_would_be_no_subject_is_refused(instance: str) -> None:
    with pytest.raises(ValidationError, match="instance"):
        resource(instance=instance)


def test_an_instance_keeps_its_names_for_life() -> None:
    assert kept("mainnet", None) is None
    assert kept("mainnet", {"conditions": []}) is None
    assert kept("mainnet", {"rollout": {}}) == plain("mainnet"), "of a release that didn't say them"
    said = {"instance": "x", "groupId": "y", "database": "z"}
    assert kept("mainnet", {"rollout": {}, "names": said}) == Names("x", "y", "z")


def test_a_file_as_kubernetes_shows_it_says_what_the_instance_is_called(tmp_path: Path) -> None:
    file = tmp_path / "mainnet.yaml"
    file.write_text("metadata: {name: mainnet}\nspec: {}\nstatus: {rollout: {}}\n")
    assert names_of(load_resource(file)) == plain("mainnet")
    file.write_text("metadata: {name: mainnet, namespace: prod}\nspec: {}\n")
    assert load_resource(file).instance == "prod.mainnet"


def test_a_holder_says_who_it_is() -> None:
    assert str(Holder.of(resource("prod"))) == "prod/mainnet"
    assert str(Holder("prod/mainnet", "0-1")) == "prod/mainnet (0-1)"
