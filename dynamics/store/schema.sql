-- Every row of a run. Derived from the files of the run directory; views.sql is what people read.
create schema raw;
create table raw.meta (key varchar primary key, value varchar not null);
-- Commit records whose rows are in, so that a publication adds only what is new.
create table raw.published (path varchar primary key, digest varchar not null);
create table raw.notes (branch varchar, site varchar, stage varchar, note varchar);
-- A branch has the steps of its parent up to the fork; -1 where it has none of them, null for the first branch.
create table raw.branches (branch varchar, parent varchar, fork bigint);

create table raw.checkpoints (
    branch varchar, step bigint, epoch double, samples bigint, loss double
);
create table raw.snapshots (
    branch varchar, site varchar, step bigint, rows bigint, d_in bigint, dtype varchar, probe varchar, fingerprint varchar, path varchar
);
-- Measured when the chain's SAE is made: scale, effective rank, share of the top component, turn since the last step.
create table raw.geometry (
    branch varchar, site varchar, step bigint, scale double, effective_rank double, top_share double, procrustes_residual double
);
create table raw.probe_rows (
    probe varchar, row bigint, sequence bigint, position bigint, text varchar, before varchar, after varchar
);
create table raw.row_masks (probe varchar, concept varchar, row bigint);

create table raw.saes (
    branch varchar, site varchar, step bigint, arm varchar, seed bigint, architecture varchar, n_latents bigint, k bigint,
    fvu double, l0 double, dead double, revived bigint, restarted boolean, path varchar
);
create table raw.latents (
    branch varchar, site varchar, step bigint, arm varchar, seed bigint, latent bigint,
    density double, mean_activation double, max_activation double
);
create table raw.contexts (
    branch varchar, site varchar, step bigint, latent bigint, rank bigint, row bigint, activation double
);

-- From here on: what the tracking stage says. Replaced as a whole for a site when it is tracked again.
create table raw.pairs (
    branch varchar, site varchar, from_step bigint, to_step bigint, arm varchar, seed bigint,
    live_from bigint, live_to bigint, candidates bigint, links bigint, threshold double
);
create table raw.links (
    branch varchar, site varchar, from_step bigint, from_latent bigint, to_step bigint, to_latent bigint,
    cosine double, overlap double, correlation double, ahead double, back double, score double, margin double, reciprocal boolean,
    p_value double, q_value double, gap bigint
);
create table raw.event_candidates (
    branch varchar, site varchar, event varchar, kind varchar, arm varchar, seed bigint, step bigint, from_step bigint, to_step bigint,
    parents bigint[], children bigint[], parent_tracks bigint[], child_tracks bigint[],
    score double, p_value double, q_value double, reason varchar,
    evidence map(varchar, double)
);
create table raw.feature_history (
    branch varchar, site varchar, track bigint, lineage bigint, step bigint, latent bigint, density double, mean_activation double,
    cosine_to_previous double, angle_from_start double, turned double, null_turned double, presence double, contribution double
);
create table raw.tracks (
    branch varchar, site varchar, track bigint, lineage bigint, first_step bigint, last_step bigint, checkpoints bigint,
    left_censored boolean, right_censored boolean
);
create table raw.onsets (branch varchar, site varchar, track bigint, step bigint, low bigint, high bigint, censored varchar);
create table raw.transitions (
    branch varchar, site varchar, from_step bigint, to_step bigint, peak_step bigint, score double, p_value double, series varchar
);
-- The curves that a transition is looked for in, one row a step and series.
create table raw.change (branch varchar, site varchar, step bigint, series varchar, value double);
create table raw.population (
    branch varchar, site varchar, step bigint, live bigint, dead bigint, mean_drift double, null_drift double, null_drift_high double
);
-- How sharp the error control of each kind of event can be: null candidates and the smallest p that they allow.
create table raw.resolution (
    branch varchar, site varchar, kind varchar, tests bigint, null_candidates bigint, smallest_p double
);
