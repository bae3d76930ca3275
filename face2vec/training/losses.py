"""Triplet losses over a batch, and a loss that follows another network.

All of them take embeddings of any length and normalise them, in float32. The
distance between two unit vectors is squared L2, computed as ``2 − 2·cos``,
which has a finite gradient for equal vectors too. Memory grows with batch²: the
semi-hard loss with its gradient takes about thirty (batch, batch) arrays of
float32, 0.4 GB for a batch of 1,800, and its time with batch² · log(batch).

A batch for the triplet losses has several photos each of several people.
Embeddings without another photo of the same person in the batch are never an
anchor and still serve as negatives.
"""

from __future__ import annotations

from typing import NamedTuple

from keras import ops

from face2vec.errors import SettingsError
from face2vec.training.layers import Tensor, unit_length

FARTHER_THAN_ANY = 5.0  # squared distances of unit vectors end at 4
NEARER_THAN_ANY = -1.0


class TripletLoss(NamedTuple):
    """A triplet loss and how much of the batch it comes from; both are scalar tensors."""

    loss: Tensor
    """Mean over all triplets, those that cost nothing included; 0 where there are none."""
    active: Tensor
    """Share of the triplets that cost something, 0…1; 0 where there are none."""


def triplet_semi_hard(embeddings: Tensor, labels: Tensor, margin: float = 0.2) -> TripletLoss:
    """FaceNet's loss: ``[d(a, p) − d(a, n) + margin]₊`` over all anchor-positive pairs.

    Every ordered pair of two photos of one person is an anchor and a positive.
    Its negative is the nearest photo of anyone else that is farther from the
    anchor than the positive is: the hardest of the semi-hard ones (Schroff et
    al., section 3.2), or one beyond the margin, which costs nothing. Where every
    negative is as near as the positive or nearer, it is the farthest of them:
    the paper does not say what to do then, and this is what
    TensorFlow Addons' ``TripletSemiHardLoss`` made common.

    Args:
        embeddings: (batch, dimension), of any length.
        labels: integers (batch,), equal for photos of the same person.
        margin: in squared distance.
    """
    distances = squared_distances(embeddings)
    positive, negative = relations(labels)
    chosen = semi_hard_negatives(distances, negative)
    cost = ops.relu(distances - ops.take_along_axis(distances, chosen, axis=1) + margin)
    return _mean_over(cost, positive & ops.any(negative, axis=1, keepdims=True))


def triplet_batch_hard(embeddings: Tensor, labels: Tensor, margin: float = 0.2) -> TripletLoss:
    """One triplet an anchor: its farthest positive and its nearest negative.

    Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person
    Re-Identification" (2017), equation 5, with squared distances of unit vectors
    as everywhere here; theirs are not squared. Photos without a positive or
    without a negative in the batch are left out as anchors.

    Args:
        embeddings: (batch, dimension), of any length.
        labels: integers (batch,), equal for photos of the same person.
        margin: in squared distance.
    """
    distances = squared_distances(embeddings)
    positive, negative = relations(labels)
    farthest, nearest = batch_hard_pairs(distances, positive, negative)
    cost = ops.relu(
        ops.take_along_axis(distances, farthest, axis=1)
        - ops.take_along_axis(distances, nearest, axis=1)
        + margin
    )
    return _mean_over(cost[:, 0], ops.any(positive, axis=1) & ops.any(negative, axis=1))


def distillation(embeddings: Tensor, targets: Tensor, similarity_weight: float = 8.0) -> Tensor:
    """Follow another network's embeddings of the same crops.

    The mean of ``1 − cos`` between each embedding and its target, plus
    ``similarity_weight`` times the mean squared difference between the two
    (batch, batch) matrices of cosine similarities within the batch.

    Args:
        embeddings: (batch, dimension), of any length.
        targets: the other network's, of the same shape.
        similarity_weight: 0 or more.

    Returns:
        A scalar tensor.

    Raises:
        SettingsError: the two have different dimensions.
    """
    if embeddings.shape[-1] != targets.shape[-1]:
        raise SettingsError(
            f"embeddings have {embeddings.shape[-1]} numbers and their targets "
            f"{targets.shape[-1]}; build the network with the targets' dimension"
        )
    embeddings, targets = unit_length(embeddings), unit_length(targets)
    away = ops.mean(1.0 - ops.sum(embeddings * targets, axis=-1))
    difference = _similarities(embeddings) - _similarities(targets)
    return away + similarity_weight * ops.mean(ops.square(difference))


