"""``elic`` of a pyramid, coarse to fine: the codec ``elic_joint``.

What is decoded of one map predicts the next finer one: see `fcbench.codecs.shared.joint`. Of one map it is
``elic``.
"""

from fcbench.codecs.shared.joint import joint

PLUGIN = joint("elic")
