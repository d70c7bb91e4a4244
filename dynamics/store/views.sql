-- The interface: what people query. Column names are stable; the current timeline only.
create view timeline as select value as branch from raw.meta where key = 'branch';
-- Its steps are in several branches where a training was resumed from an earlier step and went on otherwise.
create view timeline_parts as
    with recursive part as (
        select branch, 9223372036854775807::bigint as last from timeline
        union all
        select b.parent as branch, least(b.fork, p.last) as last from part p join raw.branches b using (branch) where b.fork >= 0
    )
    select p.branch, coalesce(b.fork + 1, 0) as first, p.last from part p left join raw.branches b using (branch);
create view level as select value::double as fdr from raw.meta where key = 'fdr';

create view checkpoints as
    select c.step, c.epoch, c.samples, c.loss, c.branch from raw.checkpoints c
    semi join timeline_parts t on t.branch = c.branch and c.step between t.first and t.last order by c.step;

-- What a later branch took the place of is superseded: it stays, in the tables raw.* and on disk.
create view branches as
    select b.branch, b.parent, b.fork, n.branch is not null as current, count(c.step) as checkpoints,
        count(c.step) filter (where not coalesce(c.step between t.first and t.last, false)) as superseded
    from raw.branches b left join timeline n on n.branch = b.branch
    left join raw.checkpoints c on c.branch = b.branch left join timeline_parts t on t.branch = b.branch
    group by b.branch, b.parent, b.fork, n.branch order by length(b.branch), b.branch;

create view snapshots as
    select s.site, s.step, s.rows, s.d_in, g.scale, g.effective_rank, g.top_share, g.procrustes_residual, s.dtype, s.path
    from raw.snapshots s left join raw.geometry g using (branch, site, step)
    semi join timeline_parts t on t.branch = s.branch and s.step between t.first and t.last
    order by s.site, s.step;

create view saes as
    select s.site, s.step, s.arm, s.seed, s.architecture, s.n_latents, s.k, s.fvu, s.l0, s.dead, s.revived, s.restarted, s.path
    from raw.saes s semi join timeline_parts t on t.branch = s.branch and s.step between t.first and t.last
    order by s.site, s.arm, s.seed, s.step;

create view latents as
    select l.site, l.step, l.arm, l.seed, l.latent, l.density, l.mean_activation, l.max_activation, h.track
    from raw.latents l
    -- The arm as a column: DuckDB 1.5 takes minutes over the condition l.arm = 'chain'.
    left join (
        select site, step, 'chain' as arm, latent, track from raw.feature_history semi join timeline using (branch)
    ) h using (site, step, arm, latent)
    semi join timeline_parts t on t.branch = l.branch and l.step between t.first and t.last;

create view contexts as
    select c.site, c.step, c.latent, h.track, c.rank, c.row, p.text, c.activation, p.before, p.after
    from raw.contexts c
    join raw.snapshots s using (branch, site, step)
    left join raw.probe_rows p on p.probe = s.probe and p.row = c.row
    left join (select * from raw.feature_history semi join timeline using (branch)) h
        on h.site = c.site and h.step = c.step and h.latent = c.latent
    semi join timeline_parts t on t.branch = c.branch and c.step between t.first and t.last;

-- threshold: the calibrated score above which latents of the pair were linked.
create view pairs as
    select site, from_step, to_step, arm, seed, live_from, live_to, candidates, links, threshold
    from raw.pairs semi join timeline using (branch) order by site, arm, seed, from_step;

create view links as
    select site, from_step, from_latent, to_step, to_latent, cosine, overlap, correlation, ahead, back, score, margin, reciprocal,
        p_value, q_value, gap
    from raw.links semi join timeline using (branch);

-- reason is null exactly where an event is published; 'q' where the evidence does not reach the run's level.
create view event_candidates as
    select event, site, kind, step, from_step, to_step, parents, children, parent_tracks, child_tracks, score, p_value, q_value, arm, seed,
        arm = 'chain' and reason is null and (q_value is null or q_value <= fdr) as published,
        case when arm <> 'chain' then coalesce(reason, 'null arm') when reason is not null then reason when q_value > fdr then 'q' end as reason,
        evidence
    from raw.event_candidates semi join timeline using (branch), level;

create view events as
    select event, site, kind, step, from_step, to_step, parents, children, parent_tracks, child_tracks, score, p_value, q_value, evidence
    from event_candidates where published order by site, step, kind;

