"""Writers of 1D patterns as other programs lay them out, one per format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

BRUKER = (
    '\'Id: "" Comment: "30 min scan" Operator: "A. Person" Anode: "Cu" '
    'Scantype: "Locked Coupled" TimePerStep: "175.496" X: "0" Y: "0" Z: "0" '
)

FIT2D_LABELS = {
    "2theta": "2-Theta Angle (Degrees)",
    "q-nm": "Q Space (Inverse Nanometres)",
    "q": "Q (Inverse Angstroms)",
    "radius": "Radial Distance (Millimetres)",
}


def write_xy(
    path: Path, axis, *columns, separator="\t", end="\r\n", header="", decimal="."
) -> Path:
    """Columns of text."""
    lines = [
        separator.join(f"{value:.10g}" for value in row) for row in zip(axis, *columns, strict=True)
    ]
    if decimal != ".":
        lines = [line.replace(".", decimal) for line in lines]
    head = f"{header}{end}" if header else ""
    path.write_bytes((head + end.join(lines) + end).encode())
    return path


def write_bruker(path: Path, axis, intensity, sigma) -> Path:
    """Bruker's export: one quoted line, CRLF, fixed decimals."""
    rows = [f"{x:.4f} {y:.3f} {s:.3f}" for x, y, s in zip(axis, intensity, sigma, strict=True)]
    path.write_bytes("\r\n".join([BRUKER, *rows, ""]).encode())
    return path


def write_fit2d(path: Path, axis, intensity, kind="2theta", points=None) -> Path:
    """Fit2D's .chi: title, two labels, number of points, then two columns."""
    rows = [f" {x: .7E} {y: .7E}" for x, y in zip(axis, intensity, strict=True)]
    head = [path.name, FIT2D_LABELS[kind], "Intensity", f"        {points or len(rows)}"]
    path.write_text("\n".join([*head, *rows, ""]))
    return path


def write_pyfai(
    path: Path, axis, intensity, sigma=None, *, unit="2th_deg", wavelength=0.4959,
    polarization="None", broken=False,
) -> Path:  # fmt: skip
    """pyFAI's text file: the PONI as JSON in '# ' lines, then the names of the columns.

    With errors, 2026.9 writes its own format string in place of those names (``broken``).
    """
    poni = {
        "poni_version": 2.1, "dist": 0.1, "poni1": 0.005, "poni2": 0.005, "rot1": 0, "rot2": 0,
        "rot3": 0, "detector": "Detector",
        "detector_config": {"pixel1": 0.0001, "pixel2": 0.0001, "orientation": 3},
        "wavelength": wavelength * 1e-10,
    }  # fmt: skip
    head = [
        *json.dumps(poni, indent=4).splitlines(),
        "Mask applied: False",
        "Dark current applied: False",
        "Flat field applied: False",
        f"Polarization factor: {polarization}",
        "Normalization factor: 1.0",
        f"--> {path.name}",
    ]
    names = f"#{unit:>14s}  {'I':14s}" + ("" if sigma is None else f"  {'sigma':14s}")
    if broken:
        names = "#{str(dim1_unit):14s}  {'I':14s}  {'sigma':14s}"
    columns = [axis, intensity] if sigma is None else [axis, intensity, sigma]
    rows = ["".join(f"  {value:.6e}" for value in row) for row in zip(*columns, strict=True)]
    path.write_text("\n".join([*(f"# {line}" for line in head), names, *rows, ""]))
    return path


def write_fullprof(path: Path, start, step, intensity, comment="a sample") -> Path:
    """FullProf's free format (INSTRM 0): start, step, end, then ten intensities to a line."""
    end = start + step * (len(intensity) - 1)
    rows = [
        " ".join(f"{value:8.0f}" for value in intensity[place : place + 10])
        for place in range(0, len(intensity), 10)
    ]
    path.write_text("\n".join([f"! {comment}", f"{start:.4f} {step:.4f} {end:.4f}", *rows, ""]))
    return path


def write_fxye(path: Path, two_theta, intensity, sigma, header=(), points=None) -> Path:
    """GSAS FXYE: an 80-character title, comments, a BANK line, then centidegrees, I, error."""
    n = points or len(two_theta)
    start, step = two_theta[0] * 100, (two_theta[1] - two_theta[0]) * 100
    rows = [
        f"{100 * x:15.6f}{y:15.6f}{s:15.6f}"
        for x, y, s in zip(two_theta, intensity, sigma, strict=True)
    ]
    bank = f"BANK 1 {n:7d} {n:7d} CONST {start:10.3f} {step:9.4f} 0 0 FXYE"
    path.write_text("\n".join([f"{path.stem:<80}", *header, bank, *rows, ""]))
    return path


def write_xrdml(
    path: Path, start, end, values, *, version="1.5", element="intensities", intended="K-Alpha 1",
    times="10.16", attenuation="", status="Completed", axis="2Theta", extra="",
    wavelengths=("1.5405980", "1.5444260", "1.3922500"), length="Angstrom",
) -> Path:  # fmt: skip
    """PANalytical XRDML; 2.x holds raw ``counts`` beside the attenuation factors."""
    counting = "countingTimes" if " " in times else "commonCountingTime"
    factors = (
        f"<beamAttenuationFactors>{attenuation}</beamAttenuationFactors>" if attenuation else ""
    )
    numbers = " ".join(f"{value:.10g}" for value in values)
    path.write_text(
        f"""<?xml version="1.0" encoding="UTF-8"?>
<xrdMeasurements xmlns="http://www.xrdml.com/XRDMeasurement/{version}" status="{status}">
  <sample type="To be analyzed"><id>sample</id></sample>
  <xrdMeasurement measurementType="Scan" status="{status}" sampleMode="Reflection">
    <usedWavelength intended="{intended}">
      <kAlpha1 unit="{length}">{wavelengths[0]}</kAlpha1>
      <kAlpha2 unit="{length}">{wavelengths[1]}</kAlpha2>
      <kBeta unit="{length}">{wavelengths[2]}</kBeta>
      <ratioKAlpha2KAlpha1>0.5000</ratioKAlpha2KAlpha1>
    </usedWavelength>
    <incidentBeamPath><xRayTube><anodeMaterial>Cu</anodeMaterial></xRayTube></incidentBeamPath>
    <scan appendNumber="0" mode="Continuous" scanAxis="Gonio" status="{status}">
      <dataPoints>
        <positions axis="{axis}" unit="deg">
          <startPosition>{start}</startPosition><endPosition>{end}</endPosition>
        </positions>
        <positions axis="Omega" unit="deg">
          <startPosition>{start / 2}</startPosition><endPosition>{end / 2}</endPosition>
        </positions>
        <{counting} unit="seconds">{times}</{counting}>{factors}{extra}
        <{element} unit="counts">{numbers}</{element}>
      </dataPoints>
    </scan>
  </xrdMeasurement>
</xrdMeasurements>
"""
    )
    return path


def peaks(n=400):
    """Counts with three lines on a background, and their square roots, shape (n,)."""
    place = np.arange(n)
    heights = sum(
        h * np.exp(-(((place - c) / 6) ** 2)) for c, h in ((90, 500), (210, 900), (330, 200))
    )
    counts = np.round(50 + heights)
    return counts, np.round(np.sqrt(counts), 3)
