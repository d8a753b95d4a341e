"""A first recipe for a file of one's own: what `keras-distil init` writes."""

from keras_distil.planning.proposal.recipe import Proposal, propose

__all__ = ["Proposal", "propose"]
