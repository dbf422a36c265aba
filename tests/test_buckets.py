import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imvideoedit.common.errors import UserError
from imvideoedit.data.buckets import BucketBatchSampler
from imvideoedit.data.sizes import MAX_ASPECT, bucket_length, fit, make_buckets, nearest_bucket

sides = st.integers(1, 4000)
multiples = st.sampled_from([8, 16, 32])
bucket_lists = st.lists(st.sampled_from([(16, 32), (32, 16), (16, 16)]), min_size=1, max_size=40)


@given(st.integers(0, 600_000), multiples)
def test_buckets_keep_to_area_multiple_and_aspect(area, multiple):
    if area < multiple**2:
        with pytest.raises(UserError, match="raise it"):
            make_buckets(area, multiple)
        return
    buckets = make_buckets(area, multiple)
    assert buckets and len(set(buckets)) == len(buckets) and buckets == sorted(buckets)
    for height, width in buckets:
        assert height % multiple == width % multiple == 0 < height * width <= area
        assert max(height, width) <= MAX_ASPECT * min(height, width)
        assert (width, height) in buckets


def test_the_sizes_of_wan_are_buckets():
    buckets = make_buckets(480 * 832, 16)
    assert {(480, 832), (832, 480), (624, 640)} <= set(buckets)
    assert make_buckets(16 * 16, 16) == make_buckets(500, 16) == [(16, 16)]


@given(sides, sides)
def test_the_nearest_bucket_has_the_least_aspect_error(height, width):
    buckets = make_buckets(200_000, 16)
    chosen = nearest_bucket((height, width), buckets)

    def error(bucket):
        return abs(math.log(bucket[0] / bucket[1]) - math.log(height / width))

    assert error(chosen) <= min(map(error, buckets)) + 1e-12
    assert nearest_bucket((height, width), buckets[::-1]) == chosen


def test_every_bucket_is_nearest_to_itself():
    buckets = make_buckets(200_000, 16)
    assert [nearest_bucket(bucket, buckets) for bucket in buckets] == buckets


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from(make_buckets(64 * 64, 16)))
def test_fit_gives_the_size_and_keeps_flat_colour(height, width, size):
    fitted = fit(np.full((height, width, 3), (7, 99, 250), np.uint8), size)
    assert fitted.shape == (*size, 3) and (fitted == (7, 99, 250)).all()


def test_fit_crops_the_centre():
    marked = np.zeros((20, 60, 3), np.uint8)
    marked[:, 20:40] = 255
    assert (fit(marked, (20, 20)) == 255).all()
    assert (fit(marked.transpose(1, 0, 2), (20, 20)) == 255).all()
    random = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    assert np.array_equal(fit(random, (32, 48)), random)
    assert np.array_equal(fit(random, (32, 32)), random[:, 8:40])


@given(bucket_lists, st.integers(1, 5), st.integers(0, 3), st.booleans())
def test_every_row_comes_once_and_batches_hold_one_bucket(buckets, batch_size, epoch, shuffle):
    sampler = BucketBatchSampler(buckets, batch_size, seed=5, shuffle=shuffle)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(len(buckets)))
    for batch in batches:
        assert 1 <= len(batch) <= batch_size and len({buckets[row] for row in batch}) == 1
    assert list(sampler) == batches


@given(bucket_lists, st.integers(1, 5), st.integers(2, 4))
def test_ranks_share_the_rows_in_equal_steps(buckets, batch_size, world_size):
    ranks = [list(BucketBatchSampler(buckets, batch_size, rank=r, world_size=world_size)) for r in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    given_out = Counter(row for batches in ranks for batch in batches for row in batch)
    assert set(given_out) == set(range(len(buckets)))
    full = len(BucketBatchSampler(buckets, batch_size))
    repeated = sum(len(batches) for batches in ranks) - full
    assert 0 <= repeated < world_size


@given(bucket_lists, st.integers(1, 5), st.integers(0, 40))
def test_a_resumed_epoch_continues_where_it_stopped(buckets, batch_size, stop):
    sampler = BucketBatchSampler(buckets, batch_size, seed=1)
    sampler.set_epoch(2)
    full = list(sampler)
    iterator = iter(sampler)
    begun = [batch for batch, _ in zip(iterator, range(stop), strict=False)]
    state = sampler.state_after(len(begun))
    resumed = BucketBatchSampler(buckets, batch_size, seed=1)
    resumed.load_state_dict(state)
    resumed.set_epoch(2)
    assert list(resumed) == full[len(begun) :]
    assert list(resumed) == full
    resumed.load_state_dict(state)
    resumed.set_epoch(3)
    assert len(list(resumed)) == len(full)


@given(bucket_lists, st.integers(1, 3), st.sampled_from([(1, 2), (2, 1), (4, 1), (2, 2)]), st.integers(0, 60))
def test_steps_have_one_size_and_are_the_same_for_any_number_of_ranks(buckets, batch_size, shape, stop):
    world, accumulated = shape
    group = world * accumulated

    def orders(world):
        return [BucketBatchSampler(buckets, batch_size, 7, True, r, world, group, epochs=2) for r in range(world)]

    ranks = [list(sampler) for sampler in orders(world)]
    (alone,) = (list(sampler) for sampler in orders(1))
    together = [batch for batches in zip(*ranks, strict=True) for batch in batches]
    assert together == alone and len(alone) % group == 0
    for start in range(0, len(alone), group):
        step = alone[start : start + group]
        assert len({buckets[row] for batch in step for row in batch}) == 1
        assert all(len(batch) == batch_size for batch in step) or group == 1
    half = len(alone) // 2
    for rows in (alone[:half], alone[half:]):
        assert {row for batch in rows for row in batch} == set(range(len(buckets)))
    done = min(stop, len(alone) // group) * group  # a checkpoint after some steps, taken up by another number of ranks
    state = orders(1)[0].state_after(done)
    for rank, sampler in enumerate(orders(world)):
        sampler.load_state_dict(state)
        sampler.set_epoch(0)
        assert list(sampler) == ranks[rank][done // world :]


def test_seed_and_epoch_change_the_order():
    buckets = [(16, 16)] * 50

    def order(seed, epoch):
        sampler = BucketBatchSampler(buckets, 4, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert len({str(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert order(1, 1) == order(1, 1)
    with pytest.raises(UserError, match="batch_size is 0"):
        BucketBatchSampler(buckets, 0)


def test_rows_of_each_epoch_lie_apart_where_epochs_differ():
    buckets = [(16, 16)] * 5
    plain = list(BucketBatchSampler(buckets, 2, seed=1, epochs=3))
    sampler = BucketBatchSampler(buckets, 2, seed=1, epochs=3, epochs_apart=True)
    apart = list(sampler)
    assert [[row % 5 for row in batch] for batch in apart] == plain
    assert [{row // 5 for row in batch} for batch in apart] == [{0}] * 3 + [{1}] * 3 + [{2}] * 3
    sampler.load_state_dict(sampler.state_after(4))
    assert list(sampler) == apart[4:]


@pytest.mark.parametrize(
    ("frames", "clip", "lengths", "wanted"),
    [(1, False, [1, 17], 1), (17, True, [1, 17, 33], 17), (32, True, [33, 17, 1], 17), (90, True, [1, 17, 33], 33)],
)
def test_rows_have_the_longest_length_that_they_fill(frames, clip, lengths, wanted):
    assert bucket_length(frames, clip, lengths, "row 0") == wanted
