"""Measured patterns with known content: nothing may be found that is not there.

The data are public, and not part of the project: they are looked for beside the checkout. The
shipped model sees patterns without any of its phases; models trained here from CIF files alone see
patterns with some of theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import xrdpipe
from xrdpipe.errors import InputMissingError
from xrdpipe.nn.model_folder import find_model, model_sha256
from xrdpipe.store.maps import read_map

from .report import _table

DATA = Path(__file__).parents[3] / "shared" / "data"

COPPER = 1.5406
"""Kα1, Å; the tube's Kα2 is in the patterns."""


@dataclass(frozen=True)
class Measurement:
    """One or more measured frames or patterns of one content.

    Parameters
    ----------
    files
        Below the data folder; frames, or patterns if there is no ``poni``.
    poni, flip, mask
        Geometry of frames.
    """

    files: tuple[str, ...]
    poni: str | None = None
    flip: str = "none"
    mask: tuple[str, ...] = ()

    @property
    def variants(self) -> tuple[str, ...]:
        """Patterns that came integrated are what they are."""
        return ("masked", "unmasked") if self.poni else ("external",)


PRESS = "cpf_bcc_iron"
PIXIUM = "lightform_pixium_series"

MEASURED = {
    "CeO2, Pilatus 2M": Measurement(
        ("hexrd_ceria_pilatus2m/ceria_50x30_740mm_000005_Pilatus2M.hdf5",),
        "hexrd_ceria_pilatus2m/derived_notilt.poni",
    ),
    "CeO2, press": Measurement(
        (f"{PRESS}/CeO2_Pil207_E30_2Nov2016_001.tif",),
        f"{PRESS}/CeO2_cal_Dioptas.poni",
        "ud",
    ),
    "iron, press": Measurement(
        (f"{PRESS}/BCC1_2GPa_10s_001_00001.tif",),
        f"{PRESS}/CeO2_cal_Dioptas.poni",
        "ud",
        (f"{PRESS}/DiffractionMask_Dioptas.mask",),
    ),
    "titanium alloy": Measurement(
        tuple(f"{PIXIUM}/frames/pixium_0{number}.tif" for number in (3150, 3152, 3155)),
        f"{PIXIUM}/DLS_CeO2_1200mm_pyFAI.poni",
    ),
    "quartz": Measurement(("xrdnet4cem_1d/Quartz_ExtStd_01_exported.xye",)),
    "quartz and rutile": Measurement(("xrdnet4cem_1d/Quartz-Rutile_1-1_02_exported.xye",)),
    "MnO": Measurement(("autoanalyzer_xy/MnO.xy",)),
    "TiO2": Measurement(("autoanalyzer_xy/TiO2.xy",)),
    "Mn2O3 and LiF": Measurement(("autoanalyzer_xy/Mn2O3+LiF.xy",)),
}
"""What was measured; none of it holds a phase of the shipped model."""

TITANIUM = {
    # Cells at room temperature (Wyckoff, Crystal Structures, vol. 1, 1963; β extrapolated).
    "alpha-titanium": ("P 63/m m c", 194, 2.951, 4.684, 120, "0.333333333 0.666666667 0.25"),
    "beta-titanium": ("I m -3 m", 229, 3.283, 3.283, 90, "0 0 0"),
}


@dataclass(frozen=True)
class System:
    """A model trained from CIF files alone, and what it must find.

    Parameters
    ----------
    cif
        Files below the data folder, or names of TITANIUM.
    wavelength, grid
        Of the model.
    right
        Measurement → phases that must be found; a phase of the model not named there must be
        absent, but for those of ``open``.
    open
        Measurement → phases whose presence is not known.
    """

    cif: tuple[str, ...]
    wavelength: float
    grid: str
    right: Mapping[str, tuple[str, ...]]
    open: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


SYSTEMS = {
    "calibrants": System(
        tuple(f"phases_cif/midas_{name}.cif" for name in ("ceo2", "alpha_fe", "si", "lab6")),
        0.40663,
        "5:24:0.01",
        {
            "CeO2, Pilatus 2M": ("midas_ceo2",),
            "CeO2, press": ("midas_ceo2",),
            "iron, press": ("midas_alpha_fe",),
        },
        {"iron, press": ("midas_si", "midas_lab6")},
    ),
    "cement": System(
        tuple(f"phases_cif/xrdnet4cem_{name}.cif" for name in ("Quartz", "Calcite", "Portlandite")),
        COPPER,
        "15:75:0.03",
        {"quartz": ("xrdnet4cem_Quartz",), "quartz and rutile": ("xrdnet4cem_Quartz",)},
        {"quartz and rutile": ("xrdnet4cem_Calcite", "xrdnet4cem_Portlandite")},
    ),
    "titanium": System(
        tuple(TITANIUM),
        0.4959,  # four times the wavelength of the frames spreads their lines over the grid
        "5:24:0.01",
        {"titanium alloy": tuple(TITANIUM)},
    ),
}


def available(data: Path = DATA) -> list[str]:
    """Names of the measurements whose files are there."""
    return [name for name, m in MEASURED.items() if all((data / file).exists() for file in m.files)]


def make_patterns(name: str, work: Path, data: Path = DATA) -> Path:
    """Patterns of a measurement, both variants where it has frames.

    Raises
    ------
    InputMissingError
        A file is not there.
    """
    measured = MEASURED[name]
    for file in measured.files:
        if not (data / file).exists():
            raise InputMissingError(f"'{data / file}' is not there; it is public data, see docs.")
    output = work / f"{_slug(name)}.h5"
    files = tuple(str(data / file) for file in measured.files)
    if output.exists():
        return output
    if measured.poni is None:
        xrdpipe.collect(
            patterns=files,
            output=output,
            wavelength=COPPER,
            polarization_factor=0,
            # One file has an error beside each intensity, one a column that says nothing.
            columns=_columns(files[0]),
        )
    else:
        xrdpipe.integrate(
            frames=files,
            poni=data / measured.poni,
            flip=measured.flip,
            mask=tuple(f"{data / mask}" for mask in measured.mask),
            variant="both",
            spottiness=True,
            output=output,
        )
    return output


