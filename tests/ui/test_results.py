"""Results by (user, id)."""

import pytest

from lmoe_studio.ui.results import ResultStore


def test_a_store_gives_a_result_only_to_its_user_and_forgets_the_oldest():
    store = ResultStore[int](2)
    keys = [store.put("ann", number) for number in range(3)]
    assert [store.get("ann", key) for key in keys] == [None, 1, 2]
    assert store.get("bob", keys[2]) is None


@pytest.mark.parametrize("key", [None, "", 3, [], {}, ["x"]])
def test_nonsense_is_no_key(key):
    assert ResultStore[int](2).get("", key) is None
