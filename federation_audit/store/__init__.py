"""What the audit knows, in SQLite or PostgreSQL.

**The store is a function of the messages.** Every row that a message makes is either the newest of its kind (verdict of
a medium in a stratum, origin by its id, latest time that something happened to a medium) or a member of a set (links,
hashes); both come out the same in whatever order messages are read, and however often. All else (tallies, evidence,
clusters) is derived from those rows in the same transaction. Hence topics may be read interleaved in any way, a batch
that is read twice changes nothing, and a rebuild from the topics gives the same content. Row ids are not content: they
are given as things are met. `store.dump` writes the content without them.

Offsets stand in the store, in the transaction of the rows that they speak of: kill -9 leaves both or neither. One
process writes at a time; a lease in the store says which (`store.lease`).

What counts:

* A **medium** is a tenant's file: (tenant, sha256). It counts once, however often it is posted, fetched or viewed.
* A **stratum** is what judged: the models' ids, the policy's id, the version of the hash list. The newest verdict of a
  medium in a stratum is its judgement there; each stratum keeps counts of its own. The newest of a medium's judgements
  is its state now. Strata of a hash list hold hits alone (a list that does not match says nothing): there, exposure is
  no denominator.
* A verdict of stage rescan, by a policy and models, takes the medium out of the strata that judged it before: it counts
  in the new one alone, on the day that the image had come, and again in the old one when the rescan is undone. Hits of
  hash lists stand beside it. One of a hash list is a hit like any other; undone, it is none.
* A verdict of stage override is a person's word about one image, which says nothing about how often judges err: it is
  kept with the medium (mark ``denied``), and is in no stratum, no tally, no incident.
* An **exposure** of an instance in a stratum is a medium judged there that the instance is attributed to, with
  confidence certain or likely. Author's instance, community's instance and image host are three tallies that never mix.
  A medium with several authors counts once for each of their instances. **Flagged** is an exposure judged review or
  reject. The tally of stratum 0 is about the state now, whatever the stratum.
* An **incident** of an author's instance is a distinct (actor, UTC day, cluster) among media flagged now. Authors known
  by instance alone count as one actor, and not at all in a cluster in which the instance has a known one. The day is
  that of the post; a post from the future is as young as its observation, one without a time as old as it.
* A **cluster** is a connected component of flagged media, those being linked that have frames within 31 bits of PDQ
  (quality 50 and more), or the same bytes. It goes by its smallest sha256.
* A **rescan** is counted beside all that, by image and by what it said of it (`store.rescans`): it decides nothing
  until it is carried out, and then by verdicts of its own.
* Sums by day count an image on the day of its latest verdict, and of its latest answer of each kind: views do not add.

Each fact has a time, its message's own. What is older than the horizon (retention months before the current day) does
not count, neither at intake nor later: `store.sweeping`.
"""
