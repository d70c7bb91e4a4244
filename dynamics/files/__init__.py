"""The run directory: layout, atomic writes, commit records, validated reads. Nothing else knows where things are."""

from dynamics.files.atomic import lock, sha256, write_bytes, write_json
from dynamics.files.checking import Damage, damages, set_aside
from dynamics.files.commits import DamagedError
from dynamics.files.exporting_saes import export_saes
from dynamics.files.importing import import_snapshots
from dynamics.files.importing_saes import import_saes
from dynamics.files.layout import BRANCH, FORMAT, RunDirectory
from dynamics.files.probes import load_probe, write_probe
from dynamics.files.results import TrackingRecord, load_tables, tracking_record, write_tracking
from dynamics.files.saes import SaeRecord, load_contexts, load_latents, load_sae, sae_records, write_sae
from dynamics.files.settings import (
    load_level,
    load_recording,
    load_settings,
    write_level,
    write_recording,
    write_settings,
)
from dynamics.files.snapshots import SnapshotRecord, load_activations, snapshots, write_snapshot

__all__ = [
    "BRANCH",
    "FORMAT",
    "Damage",
    "DamagedError",
    "RunDirectory",
    "SaeRecord",
    "SnapshotRecord",
    "TrackingRecord",
    "damages",
    "export_saes",
    "import_saes",
    "import_snapshots",
    "load_activations",
    "load_contexts",
    "load_latents",
    "load_level",
    "load_probe",
    "load_recording",
    "load_sae",
    "load_settings",
    "load_tables",
    "lock",
    "sae_records",
    "set_aside",
    "sha256",
    "snapshots",
    "tracking_record",
    "write_bytes",
    "write_json",
    "write_level",
    "write_probe",
    "write_recording",
    "write_sae",
    "write_settings",
    "write_snapshot",
    "write_tracking",
]
