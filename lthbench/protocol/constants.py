"""Constants of the protocol that several modules read: kinds of cells, divisions, levels."""

from __future__ import annotations

from typing import Literal

# Kinds of cells (protocol, section 7).
REINITS = ("reinit", "reinit-signs")  # the ticket's masks, with weights redrawn
IDENTITY = ("shuffled", *REINITS)  # which weights; signs and magnitudes; magnitudes
RANDOM = ("random", "erk")  # masks without any learning, at theta_0
CONTROLS = (*IDENTITY, *RANDOM)
TICKETS = ("ticket", "untrained")  # a ticket itself, trained or as it stands
UNTRAINED = ("untrained", "untrained_random")  # scored without training
SUBJECTS = ("dense", *TICKETS)  # what controls are compared with; trained once
SHARED = ("dense", *RANDOM, "untrained_random")  # the same for every method
CARRIED = "carried"  # a ticket at another depth
PARTS = ("layers", "mask-only", "weights-only")  # components of a transferred ticket

COMPRESSED = (8, 4, 2)  # divisors of the steps of a compressed schedule
DRAWS = 3  # of a control: one whose training diverges is drawn again, at most twice
LAST = 5  # evaluations averaged for a recipe that ends at a constant rate
CHEAP = 0.05  # dense trainings: methods that cost less are also run at the targets of transfer

Division = Literal["init", "rewind", "open", "reference"]
# Strictest first (protocol, section 5).
DIVISIONS: tuple[Division, ...] = ("init", "rewind", "open", "reference")
LEVELS = ("reported", "artefacts", "retrained", "reproduced")  # protocol, section 12

METHOD_FILE = "method.py"  # a method's source, in an evaluation's folder and in a bundle