def squared_distances(embeddings: Tensor) -> Tensor:
    """Squared L2 between all pairs of normalised embeddings, float32 (batch, batch), 0…4."""
    return 2.0 - 2.0 * _similarities(unit_length(embeddings))


def relations(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs are of the same person (and not one photo twice), and which are not.

    Returns:
        Two bool arrays (batch, batch): positives and negatives of each anchor.
    """
    labels = ops.reshape(ops.convert_to_tensor(labels), (-1,))
    same = labels[:, None] == labels[None, :]
    place = ops.cumsum(ops.ones_like(labels))
    return same & (place[:, None] != place[None, :]), ops.logical_not(same)


def semi_hard_negatives(distances: Tensor, negative: Tensor) -> Tensor:
    """The negative of every anchor-positive pair, as :func:`triplet_semi_hard` describes it.

    Args:
        distances: (batch, batch).
        negative: bool (batch, batch); see :func:`relations`.

    Returns:
        Integers (batch, batch): in row a and column p the number of the
        negative. Of several at the same distance it is the first, or the last
        where no negative is farther than p. It means nothing where p is no
        positive of a, or a has no negatives.
    """
    distances = ops.stop_gradient(distances)
    candidates = ops.where(negative, distances, FARTHER_THAN_ANY)
    order = ops.argsort(candidates, axis=1)
    ascending = ops.take_along_axis(candidates, order, axis=1)
    first_farther = _count_up_to(ascending, distances)
    last = ops.sum(ops.cast(negative, "int32"), axis=1, keepdims=True) - 1
    place = ops.maximum(ops.minimum(first_farther, last), 0)
    return ops.take_along_axis(order, place, axis=1)


def batch_hard_pairs(
    distances: Tensor, positive: Tensor, negative: Tensor
) -> tuple[Tensor, Tensor]:
    """Numbers of each anchor's farthest positive and nearest negative, two (batch, 1) arrays.

    They mean nothing for anchors that have none.
    """
    distances = ops.stop_gradient(distances)
    farthest = ops.argmax(ops.where(positive, distances, NEARER_THAN_ANY), axis=1, keepdims=True)
    nearest = ops.argmin(ops.where(negative, distances, FARTHER_THAN_ANY), axis=1, keepdims=True)
    return farthest, nearest


def _count_up_to(ascending: Tensor, limits: Tensor) -> Tensor:
    """How many numbers of each ascending row are no larger than each limit of that row.

    A binary search for all limits at once, which builds the counts up bit by
    bit; comparing everything with everything would take (batch, batch, batch).
    """
    size = ops.shape(ascending)[1]
    bits = size.bit_length() if isinstance(size, int) else 20  # a batch of 2²⁰ fits nowhere
    count = ops.zeros_like(limits, dtype="int32")
    for bit in reversed(range(bits)):
        more = count + (1 << bit)
        value = ops.take_along_axis(ascending, ops.minimum(more, size) - 1, axis=1)
        count = ops.where((more <= size) & (value <= limits), more, count)
    return count


def _similarities(unit_vectors: Tensor) -> Tensor:
    return ops.matmul(unit_vectors, ops.transpose(unit_vectors))


def _mean_over(cost: Tensor, triplets: Tensor) -> TripletLoss:
    """Mean of the costs where there is a triplet, and the share of those that are above 0."""
    weight = ops.cast(triplets, "float32")
    count = ops.maximum(ops.sum(weight), 1.0)
    active = ops.cast(cost > 0, "float32")
    return TripletLoss(ops.sum(cost * weight) / count, ops.sum(active * weight) / count)