create view feature_history as
    select site, track, lineage, step, latent, density, mean_activation, cosine_to_previous, angle_from_start, turned, null_turned,
        presence, contribution
    from raw.feature_history semi join timeline using (branch) order by site, track, step;

create view tracks as
    select site, track, lineage, first_step, last_step, checkpoints, left_censored, right_censored
    from raw.tracks semi join timeline using (branch) order by site, track;

create view onsets as
    select site, track, step, low, high, censored from raw.onsets semi join timeline using (branch) order by site, track;

create view transitions as
    select site, from_step, to_step, peak_step, score, p_value, series from raw.transitions semi join timeline using (branch)
    order by site, from_step;

create view change as
    select site, step, series, value from raw.change semi join timeline using (branch) order by site, series, step;

-- smallest_q: what a single event could have; needed: how many, all as clear as can be, reach the run's level together.
create view resolution as
    select site, kind, tests, null_candidates, least(1, smallest_p * greatest(tests, 1)) as smallest_q,
        greatest(1, ceil(smallest_p * tests / fdr - 1e-9))::bigint as needed
    from raw.resolution semi join timeline using (branch), level order by site, kind;

-- What a single event can reach depends on the published level, so it is said here and not when a site is tracked.
create view notes as
    select site, stage, note from (
        select site, stage, note from raw.notes semi join timeline using (branch)
        union all
        select site, 'tracking', format('a single {} cannot reach q <= {:g}, it takes {} at once: there are {} null candidates for {} tests',
            kind, fdr, needed, null_candidates, tests)
        from resolution, level where needed > 1 qualify max(null_candidates) over (partition by site) > 0
    ) order by site, stage;

-- The null band: how many of the chain's candidates would clear the same bar by retraining alone, in all and per pair compared.
create view null_rates as
    with bar as (select site, kind, max(p_value) as p from events group by all),
    passing as (
        select c.site, c.kind, count(*) as n from event_candidates c join bar b using (site, kind)
        where c.arm = 'null' and c.p_value <= b.p group by all
    ),
    compared as (select site, count(*) as n from pairs where arm = 'chain' group by all)
    select r.site, r.kind, coalesce(p.n, 0) / r.null_candidates * r.tests as expected, expected / c.n as per_pair
    from resolution r join compared c using (site) left join passing p using (site, kind)
    where r.null_candidates > 0;

create view population as
    with counted as (
        select site, step,
            count(*) filter (where kind = 'birth') as births, count(*) filter (where kind = 'death') as deaths,
            count(*) filter (where kind = 'split') as splits, count(*) filter (where kind = 'merge') as merges,
            count(*) filter (where kind = 'rotation') as rotations
        from events group by all
    ),
    expected as (
        select site, min(first) as first,
            max(each) filter (where kind = 'birth') as births, max(each) filter (where kind = 'death') as deaths,
            max(each) filter (where kind = 'split') as splits, max(each) filter (where kind = 'merge') as merges,
            max(each) filter (where kind = 'rotation') as rotations
        from (
            -- Events are claimed at each checkpoint but the first; pairs over gaps are compared besides.
            select n.site, n.kind, s.first, n.expected / nullif(s.steps - 1, 0) as each
            from null_rates n join (
                select site, count(*) as steps, min(step) as first from raw.population semi join timeline using (branch) group by site
            ) s using (site)
        ) group by all
    )
    -- SAEs that were imported need not all be of one size.
    select p.site, p.step, p.live, coalesce(d.n_latents - p.live, p.dead) as dead,
        coalesce(c.births, 0) as births, coalesce(c.deaths, 0) as deaths, coalesce(c.splits, 0) as splits,
        coalesce(c.merges, 0) as merges, coalesce(c.rotations, 0) as rotations,
        coalesce(e.births, 0) as null_births, coalesce(e.deaths, 0) as null_deaths, coalesce(e.splits, 0) as null_splits,
        coalesce(e.merges, 0) as null_merges, coalesce(e.rotations, 0) as null_rotations,
        p.mean_drift, p.null_drift, p.null_drift_high
    from raw.population p left join counted c using (site, step) left join expected e on e.site = p.site and p.step > e.first
    left join (select site, step, n_latents from saes where arm = 'chain') d using (site, step)
    semi join timeline using (branch)
    order by p.site, p.step;
