"""What stays in a node's store, and what makes room."""

from skyward.actors.blob_cache import BlobCache


def test_a_blob_is_missing_until_it_has_arrived() -> None:
    stock = BlobCache(100)
    stock.need(1, ["a", "b"])
    assert stock.missing(1) == ["a", "b"]
    assert stock.admit("a", 10) == ()
    assert stock.missing(1) == ["a", "b"]
    stock.arrived()
    assert stock.missing(1) == ["b"]


def test_a_batch_that_needs_nothing_misses_nothing() -> None:
    assert BlobCache(100).missing(7) == []


def test_what_no_batch_needs_stays_until_its_room_is_wanted() -> None:
    stock = BlobCache(100)
    stock.need(1, ["a"])
    stock.admit("a", 60)
    stock.arrived()
    stock.done(1)
    stock.need(2, ["a", "b"])
    assert stock.missing(2) == ["b"]
    stock.done(2)
    assert stock.admit("b", 60) == ("a",)


def test_the_one_not_used_for_longest_goes_first_and_no_more_than_must() -> None:
    stock = BlobCache(100)
    for batch, name in enumerate("abc"):
        stock.need(batch, [name])
        stock.admit(name, 30)
        stock.done(batch)
    stock.need(9, ["a"])
    stock.done(9)
    assert stock.admit("d", 30) == ("b",)
    assert list(stock.present) == ["c", "a", "d"]


def test_what_a_batch_needs_does_not_go_even_if_the_store_grows_too_large() -> None:
    stock = BlobCache(100)
    stock.need(1, ["a", "b"])
    stock.admit("a", 80)
    assert stock.admit("b", 80) == ()
    stock.need(2, ["b"])
    stock.done(1)
    assert stock.admit("c", 10) == ("a",)


def test_a_blob_is_needed_until_its_last_batch_has_left() -> None:
    stock = BlobCache(10)
    stock.need(1, ["a"])
    stock.need(2, ["a"])
    stock.admit("a", 10)
    stock.done(1)
    stock.done(1)
    assert stock.admit("b", 10) == ()
    stock.done(2)
    assert stock.admit("c", 10) == ("a", "b")


def test_a_batch_that_comes_again_counts_once() -> None:
    stock = BlobCache(10)
    stock.need(1, ["a"])
    stock.need(1, ["a"])
    stock.admit("a", 10)
    stock.done(1)
    assert stock.admit("b", 10) == ("a",)


def test_a_blob_that_did_not_arrive_is_missing_and_takes_no_room() -> None:
    stock = BlobCache(10)
    stock.need(1, ["a"])
    stock.admit("a", 10)
    stock.failed("a")

    assert stock.missing(1) == ["a"]
    assert stock.admit("b", 10) == ()
