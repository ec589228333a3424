"""``strata`` of a pyramid, coarse to fine: the codec ``strata_joint``.

What is decoded of one map predicts the next finer one: see `fcbench.codecs.shared.joint`. Of one map it is
``strata``.
"""

from fcbench.codecs.shared.joint import joint

PLUGIN = joint("strata")
