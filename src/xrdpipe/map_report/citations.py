"""What to cite for which part of a map."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Citation:
    """A publication, and what it is cited for."""

    purpose: str
    text: str
    doi: str


CITATIONS = (
    Citation(
        "micro-XRD phase mapping by multi-task learning",
        "Li, Y., Liu, J., Zhao, X., Liu, W., Geng, T., Li, A. & Zhang, X. (2024). Accurate and "
        "Data-Efficient Micro X-ray Diffraction Phase Identification Using Multitask Learning: "
        "Application to Hydrothermal Fluids. Advanced Intelligent Systems 6 (12), 2400204.",
        "10.1002/aisy.202400204",
    ),
    Citation(
        "azimuthal integration",
        "Ashiotis, G., Deschildre, A., Nawaz, Z., Wright, J. P., Karkoulis, D., Picca, F. E. & "
        "Kieffer, J. (2015). The fast azimuthal integration Python library: pyFAI. J. Appl. Cryst. "
        "48, 510-519.",
        "10.1107/S1600576715004306",
    ),
    Citation(
        "calibration and the integration scheme",
        "Kieffer, J., Valls, V., Blanc, N. & Hennig, C. (2020). New tools for calibrating "
        "diffraction setups. J. Synchrotron Rad. 27, 558-566.",
        "10.1107/S1600577520000776",
    ),
)
