-- docs/engine.md, "An event counts at most once at a time" and "What becomes of a record", over the records of one event.
-- A mention's `at` is its place among them, from 1. `arrayMap(name -> ..., [value])[1]` gives a value a name.
-- ClickHouse 24 knows the names of a tuple that is an expression only as arguments of `tupleElement`.
(a, b) -> if(a.block != '' AND b.block != '', a.block = b.block,
             a.number = -1 OR b.number = -1 OR a.number = b.number) AS are_compatible,
(a, b) -> a.removed = b.removed AND a.block = b.block AND a.number = b.number AND a.revision = b.revision
          AND a.said = b.said AS are_same,
(a, b) -> a.block = b.block AND a.number = b.number AND a.said = b.said AS is_said,
(x, a) -> NOT a.removed AND a.revision = x.revision AND a.said != x.said AND if(a.block != '' AND x.block != '',
          a.block = x.block, a.said.ms = x.said.ms AND are_compatible(a, x)) AS disagrees,
(a, o) -> NOT o.removed AND a.block = '' AND o.block != '' AND o.said = a.said
          AND (a.revision = -1 OR a.revision = o.revision) AND are_compatible(a, o) AS is_stood_for,
-- Which adds a removal takes back: those that it fits best.
(r, mentions) -> arrayMap(reached ->
    arrayMap(a -> a.at, arrayFilter(a -> multiIf(
        arrayExists(b -> r.block != '' AND b.block = r.block, reached), a.block = r.block,
        arrayExists(b -> b.said = r.said AND are_compatible(b, r), reached), a.said = r.said AND are_compatible(a, r),
        are_compatible(a, r)), reached)),
    [arrayFilter(a -> NOT a.removed AND (a.revision = -1 OR r.revision = -1 OR a.revision <= r.revision), mentions)]
)[1] AS taken_by,
mentions -> arrayMap(r -> (r.revision, taken_by(r, mentions)), arrayFilter(r -> r.removed, mentions)) AS all_taken,
(a, mentions) -> if(a.number != -1, a.number, arrayMax(arrayMap(
    o -> if(NOT o.removed AND a.block != '' AND o.block = a.block, o.number, toInt64(-1)), mentions))) AS number_of,
mentions -> arrayMax(arrayMap(m -> if(m.removed, toInt64(-1), m.revision), mentions)) AS last_revision,
mentions -> arrayMap(taken -> arrayFilter(
    a -> NOT a.removed AND a.revision = last_revision(mentions) AND NOT has(taken, a.at)
        AND NOT arrayExists(o -> is_stood_for(a, o), mentions), mentions
), [arrayFlatten(arrayMap(each -> each.2, all_taken(mentions)))])[1] AS alive_of,
-- (its number, what it said, its place from the end) of each.
mentions -> arrayMap(a -> (number_of(a, mentions), a.said, -toInt64(a.at)), alive_of(mentions)) AS last_of,
mentions -> arrayMap(last -> if(empty(last), toUInt32(0), toUInt32(-arrayReverseSort(
    l -> (if(arrayExists(o -> o.1 = -1, last), tupleElement(l.2, 'ms'), toInt64(0)), l.1, l.2, l.3), last
)[1].3)), [last_of(mentions)])[1] AS counting_of,
(x, mentions) -> arrayMap(add -> arrayExists(
    taking -> (x.revision = -1 OR taking.1 = -1)
        AND arrayExists(a -> has(taking.2, a.at) AND (a.at = add.at OR is_stood_for(add, a)), mentions)
        AND arrayExists(a -> has(taking.2, a.at) AND a.has_counted, mentions),
    all_taken(mentions)
), [arrayFirst(m -> are_same(m, x), mentions)])[1] AS is_readded,
(m, has_counted) -> CAST(
    (m.at, m.removed, m.block, m.number, m.revision, m.said, has_counted), '${mention}') AS marked,
(mentions, counting, changed, remembered, changes, kept, late) -> CAST(
    (mentions, counting, changed, remembered, changes, kept, late), '${event}') AS event_of,
(e, x) -> event_of(e.mentions, e.counting, e.changed, e.remembered, e.changes, e.kept, if(e.late = 0, x.at, e.late)) AS told_late,
(e, x, changes) -> if(x.is_late AND NOT x.mention.removed, told_late(e, x.mention), event_of(
    [marked(x.mention, NOT x.mention.removed)], if(x.mention.removed, toUInt32(0), x.mention.at), x.newest, x.newest,
    changes, e.kept, e.late)) AS begun,
(e, x, mentions) -> arrayMap(counting -> event_of(
    arrayMap(m -> marked(m, m.has_counted OR m.at = counting), mentions), counting, x.newest, x.newest, e.changes + 1,
    e.kept, e.late), [counting_of(mentions)])[1] AS accepted,
e -> length(e.mentions) >= 24 OR e.changes >= 1000 AS is_full,
(e, x) -> multiIf(
    arrayExists(m -> are_same(m, x.mention), e.mentions), e,
    x.mention.removed, if(is_full(e), e, accepted(e, x, arrayPushBack(e.mentions, x.mention))),
    arrayExists(m -> disagrees(x.mention, m), e.mentions), e,
    x.is_late AND NOT arrayExists(
        m -> NOT m.removed AND m.said = x.mention.said AND are_compatible(m, x.mention), e.mentions),
    told_late(e, x.mention),
    is_full(e) OR is_readded(x.mention, arrayPushBack(e.mentions, x.mention)), e,
    accepted(e, x, arrayPushBack(e.mentions, x.mention))) AS mentioned_again,
(e, x) -> multiIf(
    e.counting != 0 OR arrayExists(m -> are_compatible(m, x.mention), e.mentions) OR e.changes >= 1000, e,
    begun(e, x, e.changes + 1)) AS added_later,
(e, x) -> arrayMap(counts -> multiIf(
    notEmpty(counts) AND (tupleElement(counts[1], 'said') != x.mention.said OR is_full(e) OR (
        tupleElement(counts[1], 'revision') != -1 AND x.mention.revision != -1
        AND arrayExists(m -> m.at != e.counting AND is_said(m, x.mention), e.mentions))), e,
    empty(counts) AND (is_full(e) OR arrayExists(m -> is_said(m, x.mention), e.mentions)), e,
    event_of(arrayPushBack(e.mentions, x.mention), if(empty(counts), e.counting, toUInt32(0)), e.changed, x.newest,
             e.changes + 1, e.kept, e.late)
), [arrayFilter(m -> m.at = e.counting AND are_compatible(m, x.mention), e.mentions)])[1] AS removed_later,
(e, x) -> if(notEmpty(e.mentions) AND intDiv(x.newest, 3600000) >= intDiv(e.remembered, 3600000) + 1 + ${ttl_hours},
    event_of(CAST([], 'Array(${mention})'), toUInt32(0), toInt64(0), toInt64(0), toUInt32(0),
             if(e.counting = 0, e.kept, arrayPushBack(e.kept, e.counting)), e.late), e) AS forgotten_by,
(event, x) -> arrayMap(e -> multiIf(
    empty(e.mentions), begun(e, x, toUInt32(0)),
    x.newest - e.changed < ${horizon_ms}, mentioned_again(e, x),
    x.mention.removed, removed_later(e, x),
    added_later(e, x)), [forgotten_by(event, x)])[1] AS told,
records -> arrayFold((e, x) -> told(e, x), records, event_of(
    CAST([], 'Array(${mention})'), toUInt32(0), toInt64(0), toInt64(0), toUInt32(0), CAST([], 'Array(UInt32)'), toUInt32(0)
)) AS fate_of
