"""Triplet losses over a batch, and a distillation loss.

All of them take embeddings of any length and normalise them, in float32. The
distance between two unit vectors is squared L2, computed as ``2 − 2·cos``,
which has a finite gradient for equal vectors. Memory grows with batch²: the semi-hard loss with its
gradient takes about thirty (batch, batch) arrays of float32, 0.4 GB for a batch of 1,800, and time
with batch² · log(batch).

A batch for the triplet losses has several photos each of several people.
Embeddings without another photo of the same person in the batch are never anchors but still serve
as negatives.
"""

from __future__ import annotations

from typing import NamedTuple

from keras import ops

from face2vec.errors import SettingsError
from face2vec.training.layers import Tensor, unit_length

FARTHER_THAN_ANY = 5.0  # squared distances of unit vectors are at most 4
NEARER_THAN_ANY = -1.0


class TripletLoss(NamedTuple):
    """A triplet loss and the share of active triplets; both are scalar tensors."""

    loss: Tensor
    """Mean over all triplets, those that cost nothing included; 0 where there are none."""
    active: Tensor
    """Share of the triplets that cost something, 0…1; 0 where there are none."""


def triplet_semi_hard(embeddings: Tensor, labels: Tensor, margin: float = 0.2) -> TripletLoss:
    """FaceNet's loss: ``[d(a, p) − d(a, n) + margin]₊`` over all anchor-positive pairs.

    Every ordered pair of two photos of one person is an anchor and a positive. Its negative is the
    nearest photo of another person that is farther from the anchor than the positive: the hardest
    of the semi-hard negatives (Schroff et al., section 3.2), or one beyond the margin, which costs
    nothing. If no negative is farther than the positive, it is the farthest negative: the paper
    leaves this case open, and TensorFlow Addons' ``TripletSemiHardLoss`` made this choice common.

    Args:
        embeddings: (batch, dimension), not normalised.
        labels: integers (batch,), equal for photos of the same person.
        margin: in squared distance.
    """
    distances = squared_distances(embeddings)
    positive, negative = relations(labels)
    chosen = semi_hard_negatives(distances, negative)
    cost = ops.relu(distances - ops.take_along_axis(distances, chosen, axis=1) + margin)
    return _mean_over(cost, positive & ops.any(negative, axis=1, keepdims=True))


def triplet_batch_hard(embeddings: Tensor, labels: Tensor, margin: float = 0.2) -> TripletLoss:
    """One triplet per anchor: its farthest positive and its nearest negative.

    Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification" (2017),
    equation 5, with squared distances of unit vectors; theirs are not squared. Photos without a
    positive or without a negative in the batch are left out as anchors.

    Args:
        embeddings: (batch, dimension), not normalised.
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
    """Distillation: follow another network's embeddings of the same crops.

    The mean of ``1 − cos`` between each embedding and its target, plus
    ``similarity_weight`` times the mean squared difference between the two
    (batch, batch) matrices of cosine similarities within the batch.

    Args:
        embeddings: (batch, dimension), not normalised.
        targets: the other network's embeddings, of the same shape.
        similarity_weight: 0 or more.

    Returns:
        A scalar tensor.

    Raises:
        SettingsError: the two have different dimensions.
    """
    if embeddings.shape[-1] != targets.shape[-1]:
        raise SettingsError(
            f"embeddings have dimension {embeddings.shape[-1]} and their targets "
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
    """Which pairs show the same person in two photos, and which show two people.

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
        Integers (batch, batch): in row a and column p the number of the negative. Of several at the
        same distance it is the first, or the last where no negative is farther than p. It is
        meaningless if p is not a positive of a, or a has no negatives.
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

    They are meaningless for anchors without any.
    """
    distances = ops.stop_gradient(distances)
    farthest = ops.argmax(ops.where(positive, distances, NEARER_THAN_ANY), axis=1, keepdims=True)
    nearest = ops.argmin(ops.where(negative, distances, FARTHER_THAN_ANY), axis=1, keepdims=True)
    return farthest, nearest


def _count_up_to(ascending: Tensor, limits: Tensor) -> Tensor:
    """How many values of each ascending row are at most each limit of that row.

    A binary search for all limits at once, which builds the counts up bit by bit; comparing all
    values with all limits would take (batch, batch, batch).
    """
    size = ops.shape(ascending)[1]
    bits = size.bit_length() if isinstance(size, int) else 20  # no batch of 2²⁰ fits into memory
    count = ops.zeros_like(limits, dtype="int32")
    for bit in reversed(range(bits)):
        more = count + (1 << bit)
        value = ops.take_along_axis(ascending, ops.minimum(more, size) - 1, axis=1)
        count = ops.where((more <= size) & (value <= limits), more, count)
    return count


def _similarities(unit_vectors: Tensor) -> Tensor:
    return ops.matmul(unit_vectors, ops.transpose(unit_vectors))


def _mean_over(cost: Tensor, triplets: Tensor) -> TripletLoss:
    """Mean cost of the existing triplets, and the share of them with a cost above 0."""
    weight = ops.cast(triplets, "float32")
    count = ops.maximum(ops.sum(weight), 1.0)
    active = ops.cast(cost > 0, "float32")
    return TripletLoss(ops.sum(cost * weight) / count, ops.sum(active * weight) / count)