def _columns(path: str) -> str | None:
    """Of a plain .xy file with three columns: the third is not an error."""
    if not path.endswith(".xy"):
        return None
    rows = [line.split() for line in Path(path).read_text().splitlines()]
    return "axis,I,skip" if any(len(row) == 3 for row in rows[:20]) else None


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def answers(model: str, measurement: str, work: Path, data: Path = DATA) -> dict[str, Any]:
    """What a model says of a measurement: variant → phase → probabilities of its patterns."""
    patterns = make_patterns(measurement, work, data)
    said = {}
    for variant in MEASURED[measurement].variants:
        output = work / f"map_{_slug(Path(model).name)}_{patterns.stem}_{variant}.h5"
        count = len(MEASURED[measurement].files)
        xrdpipe.map(
            patterns=str(patterns),
            model=model,
            variant=None if variant == "external" else variant,
            scan_shape=f"1x{count}",
            output=output,
            png=False,
            restart=True,
        )
        stored = read_map(output)
        said[variant] = {
            phase: [None if np.isnan(p) else float(p) for p in stored.probability[k, 0]]
            for k, phase in enumerate(stored.phase_names)
        }
    return said


def train_systems(
    work: Path,
    seeds: int,
    recipe: str,
    say: Callable[[str], None],
    data: Path = DATA,
) -> dict[str, list[str]]:
    """Train what is not trained yet; name of the system → model folders, one per seed."""
    folders: dict[str, list[str]] = {}
    for name, system in SYSTEMS.items():
        for seed in range(seeds):
            folder = work / "models" / f"{name}-{seed}"
            if not folder.exists():
                say(f"training {name}, seed {seed}")
                xrdpipe.train(
                    cif=[str(_cif(entry, work, data)) for entry in system.cif],
                    wavelength=system.wavelength,
                    grid=system.grid,
                    recipe=recipe,
                    seed=seed,
                    output=folder,
                )
            folders.setdefault(name, []).append(str(folder))
    return folders


def _cif(entry: str, work: Path, data: Path) -> Path:
    if entry not in TITANIUM:
        return data / entry
    group, number, a, c, gamma, place = TITANIUM[entry]
    path = work / f"{entry}.cif"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"data_{entry}\n_cell_length_a {a}\n_cell_length_b {a}\n_cell_length_c {c}\n"
        f"_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma {gamma}\n"
        f"_space_group_name_H-M_alt '{group}'\n_space_group_IT_number {number}\n"
        "loop_\n_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n"
        "_atom_site_fract_y\n_atom_site_fract_z\n_atom_site_occupancy\n"
        f"_atom_site_U_iso_or_equiv\nTi Ti {place} 1 0.006\n"
    )
    return path


def measure(
    shipped: str,
    systems: Mapping[str, list[str]],
    work: Path,
    say: Callable[[str], None],
    data: Path = DATA,
) -> dict[str, Any]:
    """Probabilities of every phase in every measurement; nothing is chosen on them."""
    work.mkdir(parents=True, exist_ok=True)
    there = available(data)
    result: dict[str, Any] = {
        "absent": [name for name in MEASURED if name not in there],
        "model": {"name": shipped, "sha256": model_sha256(find_model(shipped))},
        "trained": {system: [_record(model) for model in of] for system, of in systems.items()},
    }
    result["negatives"] = {}
    for name in there:
        say(f"{shipped}: {name}")
        result["negatives"][name] = answers(shipped, name, work, data)
    result["systems"] = {}
    for system, models in systems.items():
        result["systems"][system] = {}
        for name in SYSTEMS[system].right:
            if name in there:
                say(f"{system}: {name}")
                result["systems"][system][name] = [
                    answers(model, name, work, data) for model in models
                ]
    return result


def _record(model: str) -> dict[str, Any]:
    """Hash and seed of a trained model, and what its training took."""
    report = json.loads((Path(model) / "report.json").read_text(encoding="utf-8"))
    kept = ("seed", "patterns_seen", "seconds_of_this_session")
    return {"sha256": model_sha256(model)} | {key: report[key] for key in kept}


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Markdown: probabilities in per cent, patterns in order; seeds separated by semicolons."""
    made = {}
    if result["negatives"]:
        rows, phases = [], []
        for name, by_variant in result["negatives"].items():
            for variant, by_phase in by_variant.items():
                phases = list(by_phase)
                rows.append([name, variant, *(_said([by_phase[p]]) for p in phases)])
        made["accuracy-public-negatives"] = _table(["measurement", "variant", *phases], rows)
    rows = []
    for system, by_name in result["systems"].items():
        for name, seeds in by_name.items():
            for variant in seeds[0]:
                for phase in seeds[0][variant]:
                    right = "present" if phase in SYSTEMS[system].right[name] else "absent"
                    if phase in SYSTEMS[system].open.get(name, ()):
                        right = "not known"
                    said = _said([entry[variant][phase] for entry in seeds])
                    rows.append([system, name, variant, phase, right, said])
    if rows:
        head = ["model", "measurement", "variant", "phase", "truth", "probability %"]
        made["accuracy-public-positives"] = _table(head, rows)
    return made


def _said(seeds: list[list[float | None]]) -> str:
    return "; ".join(
        ", ".join("undetermined" if p is None else f"{100 * p:.1f}" for p in patterns)
        for patterns in seeds
    )


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """As JSON."""
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
